"""The figure of a stratified draw: its curves, sizes and clusters are the draw's own, and nothing overlaps."""

import numpy as np
import pytest

from ecgbyte_hf.data.morphology import FeatureTable
from ecgbyte_hf.data.sampling import cluster_records, draw_stratified, draw_uniform
from ecgbyte_hf.interpretation.corpus_figures import plot_corpus_draw
from ecgbyte_hf.interpretation.figures import save_figure
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

SIZES = (120, 60, 40, 30, 20, 15, 10, 5)


@pytest.fixture(scope="module")
def draw():
    rng = np.random.default_rng(0)
    belongs = np.repeat(np.arange(len(SIZES)), SIZES)
    values = (10.0 * np.eye(len(SIZES))[belongs] + 0.1 * rng.normal(size=(300, 8))).astype(np.float32)
    table = FeatureTable(np.arange(300), values, tuple("abcdefgh"))
    return draw_stratified(table, 64, clusters=cluster_records(table, max_clusters=30))


@pytest.fixture(scope="module")
def figure(draw):
    return plot_corpus_draw(draw)


def labels_of(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def test_curves_are_those_of_the_search(figure, draw):
    fits = draw.clusters.fits
    for axis, name, label in zip(
        figure.axes[:2], ("inertia", "silhouette"), ("elbow: k = 8", "best: k = 8"), strict=True
    ):
        np.testing.assert_array_equal(axis.lines[0].get_xdata(), [fit.k for fit in fits])
        np.testing.assert_array_equal(axis.lines[0].get_ydata(), [getattr(fit, name) for fit in fits])
        assert labels_of(axis) == [label, "chosen: k = 8"]
        assert axis.get_xlabel() == "number of clusters k"
    assert "inertia" in figure.axes[0].get_ylabel() and "silhouette" in figure.axes[1].get_ylabel()


def test_sizes_before_and_after_in_percent(figure, draw):
    before, after = figure.axes[2].containers
    assert [bar.get_height() for bar in before] == pytest.approx([100 * size / 300 for size in SIZES])
    assert [bar.get_height() for bar in after] == pytest.approx([100 * size / 64 for size in draw.drawn_sizes])
    assert labels_of(figure.axes[2]) == ["all records", "drawn"] and figure.axes[2].get_ylabel().endswith("(%)")


def test_every_record_is_at_its_components_in_the_colour_of_its_cluster(figure, draw):
    axis = figure.axes[3]
    points, labels = draw.clusters.components, draw.clusters.labels
    low, high = np.percentile(points, (0.5, 99.5), axis=0)
    is_shown = np.all((points >= low) & (points <= high), axis=1)
    hidden = np.count_nonzero(~is_shown)
    assert axis.get_title().endswith(f"{hidden} records lie outside") and hidden < 12
    names = labels_of(axis)
    assert names == [f"cluster {number}" for number in range(1, 7)] + ["others"]
    colours = set()
    for number, drawn in enumerate(axis.collections):
        belongs = labels == number if number < 6 else labels >= 6
        np.testing.assert_allclose(drawn.get_offsets(), points[is_shown & belongs])
        colours.add(tuple(drawn.get_facecolors()[0]))
    assert len(colours) == 7 and sum(len(drawn.get_offsets()) for drawn in axis.collections) == 300 - hidden


def test_heading(figure, draw):
    assert figure.get_suptitle().startswith("64 of 300 records drawn from 8 clusters (kmeans, ")
    assert f"{len(draw.clusters.explained_variance)} principal components" in figure.get_suptitle()


@pytest.mark.parametrize("kind", ["found", "given", "many", "dbscan"])
def test_nothing_overlaps_or_leaves_the_figure(kind, draw):
    if kind == "found":
        shown = draw
    else:
        rng = np.random.default_rng(1)
        table = FeatureTable(np.arange(200), rng.normal(size=(200, 5)).astype(np.float32), tuple("abcde"))
        clusters = cluster_records(table, num_clusters=60 if kind == "many" else 2)
        if kind == "dbscan":
            object.__setattr__(clusters, "algorithm", "dbscan")
        shown = draw_stratified(table, 80, clusters=clusters)
    figure = plot_corpus_draw(shown)
    figure.draw_without_rendering()
    width, height = figure.bbox.width, figure.bbox.height
    boxes = [axis.get_tightbbox() for axis in figure.axes] + [figure._suptitle.get_window_extent()]
    for box in boxes:
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
    for place, one in enumerate(boxes):
        for other in boxes[place + 1 :]:
            assert not (
                one.x0 < other.x1 - 1 and other.x0 < one.x1 - 1 and one.y0 < other.y1 - 1 and other.y0 < one.y1 - 1
            )


def test_a_k_that_dbscan_overruled_is_not_called_chosen(draw):
    clusters = cluster_records(
        FeatureTable(draw.clusters.ecg_ids, draw.clusters.components.astype(np.float32), ("a", "b")), num_clusters=5
    )
    object.__setattr__(clusters, "algorithm", "dbscan")
    table = FeatureTable(clusters.ecg_ids, clusters.components.astype(np.float32), ("a", "b"))
    figure = plot_corpus_draw(draw_stratified(table, 20, clusters=clusters))
    assert labels_of(figure.axes[0])[-1] == "k = 5, not taken: DBSCAN found 5"
    assert "(dbscan, " in figure.get_suptitle()


def test_a_given_k_is_not_called_an_elbow(draw):
    table = FeatureTable(draw.clusters.ecg_ids, draw.clusters.components.astype(np.float32), ("a", "b"))
    figure = plot_corpus_draw(draw_stratified(table, 20, clusters=cluster_records(table, num_clusters=4)))
    assert labels_of(figure.axes[0]) == labels_of(figure.axes[1]) == ["no other tried: k = 4"]


def test_a_uniform_draw_has_nothing_to_show():
    with pytest.raises(EcgDataError, match="a uniform draw has no clusters to show"):
        plot_corpus_draw(draw_uniform(range(9), 3))


def test_saved(figure, tmp_path):
    assert save_figure(figure, tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
