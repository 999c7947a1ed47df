"""Figures: every token is a band where it was read, leads are in clinical order, in mV and seconds."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from ecgbyte_hf.interpretation.figures import clinical_order, plot_tokens, save_figure, token_colour
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.models.leads_ecg_byte import CLINICAL_LEADS, REFERENCE_LEADS
from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer, EcgCalibration


@pytest.fixture(scope="module")
def signal():
    from ecgbyte_hf.data.simulator import simulate_records

    return next(simulate_records(1, sampling_rate=100.0, duration=4.0))[2]


@pytest.fixture(scope="module")
def tokenizer(signal):
    return EcgByteTokenizer.train_from_iterator(
        [signal], 80, calibration=EcgCalibration("percentile", -1.5, 1.5), sampling_rate=100, leads=REFERENCE_LEADS
    )


@pytest.fixture(scope="module")
def figure(signal, tokenizer):
    return plot_tokens(signal, tokenizer, title="record 1")


def name_of(axis):
    return axis.get_ylabel().split("\n")[0]


def test_leads_are_in_clinical_order_with_units(figure):
    assert [name_of(axis) for axis in figure.axes] == list(CLINICAL_LEADS)
    assert all(axis.get_ylabel().endswith("(mV)") for axis in figure.axes)
    assert [axis.get_xlabel() for axis in figure.axes] == [""] * 11 + ["time (s)"]


def test_every_trace_is_that_of_its_lead(figure, signal):
    for axis in figure.axes:
        (line,) = axis.lines
        np.testing.assert_array_equal(line.get_ydata(), signal[REFERENCE_LEADS.index(name_of(axis))])
        np.testing.assert_allclose(line.get_xdata(), np.arange(400) / 100.0)
        assert axis.get_xlim() == (0.0, 4.0)
        low, high = axis.get_ylim()
        assert low < signal.min() and signal.max() < high


def test_bands_are_the_token_spans(figure, signal, tokenizer):
    encoding = tokenizer(signal, return_offsets_mapping=True)
    expected = {lead: [] for lead in REFERENCE_LEADS}
    for index, offset in zip(encoding["input_ids"], encoding["offset_mapping"], strict=True):
        for lead, start, stop in tokenizer.lead_spans(offset, 400):
            expected[lead].append((start / 100.0, stop / 100.0, to_rgba(token_colour(index))))
    assert sum(map(len, expected.values())) > len(encoding["input_ids"])  # some tokens go on in the next lead
    for axis in figure.axes:
        (bands,) = axis.collections
        spans = [(path.vertices[:, 0].min(), path.vertices[:, 0].max()) for path in bands.get_paths()]
        assert len(spans) == len(expected[name_of(axis)])
        for span, colour, (start, stop, wanted) in zip(
            spans, bands.get_facecolors(), expected[name_of(axis)], strict=True
        ):
            assert span == pytest.approx((start, stop), abs=1e-9)
            np.testing.assert_allclose(colour, wanted)
        ends = [stop for _, stop in spans]
        assert spans[0][0] == 0.0 and ends[-1] == pytest.approx(4.0)
        np.testing.assert_allclose([start for start, _ in spans][1:], ends[:-1])  # no gap, no overlap


def test_heading_states_the_tokens(figure, signal, tokenizer):
    count = len(tokenizer(signal)["input_ids"])
    assert figure.get_suptitle().splitlines() == [
        "record 1",
        f"{count} tokens, {signal.size / count:.1f} samples per token; a band is a token, a colour an id",
    ]


def test_nothing_overlaps_or_leaves_the_figure(figure):
    figure.draw_without_rendering()
    width, height = figure.bbox.width, figure.bbox.height
    boxes = [axis.get_tightbbox() for axis in figure.axes]
    for box in (*boxes, figure._suptitle.get_window_extent()):
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
    for above, below in zip(boxes, boxes[1:], strict=False):
        assert above.y0 >= below.y1 - 1
    assert figure._suptitle.get_window_extent().y0 >= boxes[0].y1 - 1


def test_a_flat_line_stays_flat():
    tokenizer = EcgByteTokenizer(calibration=EcgCalibration("percentile", -1.0, 1.0), sampling_rate=100, leads=["II"])
    figure = plot_tokens(np.full((1, 200), 0.3, np.float32), tokenizer)
    assert figure.axes[0].get_ylim() == pytest.approx((-0.2, 0.8))
    assert figure.get_suptitle().startswith("200 tokens, 1.0 samples per token")


def test_other_leads_come_after_the_known():
    assert clinical_order(["Vx", "V1", "aVF", "Vy", "I"]) == [4, 2, 1, 0, 3]
    assert [REFERENCE_LEADS[row] for row in clinical_order(REFERENCE_LEADS)] == list(CLINICAL_LEADS)


def test_colours_are_light_and_neighbours_differ():
    colours = [token_colour(index) for index in range(4000)]
    assert all(0.0 <= part <= 1.0 for colour in colours for part in colour)
    assert min(sum(colour) / 3 for colour in colours) > 0.45  # a black line can be seen on it
    steps = [np.abs(np.subtract(one, other)).max() for one, other in zip(colours, colours[1:], strict=False)]
    assert min(steps) > 0.1
    assert len(set(colours[:1000])) == 1000


def test_saved_by_ending(figure, tmp_path):
    for ending, start in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        assert save_figure(figure, tmp_path / "new" / f"a{ending}").read_bytes().startswith(start)
    with pytest.raises(EcgDataError, match="expected a name that ends in .png, .svg, .pdf"):
        save_figure(figure, tmp_path / "a.txt")
