"""Decoding: the error in mV and in bins is that of a plain computation, and the figure shows it."""

import numpy as np
import pytest

from ecgbyte_hf.interpretation import measure_decoding, plot_decode, save_figure
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, LeadError
from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor
from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer, EcgCalibration
from ecgbyte_hf.signal.records import EcgRecord

LEADS = ("I", "aVR", "V1", "Vx")
BIN = 2.6 / 26 + 1e-6 / 26


@pytest.fixture(scope="module")
def tokenizer():
    calibration = EcgCalibration("percentile", -1.3, 1.3)
    extractor = EcgByteFeatureExtractor("none", 50, LEADS)
    return EcgByteTokenizer(
        merges=[(13, 13)], calibration=calibration, sampling_rate=50, leads=LEADS, feature_extractor=extractor
    )


@pytest.fixture(scope="module")
def record():
    """V1 leaves the range by 0.7 mV in ten samples; Vx has a recorder's offset."""
    rng = np.random.default_rng(0)
    signal = 0.2 * rng.normal(size=(4, 100))
    signal[2, 40:50] = 2.0
    signal[3] += 1.1
    return EcgRecord(signal.astype(np.float32), 50.0, LEADS, name="four")


def axes_of(figure):
    """Axes of traces, errors in mV and errors in bins, line by line."""
    traces = [axis for axis in figure.axes if axis.get_ylabel() == "mV"]
    errors = [axis for axis in figure.axes if "(mV)" in axis.get_ylabel()]
    return traces, errors, [axis for axis in figure.axes if "(bins)" in axis.get_ylabel()]


def test_numbers(record, tokenizer):
    decoding = measure_decoding(record, tokenizer)
    numbers, ids = decoding.numbers(), tokenizer(record.signal)["input_ids"]
    decoded = tokenizer.decode_signal(ids)
    error = np.abs(decoded - record.signal)
    assert (numbers["samples"], numbers["tokens"]) == (400, len(ids))
    assert numbers["compression"] == pytest.approx(400 / len(ids))
    assert numbers["bin_mv"] == pytest.approx(BIN)
    assert numbers["max_error_mv"] == pytest.approx(error.max())
    assert numbers["max_error_mv"] == pytest.approx(2.0 - (1.3 - BIN / 2), abs=1e-5)
    assert numbers["max_error_bins"] == pytest.approx(error.max() / BIN)
    assert numbers["mean_error_mv"] == pytest.approx(error.mean())
    outside = (record.signal < -1.3) | (record.signal > 1.3)
    assert numbers["clipped"] == outside.sum() and outside[2].sum() == 10
    for row, lead in enumerate(LEADS):
        of_lead = numbers["by_lead"][lead]
        assert of_lead["max_error_mv"] == pytest.approx(error[row].max())
        assert of_lead["mean_error_mv"] == pytest.approx(error[row].mean())
        assert of_lead["clipped"] == outside[row].sum()
    assert numbers["by_lead"]["I"]["max_error_bins"] <= 0.5 + 1e-6


def test_a_range_of_each_record(record):
    tokenizer = EcgByteTokenizer(calibration=EcgCalibration.minmax(), sampling_rate=50, leads=LEADS)
    numbers = measure_decoding(record.signal, tokenizer).numbers()
    assert (numbers["low_mv"], numbers["high_mv"]) == (record.signal.min(), record.signal.max())
    assert numbers["clipped"] == 0 and numbers["max_error_bins"] <= 0.5 + 1e-6


def test_figure(record, tokenizer):
    figure = plot_decode(record, tokenizer)
    traces, errors, bins = axes_of(figure)
    assert [axis.texts[-1].get_text() for axis in traces] == list(LEADS)  # already in clinical order
    decoding = measure_decoding(record, tokenizer)
    for row, (lead, axis) in enumerate(zip(LEADS, traces, strict=True)):
        lines = {line.get_gid(): line for line in axis.lines}
        assert set(lines) == {f"original-{lead}", f"cleaned-{lead}", f"decoded-{lead}"}
        np.testing.assert_allclose(lines[f"cleaned-{lead}"].get_ydata(), record.signal[row])
        np.testing.assert_allclose(lines[f"decoded-{lead}"].get_ydata(), decoding.decoded[row])
        np.testing.assert_allclose(lines[f"original-{lead}"].get_xdata(), np.arange(100) / 50)
        moved = lines[f"original-{lead}"].get_ydata() - record.signal[row]
        offset = np.median(record.signal[3]) if lead == "Vx" else 0.0
        np.testing.assert_allclose(moved, -offset, atol=1e-6)
        (shown,) = [line for line in errors[row].lines if line.get_gid()]
        np.testing.assert_allclose(shown.get_ydata(), decoding.error[row])
        assert np.divide(errors[row].get_ylim(), bins[row].get_ylim()) == pytest.approx(BIN)
    assert traces[3].texts[0].get_text() == f"as recorded, moved by {-np.median(record.signal[3]):+.2f} mV"
    halves = sorted(line.get_ydata()[0] for line in errors[0].lines if not line.get_gid())
    assert halves == pytest.approx([-BIN / 2, BIN / 2])
    texts = [text.get_text() for text in figure.texts]
    numbers = decoding.numbers()
    assert texts[0] == "four"
    assert texts[1] == f"{numbers['tokens']} tokens for 400 samples: {400 / numbers['tokens']:.1f} samples per token"
    assert f"largest error {numbers['max_error_mv']:.3f} mV" in texts[2] and "(lead V1)" in texts[2]
    assert f"{numbers['clipped']} samples outside" in texts[3] and "-1.30 to 1.30 mV" in texts[3]
    assert errors[-1].get_xlabel() == "time (s)"


def test_traces_have_one_scale(record, tokenizer):
    figure = plot_decode(record, tokenizer)
    height = figure.size_mm[1]
    for axis in axes_of(figure)[0]:
        assert height * axis.get_position().height / np.ptp(axis.get_ylim()) == pytest.approx(20.0)
    tall = plot_decode(np.linspace(-5, 5, 400, dtype=np.float32).reshape(4, 100) * [[1], [0], [0], [4]], tokenizer)
    sizes = [tall.size_mm[1] * axis.get_position().height for axis in axes_of(tall)[0]]
    assert sizes[1] == pytest.approx(16.0) and sizes[3] == pytest.approx(60.0)


def test_an_array_has_nothing_as_recorded(record, tokenizer):
    figure = plot_decode(record.signal, tokenizer, leads=["V1", "i"], seconds=1, title="two")
    traces, _, _ = axes_of(figure)
    assert [axis.texts[-1].get_text() for axis in traces] == ["I", "V1"]
    assert [line.get_gid() for line in traces[0].lines] == ["cleaned-I", "decoded-I"]
    assert traces[0].get_xlim() == (0.0, 1.0)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["cleaned", "decoded"]


def test_a_derived_lead_was_not_recorded(record):
    extractor = EcgByteFeatureExtractor("none", 50, ["I", "II", "aVR"], missing_leads="derive")
    calibration = EcgCalibration("percentile", -1.3, 1.3)
    tokenizer = EcgByteTokenizer(
        calibration=calibration, sampling_rate=50, leads=["I", "II", "aVR"], feature_extractor=extractor
    )
    traces, _, _ = axes_of(plot_decode(EcgRecord(record.signal[:2], 50.0, ("I", "II")), tokenizer))
    assert [len(axis.lines) for axis in traces] == [3, 3, 2]


def test_nothing_overlaps_or_leaves_the_figure(record, tokenizer, tmp_path):
    figure = plot_decode(record, tokenizer)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.texts] + [figure.legends[0].get_window_extent()]
    traces, errors, _ = axes_of(figure)
    boxes += [axis.get_tightbbox() for axis in (*traces, *errors)]
    for place, one in enumerate(boxes):
        assert one.x0 >= 0 and one.y0 >= 0 and one.x1 <= figure.bbox.width and one.y1 <= figure.bbox.height
        for other in boxes[:place]:
            # An axis label of the trace may stand beside the highest tick of the error below.
            across, up = min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0)
            assert across < 2 or up < 12
    assert save_figure(figure, tmp_path / "a.svg").stat().st_size > 10_000


def test_refusals(record, tokenizer):
    with pytest.raises(LeadError, match="Missing lead V9"):
        plot_decode(record, tokenizer, leads=["V9"])
    with pytest.raises(EcgDataError, match="got 3 s to draw"):
        plot_decode(record, tokenizer, seconds=3)
    with pytest.raises(EcgDataError, match="1600 mm wide, expected at most 1500; give seconds"):
        plot_decode(np.zeros((4, 3200), np.float32), tokenizer)
