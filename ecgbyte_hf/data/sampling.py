"""Which records a tokenizer is learnt from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ecgbyte_hf.data.morphology import FeatureTable
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.provenance import provenance, write_json, write_text

#: Seed of the paper's clustering.
CLUSTER_SEED = 42
#: Most clusters that are tried.
MAX_CLUSTERS = 200
#: How features are brought to one scale; see `cluster_records`.
SCALINGS = ("standardised", "reference")

_RESTARTS = 10
_EXPLAINED_VARIANCE = 0.95
_COARSE_STEP = 1.25
_FINE_STEPS = 8
# Over five such draws of 4,400 real records the silhouette differed by less than 0.015 from that of all of them; its
# cost grows with the square.
_SILHOUETTE_RECORDS = 2000
# Of 20,000 records (148 components) k-means for one k took 6 to 27 s on one thread, so the search would take over 10
# minutes; in batches 0.1 to 1.3 s, for 3 % (k = 10) to 15 % (k = 200) more inertia. 4,400 records took 47 s in all.
_MINIBATCH_FROM = 20_000
_DBSCAN_EPS = 0.5
_DBSCAN_MIN_SAMPLES = 5


@dataclass(frozen=True)
class ClusterFit:
    """One number of clusters that was tried.

    Attributes:
        k: Number of clusters.
        inertia: Sum of the squared distances to the nearest centre.
        silhouette: Mean silhouette, -1 to 1; `None` if the records it is measured on fell into one cluster.
    """

    k: int
    inertia: float
    silhouette: float | None


@dataclass(frozen=True)
class RecordClusters:
    """Records grouped by morphology.

    Attributes:
        ecg_ids: int64 (records,), ascending.
        labels: int64 (records,): the cluster of each, 0 the largest; -1 for none, which only DBSCAN leaves.
        algorithm: `"kmeans"`, `"minibatch-kmeans"` or `"dbscan"`.
        fits: Every k that was tried, ascending.
        elbow_k: k at the elbow of the inertia.
        silhouette_k: k with the best silhouette.
        explained_variance: Share of the variance of each principal component that was kept.
        components: float64 (records, 2): the first two principal components, standardised.
        seed: Of the clustering.
        scaling: One of `SCALINGS`.
    """

    ecg_ids: np.ndarray
    labels: np.ndarray
    algorithm: str
    fits: tuple[ClusterFit, ...]
    elbow_k: int
    silhouette_k: int
    explained_variance: tuple[float, ...]
    components: np.ndarray = field(repr=False)
    seed: int = CLUSTER_SEED
    scaling: str = "standardised"

    @property
    def num_clusters(self) -> int:
        """Clusters that have records."""
        return int(self.labels.max()) + 1

    @property
    def sizes(self) -> list[int]:
        """Records in each cluster, the largest first."""
        return np.bincount(self.labels[self.labels >= 0], minlength=self.num_clusters).tolist()


@dataclass(frozen=True)
class CorpusDraw:
    """The records that a tokenizer is to be learnt from.

    Attributes:
        ecg_ids: Their numbers, ascending.
        method: `"uniform"` or `"stratified"`.
        seed: Of the draw.
        num_candidates: Records they were drawn from.
        clusters: What a stratified draw was stratified by.
    """

    ecg_ids: tuple[int, ...]
    method: str
    seed: int
    num_candidates: int
    clusters: RecordClusters | None = None

    @property
    def drawn_sizes(self) -> list[int]:
        """Records drawn from each cluster, in the order of `clusters.sizes`; empty for a uniform draw."""
        if self.clusters is None:
            return []
        labels = self.clusters.labels[np.isin(self.clusters.ecg_ids, self.ecg_ids)]
        return np.bincount(labels[labels >= 0], minlength=self.clusters.num_clusters).tolist()

    def to_dict(self) -> dict[str, Any]:
        """Everything but the components of every record, for JSON."""
        content: dict[str, Any] = {
            "method": self.method,
            "seed": self.seed,
            "num_records": len(self.ecg_ids),
            "num_candidates": self.num_candidates,
            "ecg_ids": list(self.ecg_ids),
        }
        if self.clusters is not None:
            clusters = self.clusters
            content["clusters"] = {
                "k": clusters.num_clusters,
                "algorithm": clusters.algorithm,
                "scaling": clusters.scaling,
                "seed": clusters.seed,
                "sizes": clusters.sizes,
                "drawn": self.drawn_sizes,
                "in_no_cluster": int(np.count_nonzero(clusters.labels < 0)),
                "elbow_k": clusters.elbow_k,
                "silhouette_k": clusters.silhouette_k,
                "k_tried": [fit.k for fit in clusters.fits],
                "inertia": [fit.inertia for fit in clusters.fits],
                "silhouette": [fit.silhouette for fit in clusters.fits],
                "explained_variance": list(clusters.explained_variance),
            }
        return content

    def save(self, folder: str | Path, arguments: dict[str, Any], **extra: Any) -> Path:
        """Write `sample.json` and `sample.txt`, which has a number on each line.

        Args:
            folder: Where.
            arguments: What the draw was asked for, for the provenance.
            extra: Further entries of the provenance.

        Returns:
            The path of `sample.json`.
        """
        folder = Path(folder)
        write_text(folder / "sample.txt", "".join(f"{ecg_id}\n" for ecg_id in self.ecg_ids))
        if self.clusters is not None:
            extra["scikit-learn"] = _sklearn().__version__
        return write_json(
            folder / "sample.json", {**self.to_dict(), "provenance": provenance("sample", arguments, **extra)}
        )


def draw_uniform(ecg_ids: Iterable[int], num_records: int, *, seed: int = CLUSTER_SEED) -> CorpusDraw:
    """Draw records so that each is as likely as any other, without replacement.

    Args:
        ecg_ids: Records to draw from; their order makes no difference.
        num_records: How many.
        seed: Of the draw.

    Raises:
        EcgDataError: there are fewer records than that, or fewer than one is asked for.

    Example:
        >>> draw_uniform(range(100), 4, seed=0).ecg_ids
        (26, 50, 62, 82)
    """
    candidates = sorted(set(ecg_ids))
    _check_size(num_records, len(candidates))
    drawn = np.random.default_rng(seed).choice(candidates, num_records, replace=False)
    return CorpusDraw(tuple(sorted(drawn.tolist())), "uniform", seed, len(candidates))


def draw_stratified(
    features: FeatureTable,
    num_records: int,
    *,
    seed: int = CLUSTER_SEED,
    clusters: RecordClusters | None = None,
) -> CorpusDraw:
    """Draw the same number of records from every cluster, and at random from all others what is then missing.

    A cluster smaller than its share is drawn whole.

    Args:
        features: Of all records to draw from.
        num_records: How many to draw.
        seed: Of the draw, and of the clustering if it is not given.
        clusters: What `cluster_records` made of these features; by default `draw_clusters` makes them.

    Raises:
        EcgDataError: there are fewer records than that, fewer than two are asked for, or the clusters are those of
            other records.
        ImportError: scikit-learn is absent.
    """
    _check_size(num_records, len(features.ecg_ids), least=2)
    if clusters is None:
        clusters = draw_clusters(features, num_records, seed=seed)
    if not np.array_equal(clusters.ecg_ids, features.ecg_ids):
        raise EcgDataError("the clusters are those of other records; cluster these features")
    rng = np.random.default_rng(seed)
    share = num_records // max(clusters.num_clusters, 1)
    is_drawn = np.zeros(len(clusters.ecg_ids), bool)
    for cluster in range(clusters.num_clusters):
        members = np.flatnonzero(clusters.labels == cluster)
        is_drawn[rng.choice(members, min(share, len(members)), replace=False)] = True
    others = np.flatnonzero(~is_drawn)
    is_drawn[rng.choice(others, num_records - int(is_drawn.sum()), replace=False)] = True
    return CorpusDraw(tuple(clusters.ecg_ids[is_drawn].tolist()), "stratified", seed, len(clusters.ecg_ids), clusters)


def draw_clusters(
    features: FeatureTable, num_records: int, *, seed: int = CLUSTER_SEED, **options: Any
) -> RecordClusters:
    """The clusters for a draw: at most as many as records are drawn, since with more there is no share for each.

    Args:
        features: Of all records to draw from.
        num_records: How many will be drawn.
        seed: Of the clustering.
        options: `scaling`, `num_clusters` of `cluster_records`.

    Raises:
        EcgDataError: see `cluster_records`; also more clusters than records to draw.
    """
    _check_size(num_records, len(features.ecg_ids), least=2)
    num_clusters = options.get("num_clusters")
    if num_clusters is not None and num_clusters > num_records:
        raise EcgDataError(f"cannot draw {num_records} records from each of {num_clusters} clusters; ask for fewer")
    return cluster_records(features, seed=seed, max_clusters=min(MAX_CLUSTERS, num_records), **options)


def _check_size(num_records: int, num_candidates: int, least: int = 1) -> None:
    if not least <= num_records <= num_candidates:
        raise EcgDataError(
            f"cannot draw {num_records} of {num_candidates} records; expected from {least} to {num_candidates}"
        )


def cluster_records(
    features: FeatureTable,
    *,
    seed: int = CLUSTER_SEED,
    scaling: str = "standardised",
    max_clusters: int = MAX_CLUSTERS,
    num_clusters: int | None = None,
) -> RecordClusters:
    """Group records by morphology as the ECG-Byte paper does, with the number of clusters found from the data.

    The features are reduced to the principal components with 95 % of their variance, these are standardised, and
    k-means (10 restarts) is run for k from 2 to `max_clusters`; k is the smaller of the elbow of the inertia and the k
    of the best silhouette. The elbow is the k whose inertia lies furthest below the line from the first to the last
    one. The paper takes the largest single drop, which is nearly always that from 2 to 3. If fewer than 3 clusters
    come out, DBSCAN (0.5, 5) is tried, and taken if it finds 3 or more.

    k is tried on a coarse grid (2, 3, 4, 5, 6, 8, 10, 12, ... by a quarter, 22 values up to 200), then at up to 8
    values on either side of each of the two candidates: at most 54 of 199. The silhouette is that of 2,000 records,
    drawn once with the seed; 20,000 records or more are clustered by MiniBatchKMeans.

    Real ECGs need not fall into clusters: of 4,400 records of PTB-XL at 100 Hz the best silhouette was 0.11 at k = 2
    and near 0 from k = 5 on, while the elbow was at 66. `num_clusters` then decides otherwise.

    Args:
        features: Of the records; all of them count, and their order makes no difference.
        seed: Of k-means and of the silhouette's records.
        scaling: `"standardised"` standardises the features before the components are computed, too, since they have
            different units: without that a heart rate in beats per minute has thousands of times the variance of a
            wavelet coefficient in mV, and the components would be little else than rates and frequencies.
            `"reference"` leaves it out, as the paper does.
        max_clusters: Most clusters to try.
        num_clusters: Try no other k than this.

    Raises:
        EcgDataError: fewer than 3 records, or all alike; an unknown scaling; or no k is possible.
        ImportError: scikit-learn is absent.
    """
    points, explained = principal_components(features.values, scaling=scaling)
    # A silhouette needs fewer clusters than records, k-means no more of them than different records.
    largest = min(
        max_clusters if num_clusters is None else MAX_CLUSTERS, len(points) - 1, len(np.unique(points, axis=0))
    )
    if largest < 2 or num_clusters is not None and not 2 <= num_clusters <= largest:
        wanted = f"at most {max_clusters}" if num_clusters is None else f"{num_clusters}"
        raise EcgDataError(
            f"cannot make {wanted} clusters of {len(points)} records; expected 2 to {max(largest, 2)} clusters of at "
            "least 3 records"
        )
    search = _KSearch(points, seed)
    if num_clusters is not None:
        search.run([num_clusters])
    else:
        search.run_coarse_to_fine(largest)
    elbow, silhouette = search.elbow_k(), search.silhouette_k()
    labels, algorithm = search.labels[min(elbow, silhouette)], search.algorithm
    if num_clusters is None and len(np.unique(labels)) < 3:
        labels, algorithm = _dbscan_if_more(points, labels, algorithm)
    return RecordClusters(
        ecg_ids=features.ecg_ids,
        labels=_largest_first(labels),
        algorithm=algorithm,
        fits=tuple(search.fits[k] for k in sorted(search.fits)),
        elbow_k=elbow,
        silhouette_k=silhouette,
        explained_variance=tuple(float(share) for share in explained),
        components=np.pad(points[:, :2], ((0, 0), (0, max(0, 2 - points.shape[1])))),
        seed=seed,
        scaling=scaling,
    )


def principal_components(values: np.ndarray, *, scaling: str = "standardised") -> tuple[np.ndarray, np.ndarray]:
    """The standardised principal components with 95 % of the variance.

    Args:
        values: Float array (records, features).
        scaling: See `cluster_records`.

    Returns:
        float64 (records, components), each of mean 0 and variance 1, and the share of the variance of each.

    Raises:
        EcgDataError: unknown scaling, or all records have the same features.
    """
    if scaling not in SCALINGS:
        raise EcgDataError(f"unknown scaling {scaling!r}; known: {', '.join(SCALINGS)}")
    if len(values) < 3:
        raise EcgDataError(f"cannot cluster {len(values)} records, expected at least 3; draw them uniformly")
    values = values.astype(np.float64)
    is_constant = np.ptp(values, axis=0) == 0.0
    if is_constant.all():
        raise EcgDataError(f"the features of all {len(values)} records are the same; draw them uniformly")
    # What rounding leaves of a constant must not be made as large as a feature.
    values = values[:, ~is_constant]
    scaler = _sklearn("preprocessing").StandardScaler
    if scaling == "standardised":
        values = scaler().fit_transform(values)
    # Of the solvers that take a share of variance, this one needs no matrix as large as the features.
    pca = _sklearn("decomposition").PCA(_EXPLAINED_VARIANCE, svd_solver="covariance_eigh")
    return scaler().fit_transform(pca.fit_transform(values)), pca.explained_variance_ratio_


class _KSearch:
    """k-means of the same points for several k."""

    def __init__(self, points: np.ndarray, seed: int) -> None:
        self._points = points
        self._seed = seed
        self.algorithm = "kmeans" if len(points) < _MINIBATCH_FROM else "minibatch-kmeans"
        self.fits: dict[int, ClusterFit] = {}
        self.labels: dict[int, np.ndarray] = {}
        rng = np.random.default_rng(seed)
        size = min(_SILHOUETTE_RECORDS, len(points))
        self._judged = np.sort(rng.choice(len(points), size, replace=False))
        # The same for every k, and most of a silhouette's cost.
        self._distances = _sklearn("metrics").pairwise_distances(points[self._judged])

    def run_coarse_to_fine(self, largest: int) -> None:
        coarse = coarse_grid(largest)
        self.run(coarse, "clusters (coarse)")
        fine = {k for near in (self.elbow_k(), self.silhouette_k()) for k in _between_neighbours(coarse, near)}
        self.run(sorted(fine), "clusters (fine)")

    def run(self, ks: Sequence[int], name: str = "clusters") -> None:
        from tqdm.auto import tqdm

        for k in tqdm([k for k in ks if k not in self.fits], desc=name, unit="k"):
            self._fit(k)

    def _fit(self, k: int) -> None:
        cluster = _sklearn("cluster")
        kind = cluster.KMeans if self.algorithm == "kmeans" else cluster.MiniBatchKMeans
        # On one thread the sums, and with them the clusters, do not depend on the machine.
        with import_module("threadpoolctl").threadpool_limits(1):
            fitted = kind(k, n_init=_RESTARTS, random_state=self._seed).fit(self._points)
        self.labels[k] = fitted.labels_
        self.fits[k] = ClusterFit(k, float(fitted.inertia_), self._silhouette(fitted.labels_[self._judged]))

    def _silhouette(self, labels: np.ndarray) -> float | None:
        if not 2 <= len(np.unique(labels)) < len(labels):
            return None
        return float(_sklearn("metrics").silhouette_score(self._distances, labels, metric="precomputed"))

    def elbow_k(self) -> int:
        ks = sorted(self.fits)
        return elbow(ks, [self.fits[k].inertia for k in ks])

    def silhouette_k(self) -> int:
        """The k with the best silhouette; of several the smallest."""
        scores = [(-2.0 if fit.silhouette is None else fit.silhouette, -fit.k) for fit in self.fits.values()]
        return -max(scores)[1]


def coarse_grid(largest: int) -> list[int]:
    """Numbers of clusters from 2 to `largest`, each a quarter more than the one before.

    Example:
        >>> coarse_grid(40)
        [2, 3, 4, 5, 6, 8, 10, 12, 15, 19, 23, 29, 36, 40]
    """
    grid, value = {largest}, 2.0
    while round(value) < largest:
        grid.add(round(value))
        value *= _COARSE_STEP
    return sorted(grid)


def _between_neighbours(grid: Sequence[int], k: int) -> list[int]:
    """Up to 8 values on either side of `k`, as far as the next in the grid."""
    place = grid.index(k)
    values: set[int] = set()
    for low, high in ((grid[max(place - 1, 0)], k), (k, grid[min(place + 1, len(grid) - 1)])):
        values.update(np.linspace(low, high, _FINE_STEPS + 2)[1:-1].round().astype(int).tolist())
    return sorted(values)


def elbow(ks: Sequence[int], inertia: Sequence[float]) -> int:
    """The k whose inertia lies furthest below the straight line from the first to the last one.

    Both axes are scaled to 0..1 first, so the unit of the inertia makes no difference.

    Example:
        >>> elbow([2, 3, 4, 5, 6, 7], [100.0, 60.0, 21.0, 20.0, 19.0, 18.0])
        4
    """
    if len(ks) < 3 or inertia[0] <= inertia[-1]:
        return ks[0]
    along = (np.asarray(ks, float) - ks[0]) / (ks[-1] - ks[0])
    height = (np.asarray(inertia, float) - inertia[-1]) / (inertia[0] - inertia[-1])
    return ks[int(np.argmax(1.0 - along - height))]


def _dbscan_if_more(points: np.ndarray, labels: np.ndarray, algorithm: str) -> tuple[np.ndarray, str]:
    """DBSCAN's clusters if there are 3 or more. What it calls noise is in no cluster: drawn only to fill up."""
    found = _sklearn("cluster").DBSCAN(eps=_DBSCAN_EPS, min_samples=_DBSCAN_MIN_SAMPLES).fit(points).labels_
    return (found, "dbscan") if found.max() >= 2 else (labels, algorithm)


def _largest_first(labels: np.ndarray) -> np.ndarray:
    """Number the clusters by size, equal ones by their first record, so that a number means the same in any run."""
    found, first, sizes = np.unique(labels, return_index=True, return_counts=True)
    order = sorted(
        (-int(size), int(place), int(label)) for label, place, size in zip(found, first, sizes, strict=True)
    )
    new = {label: number for number, (_, _, label) in enumerate(item for item in order if item[2] >= 0)}
    return np.array([new.get(label, -1) for label in labels.tolist()], np.int64)


def read_record_list(path: str | Path, *, data: str | None = None) -> list[int]:
    """Numbers of records from a `sample.json`, or from a text file with one on each line.

    Args:
        path: The file.
        data: `PreparedData.folder_fingerprint` of the folder that the records should be of, which a `sample.json` has.

    Raises:
        EcgDataError: the file is missing or of another kind, empty, names a record twice, or was drawn from another
            folder.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        stored: Any = json.loads(text) if path.suffix == ".json" else {"ecg_ids": [int(word) for word in text.split()]}
        found, drawn_from = stored["ecg_ids"], stored.get("provenance", {}).get("data")
        if not all(type(ecg_id) is int for ecg_id in found):
            raise ValueError("not all entries are whole numbers")
    except OSError as error:
        raise EcgDataError(f"cannot read {path}: {error.strerror or error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise EcgDataError(
            f"{path} is no list of records ({error}); expected what `ecgbyte sample` writes, or a number on each line"
        ) from error
    if data is not None and drawn_from not in (None, data):
        raise EcgDataError(f"{path} was drawn from another prepared folder; draw from this one with `ecgbyte sample`")
    if not found:
        raise EcgDataError(f"{path} names no record")
    if len(set(found)) < len(found):
        twice = next(ecg_id for place, ecg_id in enumerate(found) if ecg_id in found[:place])
        raise EcgDataError(f"{path} names record {twice} twice; every record counts once")
    return sorted(found)


def _sklearn(module: str | None = None) -> Any:
    try:
        return import_module(f"sklearn.{module}" if module else "sklearn")
    except ImportError as error:
        raise ImportError(
            "stratified draws need scikit-learn; install it with `pip install 'ecgbyte-hf[sampling]'`"
        ) from error
