"""24 numbers per lead that say what an ECG looks like, for choosing the records a tokenizer is learnt from.

The list is that of the ECG-Byte paper; where it names a quantity without saying how it is measured, the definition is
ours and `morphology_features` says it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.workers import in_order, worker_pool
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, LeadError, SamplingRateError, SignalError
from ecgbyte_hf.models.leads_ecg_byte import FLAT_PEAK_TO_PEAK

logger = logging.getLogger(__name__)

#: The features of one lead, with their units, in the order of `morphology_features`.
FEATURE_NAMES = (
    "mean_mv",
    "std_mv",
    "max_mv",
    "min_mv",
    "median_mv",
    "p25_mv",
    "p75_mv",
    "total_power_mv2",
    "peak_power_mv2_per_hz",
    "dominant_frequency_hz",
    "spectral_centroid_hz",
    "heart_rate_bpm",
    "hrv_ms",
    "qrs_duration_ms",
    "t_amplitude_mv",
    "st_deviation_mv",
    "wavelet_a5_mv",
    "wavelet_d5_mv",
    "wavelet_d4_mv",
    "wavelet_d3_mv",
    "wavelet_d2_mv",
    "wavelet_d1_mv",
    "mean_difference_mv",
    "rms_difference_mv",
)
#: To be raised when a definition changes, so that stored features are computed anew.
FEATURES_VERSION = 1

_WELCH_SAMPLES = 1024
_WAVELET = "db4"
_WAVELET_LEVELS = 5
# R peaks: at least half the lead's maximum high, and so many seconds apart (300 beats a minute).
_R_HEIGHT = 0.5
_R_DISTANCE = 0.2
# A QRS complex lies within these seconds on either side of its R peak, and ends where the slope falls below this share
# of its steepest.
_QRS_REACH = 0.1
_QRS_SLOPE = 0.1
_ST_AFTER = 0.08
# The T wave is looked for from the end of the widest QRS complexes on, not beyond where the next P wave may begin.
_T_AFTER = 0.1
_T_UNTIL = 0.4
_T_SHARE_OF_RR = 0.6
# mV; a volt is beyond any recording, and squares of what is below still fit a float32.
_LARGEST = 1e6
# Records that one process measures at a time: 2 MB of 12 x 2500 float32 to send, 100 ms of work.
_CHUNK = 16
_METADATA_KEY = b"ecgbyte_features"


def morphology_features(signal: np.ndarray, sampling_rate: float, lead_names: Sequence[str]) -> np.ndarray:
    """The 24 features of every lead, lead after lead.

    =============================  ===========================================================================
    `mean` to `p75`                mean, standard deviation, extremes, median and quartiles, mV
    `total_power`                  sum of the power spectral density times its frequency step, mV^2. The density
                                   is Welch's: Hann windows of 1024 samples (of the lead, if it is shorter), half
                                   overlapping, the mean of each removed
    `peak_power`                   largest value of that density, mV^2/Hz
    `dominant_frequency`           where that is, Hz
    `spectral_centroid`            mean frequency weighted by the density, Hz
    `heart_rate`                   60 / mean RR interval. R peaks are the lead's local maxima of half its maximum
                                   or more that are 0.2 s apart; of near ones the higher. A lead without positive
                                   deflection, as aVR, has none or counts other waves: so it is in the paper
    `hrv`                          standard deviation of the RR intervals, ms
    `qrs_duration`                 from the first to the last step between samples, within 0.1 s of the R peak,
                                   that is at least a tenth of the largest there; mean over R peaks, ms
    `t_amplitude`                  the value furthest from the lead's median between 0.1 s and the earlier of
                                   0.4 s and 60 % of the RR interval after the R peak, as a signed difference
                                   from the median; mean over RR intervals, mV
    `st_deviation`                 value 80 ms after the R peak less the lead's median; mean over RR intervals, mV
    `wavelet_a5`, `_d5` to `_d1`   mean absolute coefficient of the six bands of a `db4` decomposition of level 5
                                   (symmetric extension), mV
    `mean_difference`, `rms_..`    mean and root mean square of the steps between samples, mV per sample
    =============================  ===========================================================================

    The five from `heart_rate` to `st_deviation` are 0 where a lead has fewer than two R peaks, the four of the
    spectrum are 0 where it is flat (1 nV peak to peak). All values are finite.

    Args:
        signal: Float array (leads, samples) in mV.
        sampling_rate: Hz.
        lead_names: Names of the rows.

    Returns:
        float64 (leads * 24,), in the order of `feature_columns(lead_names)`.

    Raises:
        LeadError: the names are not those of the rows.
        SamplingRateError: the rate is not positive.
        SignalError: fewer than two samples, or values that are not finite or beyond a kilovolt.

    Example:
        >>> spikes = np.zeros((1, 1000))
        >>> spikes[0, 50::80] = 1.0
        >>> features = morphology_features(spikes, 100.0, ["II"])
        >>> dict(zip(FEATURE_NAMES, features.round(6).tolist()))["heart_rate_bpm"]
        75.0
    """
    if signal.ndim != 2 or signal.shape[0] != len(lead_names) or len(set(lead_names)) != len(lead_names):
        raise LeadError(f"got a signal of shape {signal.shape} and leads {list(lead_names)}, expected a row for each")
    if not sampling_rate > 0.0:
        raise SamplingRateError(f"got a sampling rate of {sampling_rate!r} Hz, expected a positive one")
    if signal.shape[1] < 2:
        raise SignalError(f"got {signal.shape[1]} samples per lead, expected at least 2", ("short",))
    values = signal.astype(np.float64)
    if not np.abs(values).max(initial=0.0) < _LARGEST:
        raise SignalError(f"expected finite values below {_LARGEST:g} mV; clean the record first", ("amplitude",))
    columns = [
        *_amplitudes(values),
        *_spectrum(values, sampling_rate),
        *np.array([_beats(lead, sampling_rate) for lead in values]).reshape(-1, 5).T,
        *_wavelet_bands(values),
        *_differences(values),
    ]
    return np.stack(columns, axis=1).reshape(-1)


def feature_columns(lead_names: Sequence[str]) -> tuple[str, ...]:
    """Names of what `morphology_features` returns.

    Example:
        >>> feature_columns(["I", "II"])[23:25]
        ('I_rms_difference_mv', 'II_mean_mv')
    """
    return tuple(f"{lead}_{feature}" for lead in lead_names for feature in FEATURE_NAMES)


def _amplitudes(values: np.ndarray) -> list[np.ndarray]:
    quartiles = np.percentile(values, [50.0, 25.0, 75.0], axis=1)
    return [values.mean(axis=1), values.std(axis=1), values.max(axis=1), values.min(axis=1), *quartiles]


def _spectrum(values: np.ndarray, rate: float) -> list[np.ndarray]:
    from scipy.signal import welch

    frequencies, density = welch(values, rate, nperseg=min(_WELCH_SAMPLES, values.shape[1]), axis=1)
    # What rounding leaves of a constant has a spectrum too, of noise.
    density[np.ptp(values, axis=1) <= FLAT_PEAK_TO_PEAK] = 0.0
    total = density.sum(axis=1)
    centroid = np.divide(density @ frequencies, total, out=np.zeros(len(total)), where=total > 0.0)
    return [total * frequencies[1], density.max(axis=1), frequencies[density.argmax(axis=1)], centroid]


def _beats(lead: np.ndarray, rate: float) -> tuple[float, float, float, float, float]:
    """Heart rate, variability, QRS duration, T amplitude and ST deviation of one lead."""
    from scipy.signal import find_peaks

    peaks, _ = find_peaks(lead, height=_R_HEIGHT * lead.max(), distance=max(1, round(_R_DISTANCE * rate)))
    if len(peaks) < 2:
        return 0.0, 0.0, 0.0, 0.0, 0.0
    intervals = np.diff(peaks)
    # The last beat may end behind the record.
    beats = peaks[:-1]
    deviation = lead - np.median(lead)
    st_deviation = deviation[np.minimum(beats + round(_ST_AFTER * rate), len(lead) - 1)].mean()
    return (
        60.0 * rate / float(intervals.mean()),
        1000.0 * float(intervals.std()) / rate,
        _qrs_duration(lead, peaks, rate),
        _t_amplitude(deviation, beats, intervals, rate),
        float(st_deviation),
    )


def _qrs_duration(lead: np.ndarray, peaks: np.ndarray, rate: float) -> float:
    reach = max(1, round(_QRS_REACH * rate))
    # Step j leads from sample j to j + 1; of the padded ones, the first of peak p is p.
    steps = np.pad(np.abs(np.diff(lead)), reach)[peaks[:, None] + np.arange(2 * reach)]
    steepest = steps.max(axis=1, keepdims=True)
    is_steep = (steps >= _QRS_SLOPE * steepest) & (steps > 0.0)
    first = is_steep.argmax(axis=1)
    last = 2 * reach - 1 - is_steep[:, ::-1].argmax(axis=1)
    samples = np.where(is_steep.any(axis=1), last - first + 1, 0)
    return 1000.0 * float(samples.mean()) / rate


def _t_amplitude(deviation: np.ndarray, beats: np.ndarray, intervals: np.ndarray, rate: float) -> float:
    start = round(_T_AFTER * rate)
    stops = np.minimum(round(_T_UNTIL * rate), (_T_SHARE_OF_RR * intervals).astype(int))
    stops = np.maximum(stops, start + 1)
    offsets = np.arange(start, stops.max())
    window = deviation[np.minimum(beats[:, None] + offsets, len(deviation) - 1)]
    furthest = np.where(offsets < stops[:, None], np.abs(window), -1.0).argmax(axis=1)
    return float(window[np.arange(len(beats)), furthest].mean())


def _wavelet_bands(values: np.ndarray) -> list[np.ndarray]:
    import pywt

    # Level by level and not by `wavedec`, which gives the same and warns below 224 samples.
    bands = []
    approximation = values
    for _ in range(_WAVELET_LEVELS):
        approximation, detail = pywt.dwt(approximation, _WAVELET, axis=1)
        bands.append(detail)
    return [np.abs(band).mean(axis=1) for band in (approximation, *reversed(bands))]


def _differences(values: np.ndarray) -> list[np.ndarray]:
    steps = np.diff(values, axis=1)
    return [steps.mean(axis=1), np.sqrt(np.square(steps).mean(axis=1))]


@dataclass(frozen=True)
class FeatureTable:
    """Features of records.

    Attributes:
        ecg_ids: int64 (records,), ascending.
        values: float32 (records, features).
        columns: Names of the features.
        fingerprint: `PreparedData.fingerprint` of the records.
        refused: Records without features, and why.
    """

    ecg_ids: np.ndarray
    values: np.ndarray
    columns: tuple[str, ...]
    fingerprint: str = ""
    refused: tuple[tuple[int, str], ...] = ()

    def __post_init__(self) -> None:
        """Check that there is a row for every record, in order."""
        if self.values.shape != (len(self.ecg_ids), len(self.columns)):
            raise EcgDataError(
                f"got features of shape {self.values.shape} for {len(self.ecg_ids)} records and {len(self.columns)} "
                "names, expected (records, names)"
            )
        if np.any(np.diff(self.ecg_ids) <= 0):
            raise EcgDataError("the records of a feature table must be in ascending order, each once; sort them first")

    def select(self, ecg_ids: Iterable[int]) -> FeatureTable:
        """The rows of some records; those that were refused stay refused.

        Raises:
            EcgDataError: a record is neither here nor refused.
        """
        wanted = sorted(set(ecg_ids))
        reasons = dict(self.refused)
        kept = np.array([ecg_id for ecg_id in wanted if ecg_id not in reasons], np.int64)
        is_missing = ~np.isin(kept, self.ecg_ids)
        if is_missing.any():
            raise EcgDataError(f"there are no features of record {kept[is_missing][0]}; compute them first")
        refused = tuple((ecg_id, reasons[ecg_id]) for ecg_id in wanted if ecg_id in reasons)
        rows = np.searchsorted(self.ecg_ids, kept)
        return FeatureTable(kept, self.values[rows], self.columns, self.fingerprint, refused)

    def save(self, path: str | Path) -> Path:
        """Write a Parquet file: `ecg_id` and a float32 column for every feature; beside the target, then renamed."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {"version": FEATURES_VERSION, "data": self.fingerprint, "refused": self.refused}
        table = pa.table(
            {"ecg_id": self.ecg_ids, **{name: self.values[:, place] for place, name in enumerate(self.columns)}}
        ).replace_schema_metadata({_METADATA_KEY: json.dumps(about).encode()})
        partial = path.with_name(f".{path.name}.partial")
        pq.write_table(table, partial, compression="zstd", use_dictionary=False)
        partial.replace(path)
        return path

    @classmethod
    def load(cls, path: str | Path) -> FeatureTable:
        """Read what `save` wrote.

        Raises:
            EcgDataError: the file is missing, damaged, of another kind or of another version.
        """
        try:
            table = pq.read_table(path)
            about = json.loads((table.schema.metadata or {})[_METADATA_KEY])
            version, fingerprint = about["version"], about["data"]
            refused = tuple((int(ecg_id), str(reason)) for ecg_id, reason in about["refused"])
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise EcgDataError(f"{path} holds no features: {error}; compute them anew") from error
        if version != FEATURES_VERSION:
            raise EcgDataError(f"{path} has features of version {version}, expected {FEATURES_VERSION}; compute anew")
        names = table.column_names[1:]
        values = np.empty((table.num_rows, len(names)), np.float32)
        for place, name in enumerate(names):
            values[:, place] = table.column(name).to_numpy()
        return cls(table.column("ecg_id").to_numpy(), values, tuple(names), fingerprint, refused)


def record_features(
    prepared: PreparedData,
    path: str | Path | None = None,
    *,
    ecg_ids: Iterable[int] | None = None,
    num_proc: int = 1,
) -> FeatureTable:
    """The features of the records of a prepared folder; a few records are in memory at a time.

    A record whose features cannot be computed is refused with a reason, and the job goes on.

    Args:
        prepared: The prepared folder.
        path: Parquet file with features. If it holds those of these records they are read, else it is written.
        ecg_ids: Only these records; all by default.
        num_proc: Processes.

    Raises:
        EcgDataError: a record is not in the folder, the folder is damaged, or a process was killed.
    """
    if num_proc < 1:
        raise EcgDataError(f"got {num_proc} processes, expected at least 1")
    wanted = sorted(set(prepared.ecg_ids if ecg_ids is None else ecg_ids))
    stored = _stored_features(path, prepared, wanted)
    if stored is not None:
        return stored
    columns = feature_columns(prepared.leads)
    values = np.empty((len(wanted), len(columns)), np.float32)
    row_of = {ecg_id: row for row, ecg_id in enumerate(wanted)}
    refused: dict[int, str] = {}
    for ecg_id, measured in _measured(prepared, wanted, num_proc):
        if isinstance(measured, str):
            refused[ecg_id] = measured
        else:
            values[row_of[ecg_id]] = measured
    if refused:
        logger.warning("%d records have no features: %s, ...", len(refused), next(iter(refused.values())))
    is_kept = np.array([ecg_id not in refused for ecg_id in wanted], bool)
    table = FeatureTable(
        np.array(wanted, np.int64)[is_kept],
        values[is_kept],
        columns,
        prepared.fingerprint,
        tuple(sorted(refused.items())),
    )
    if path is not None:
        table.save(path)
    return table


def _stored_features(path: str | Path | None, prepared: PreparedData, wanted: list[int]) -> FeatureTable | None:
    """The features in the file if they are those of these records."""
    if path is None or not Path(path).exists():
        return None
    try:
        table = FeatureTable.load(path)
        if table.fingerprint != prepared.fingerprint or table.columns != feature_columns(prepared.leads):
            raise EcgDataError(f"{path} has the features of other records")
        return table.select(wanted)
    except EcgDataError as error:
        logger.warning("%s; they are computed anew", error)
        return None


# Number of a record, and its features or why there are none.
Measured = tuple[int, np.ndarray | str]


def _measured(prepared: PreparedData, ecg_ids: list[int], num_proc: int) -> Iterator[Measured]:
    from tqdm.auto import tqdm

    bar = tqdm(total=len(ecg_ids), desc="features", unit="record")
    rate, leads = prepared.sampling_rate, prepared.leads
    with bar:
        if num_proc == 1:
            for item in prepared.iter_signals(ecg_ids):
                yield from _measure([item], rate, leads)
                bar.update()
            return
        try:
            with worker_pool(num_proc) as pool:
                # The processes start here, before the thread that reads records does: a forked process has no threads,
                # but whatever they had locked.
                pool.submit(int).result()
                work = partial(_measure, rate=rate, leads=leads)
                signals = prepared.iter_signals(ecg_ids)
                for measured in in_order(pool, work, signals, num_proc=num_proc, chunk_size=_CHUNK):
                    yield measured
                    bar.update()
        except BrokenProcessPool as error:
            raise EcgDataError(
                "a process that measures records was killed, as happens when memory runs out; use fewer processes"
            ) from error


def _measure(signals: list[tuple[int, np.ndarray]], rate: float, leads: list[str]) -> list[Measured]:
    measured: list[Measured] = []
    for ecg_id, signal in signals:
        try:
            measured.append((ecg_id, morphology_features(signal, rate, leads)))
        except SignalError as error:
            measured.append((ecg_id, f"record {ecg_id}: {error}"))
    return measured
