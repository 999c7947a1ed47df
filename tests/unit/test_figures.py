"""Figures of ECGs and tokens: true to scale, every token a band where it was read, leads in clinical order."""

import re
import sys
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from colorspacious import cspace_convert
from matplotlib.colors import to_hex, to_rgb

from ecgbyte_hf.interpretation import (
    __all__ as public_names,
)
from ecgbyte_hf.interpretation import (
    plot_ecg,
    plot_token_growth,
    plot_tokens,
    save_figure,
)
from ecgbyte_hf.interpretation.figures import clinical_order
from ecgbyte_hf.interpretation.token_colours import (
    TOKEN_COLOURS,
    TOKEN_SHADES,
    is_shaded,
    neighbour_colours,
    number_colour,
    token_colour,
)
from ecgbyte_hf.interpretation.token_growth import growth_levels
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgError, LeadError, SamplingRateError, SignalError
from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor
from ecgbyte_hf.models.leads_ecg_byte import CLINICAL_LEADS, REFERENCE_LEADS
from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer, EcgCalibration
from ecgbyte_hf.signal.records import EcgRecord

RATE = 100.0
MM = 72.0 / 25.4  # points


@pytest.fixture(scope="module")
def signal():
    from ecgbyte_hf.data.simulator import simulate_records

    return next(simulate_records(1, sampling_rate=RATE, duration=10.0))[2]


@pytest.fixture(scope="module")
def tokenizer(signal):
    calibration = EcgCalibration("percentile", -1.5, 1.5)
    return EcgByteTokenizer.train_from_iterator([signal], 80, calibration=calibration, sampling_rate=100)


@pytest.fixture(scope="module")
def figures(signal, tokenizer):
    """Tokens on both kinds of paper, by layout."""
    return {name: plot_tokens(signal, tokenizer, layout=name, title="record 1") for name in ("3x4", "rows")}


def draw(signal, **options):
    return plot_ecg(signal, leads=REFERENCE_LEADS, sampling_rate=RATE, **options)


def drawn(figure, beginning):
    """Lines and collections by the rest of their name."""
    (axis,) = figure.axes
    artists = [*axis.lines, *axis.collections]
    return {
        artist.get_gid().removeprefix(beginning): artist
        for artist in artists
        if (artist.get_gid() or "").startswith(beginning)
    }


def names_of(figure):
    """Lead names from left to right, line by line."""
    texts = [text for text in figure.axes[0].texts if text.get_text() in CLINICAL_LEADS]
    pulses = [line.get_ydata()[0] for line in drawn(figure, "pulse-").values()]

    def place(text):
        x, y = text.get_position()
        return int(np.argmin([abs(y - pulse) if y > pulse else 1e9 for pulse in pulses])), x

    return [text.get_text() for text in sorted(texts, key=place)]


class TestPaper:
    def test_places_of_the_leads(self, signal):
        grid = ["I", "aVR", "V1", "V4", "II", "aVL", "V2", "V5", "III", "aVF", "V3", "V6"]
        pairs = [name for pair in zip(CLINICAL_LEADS[:6], CLINICAL_LEADS[6:], strict=True) for name in pair]
        assert names_of(draw(signal)) == [*grid, "II"]
        assert names_of(draw(signal, seconds=2.5)) == grid
        assert names_of(draw(signal, seconds=5)) == pairs
        for seconds, words in ((2.5, "begin together"), (5, "begin together"), (10, "follow one another")):
            texts = [text.get_text() for text in draw(signal, seconds=seconds).axes[0].texts]
            assert f"25 mm/s   10 mm/mV   100 Hz   columns {words} in time" in texts
        assert names_of(draw(signal, layout="6x2")) == [*pairs, "II"]
        assert names_of(draw(signal, layout="rows")) == list(CLINICAL_LEADS)
        assert names_of(plot_ecg(signal[:3], leads=["V2", "II", "V1"], sampling_rate=RATE)) == ["II", "V1", "V2"]
        few = plot_ecg(signal[:3], leads=["V2", "II", "V1"], sampling_rate=RATE, layout="3x4")
        assert names_of(few) == ["V1", "II", "V2", "II"]

    @pytest.mark.parametrize(
        ("seconds", "layout", "shown"),
        [(10, "3x4", 2.5), (2.5, "3x4", 2.5), (5, "6x2", 5), (5, "3x4", 1.25), (10, "rows", 10), (0.5, None, 0.5)],
    )
    def test_every_trace_is_its_lead_in_millimetres(self, signal, seconds, layout, shown):
        figure = draw(signal, seconds=seconds, layout=layout)
        grid = [CLINICAL_LEADS[line::3] for line in range(3)]
        for name, trace in drawn(figure, "trace-").items():
            lead, line = name.rsplit("-", 1)
            whole = signal[REFERENCE_LEADS.index(lead)][: round(seconds * RATE)]
            is_rhythm = layout == "3x4" and line == "3"
            count = round((seconds if is_rhythm else shown) * RATE)
            column = 0
            if layout == "3x4" and seconds > 2.5 and not is_rhythm:
                column = grid[int(line)].index(lead)
            part = whole[column * count : (column + 1) * count]
            x, y = trace.get_data()
            baseline = drawn(figure, "pulse-")[line].get_ydata()[0]
            np.testing.assert_allclose(y - baseline, 10.0 * (part - np.median(whole)), atol=1e-4)
            np.testing.assert_allclose(np.diff(x), 25.0 / RATE)
            assert x[0] - 15.0 == pytest.approx(25.0 * shown * column if column else x[0] - 15.0)

    def test_speed_and_gain(self, signal):
        figure = draw(signal, layout="rows", speed=50, gain=5, seconds=4)
        trace, pulse = drawn(figure, "trace-")["II-1"], drawn(figure, "pulse-")["1"]
        assert np.ptp(trace.get_xdata()) == pytest.approx(50 * 3.99)
        assert np.ptp(trace.get_ydata()) == pytest.approx(5 * np.ptp(signal[1, :400]), rel=1e-5)
        assert np.ptp(pulse.get_ydata()) == pytest.approx(5.0)
        assert "50 mm/s   5 mm/mV   100 Hz" in [text.get_text() for text in figure.axes[0].texts]

    def test_svg_is_true_to_scale(self, figures, signal, tmp_path):
        """What a ruler finds on the printed page."""
        path = save_figure(figures["rows"], tmp_path / "a.svg")
        root = ElementTree.parse(path).getroot()
        width, height = (float(root.get(name).removesuffix("pt")) / MM for name in ("width", "height"))
        assert (width, height) == pytest.approx(figures["rows"].size_mm, abs=0.01)
        pulse, trace = points_of(root, "pulse-0"), points_of(root, "trace-I-0")
        assert np.ptp(pulse[:, 1]) == pytest.approx(10.0, abs=0.01)  # 1 mV
        top = pulse[pulse[:, 1] == pulse[:, 1].min()]
        assert np.ptp(top[:, 0]) == pytest.approx(5.0, abs=0.01)  # 0.2 s
        assert np.ptp(trace[:, 0]) == pytest.approx(25.0 * 9.99, abs=0.05)
        assert np.ptp(trace[:, 1]) == pytest.approx(10.0 * np.ptp(signal[0]), abs=0.06)

    def test_pdf_is_true_to_scale(self, signal, tmp_path):
        figure = draw(signal[:, :250])
        with matplotlib.rc_context({"pdf.compression": 0}):
            content = save_figure(figure, tmp_path / "a.pdf").read_bytes().decode("latin-1")
        box = re.search(r"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", content)
        assert [float(size) / MM for size in box.groups()] == pytest.approx(figure.size_mm, abs=0.01)
        number = r"(-?[\d.]+) (-?[\d.]+)"
        pulse = re.search(rf"{number} m\n{number} l\n{number} l\n{number} l\n{number} l\n{number} l\n", content)
        points = np.array(pulse.groups(), dtype=float).reshape(-1, 2) / MM
        np.testing.assert_allclose(np.diff(points, axis=0), [(2.5, 0), (0, 10), (5, 0), (0, -10), (2.5, 0)], atol=0.01)

    def test_png_has_ten_pixels_to_a_millimetre(self, signal, tmp_path):
        figure = draw(signal[:, :50])
        path = save_figure(figure, tmp_path / "a.png")
        width, height = (int.from_bytes(path.read_bytes()[at : at + 4], "big") for at in (16, 20))
        assert (width, height) == pytest.approx([10 * size for size in figure.size_mm], abs=1)

    def test_the_grid_has_millimetres_and_baselines_on_thick_lines(self, signal):
        figure = draw(signal, layout="rows", seconds=1)
        thin, thick = figure.axes[0].collections[:2]
        for lines, step in ((thin, None), (thick, 5.0)):
            upward = sorted(one[0, 1] for one in lines.get_segments() if one[0, 1] == one[1, 1])
            steps = np.diff(upward)
            assert np.allclose(steps, step) if step else {1.0, 2.0} == {round(float(one), 6) for one in steps}
        level = {round(float(one[0, 1]), 6) for one in thick.get_segments() if one[0, 1] == one[1, 1]}
        assert all(round(float(line.get_ydata()[0]), 6) in level for line in drawn(figure, "pulse-").values())

    def test_gaps_and_large_offsets(self):
        ramp = np.linspace(0.0, 1.0, 200)
        gap = np.where((ramp > 0.4) & (ramp < 0.6), np.nan, ramp) + 100.0
        figure = plot_ecg(np.stack([gap, np.full(200, np.nan), ramp * 80]), leads=["I", "II", "V1"], sampling_rate=100)
        traces, pulses = drawn(figure, "trace-"), drawn(figure, "pulse-")
        assert np.isnan(traces["I-0"].get_ydata()).sum() == 40
        assert np.nanmax(np.abs(traces["I-0"].get_ydata() - pulses["0"].get_ydata()[0])) < 6.0
        assert figure.size_mm[1] < 250  # an artefact of 80 mV does not make a page of 800 mm

    def test_a_record(self, signal):
        names = [name.upper() for name in REFERENCE_LEADS]
        figure = plot_ecg(EcgRecord(signal, RATE, names, name="00001_hr"))
        assert names_of(figure) == names_of(draw(signal))
        assert "00001_hr" in [text.get_text() for text in figure.axes[0].texts]

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"layout": "4x3"}, EcgDataError, "'4x3', expected one of 3x4, 6x2, rows"),
            ({"speed": 0}, EcgDataError, "got speed 0 mm/s"),
            ({"gain": float("nan")}, EcgDataError, "got gain nan mm/mV"),
            ({"seconds": 11}, EcgDataError, "got 11 s to draw, expected more than 0 and at most 10 s"),
            ({"seconds": 0}, EcgDataError, "got 0 s to draw"),
            ({"seconds": float("nan")}, EcgDataError, "got nan s to draw"),
            ({"speed": 200}, EcgDataError, "2015 mm wide, expected at most 1600; give seconds"),
            ({"sampling_rate": None}, SamplingRateError, "expected its rate in Hz"),
            ({"leads": None}, LeadError, "expected the name of each of its rows"),
            ({"leads": ["I"]}, LeadError, "got 1 lead names for 12 rows"),
            ({"leads": ["I"] * 12}, EcgDataError, "a lead is there twice"),
            ({"leads": ["Vx", *REFERENCE_LEADS[1:]], "layout": "3x4"}, EcgDataError, "Vx has no place in the layout"),
        ],
    )
    def test_refusals(self, signal, options, error, message):
        with pytest.raises(error, match=re.escape(message)):
            plot_ecg(signal, **{"leads": REFERENCE_LEADS, "sampling_rate": RATE, **options})

    def test_what_is_no_signal(self):
        for array in (np.zeros(5), np.zeros((1, 0)), np.array([["a"]])):
            with pytest.raises(SignalError, match="expected numbers"):
                plot_ecg(array, leads=["I"], sampling_rate=100)


def points_of(root, name):
    """Corners of a line of an SVG file in mm."""
    (group,) = [one for one in root.iter() if one.get("id") == name]
    (path,) = [one for one in group.iter() if one.tag.endswith("path")]
    return np.array(re.findall(r"-?[\d.]+", path.get("d")), dtype=float).reshape(-1, 2) / MM


DICHROMACIES = ("protanomaly", "deuteranomaly", "tritanomaly")  # at severity 100 protanopia and so on


def seen(colours):
    """CAM02-UCS (views, colours, 3) for normal vision and the three kinds of dichromacy."""
    rgb = np.array([to_rgb(colour) for colour in colours])
    blind = [{"name": "sRGB1+CVD", "cvd_type": kind, "severity": 100} for kind in DICHROMACIES]
    views = [rgb, *(np.clip(cspace_convert(rgb, kind, "sRGB1"), 0.0, 1.0) for kind in blind)]
    return np.array([cspace_convert(view, "sRGB1", "CAM02-UCS") for view in views])


def least_difference(some, others):
    """Least difference of a colour of `some` from a different one of `others`, over all kinds of vision."""
    apart = np.linalg.norm(seen(some)[:, :, None] - seen(others)[:, None], axis=-1)
    is_other = np.array([[one != other for other in others] for one in some])
    return float(apart[:, is_other].min())


def tints(colours):
    """What is behind the trace: half white."""
    return [tuple((1.0 + np.array(to_rgb(colour))) / 2.0) for colour in colours]


class TestColours:
    def test_the_measure(self):
        assert least_difference(["#000000"], ["#FFFFFF"]) == pytest.approx(100.0, abs=0.1)
        red_green, blue_green = seen(["#E02000", "#707000"]), seen(["#4080C0", "#408870"])
        for pair, kind in ((red_green, 2), (blue_green, 3)):  # confused by deuteranopia, and by tritanopia
            apart = np.linalg.norm(pair[:, 0] - pair[:, 1], axis=1)
            assert apart[kind] < 0.4 * apart[0]

    def test_neighbours_can_be_told_apart_in_any_vision(self):
        """A colour may stand beside any other colour, and beside any shade; 1 is about just noticeable."""
        assert len(TOKEN_COLOURS) == len(TOKEN_SHADES) == len({*TOKEN_COLOURS, *TOKEN_SHADES}) / 2
        assert least_difference(TOKEN_COLOURS, TOKEN_COLOURS) > 13.0
        assert least_difference(TOKEN_COLOURS, TOKEN_SHADES) > 13.0
        assert least_difference(tints(TOKEN_COLOURS), tints(TOKEN_COLOURS)) > 6.0
        assert least_difference(tints(TOKEN_COLOURS), tints(TOKEN_SHADES)) > 6.0

    def test_traces_and_numbers_are_seen_on_them(self):
        everything = [*TOKEN_COLOURS, *TOKEN_SHADES]
        assert least_difference(["#000000"], tints(everything)) > 60.0
        assert min(least_difference([number_colour(colour)], [colour]) for colour in everything) > 50.0

    def test_are_stable(self):
        """A figure made tomorrow has them too."""
        assert [token_colour(index) for index in (0, 1, 27, 3500)] == ["#B4F0FF", "#A5875A", "#4BA596", "#D2F0B4"]
        assert {token_colour(index) for index in range(500)} == set(TOKEN_COLOURS)

    def test_no_two_neighbours_have_the_same(self):
        few = np.random.default_rng(0).integers(0, 3, 2000)
        ids = few + 12 * np.random.default_rng(1).integers(0, 200, 2000)
        colours = neighbour_colours(ids)
        assert all(one != other for one, other in zip(colours, colours[1:], strict=False))
        shaded = is_shaded(ids)
        assert 0.15 < shaded.mean() < 0.35  # every second of a run of the same colour, and no other
        for index, colour, is_dark in zip(ids, colours, shaded, strict=True):
            assert colour == (TOKEN_SHADES[index % 12] if is_dark else token_colour(index))
        for place in range(1, 2000):
            is_same = ids[place] % 12 == ids[place - 1] % 12
            assert shaded[place] == (is_same and not shaded[place - 1])
        assert neighbour_colours([]) == []


class TestTokens:
    def test_bands_are_the_token_spans(self, figures, signal, tokenizer):
        encoding = tokenizer(signal, return_offsets_mapping=True)
        expected = {lead: [] for lead in REFERENCE_LEADS}
        colour_of = neighbour_colours(encoding["input_ids"])
        for number, offset in enumerate(encoding["offset_mapping"]):
            for lead, start, stop in tokenizer.lead_spans(offset, 1000):
                expected[lead].append((start, stop, encoding["input_ids"][number], number))
        assert sum(map(len, expected.values())) > len(encoding["input_ids"])  # some go on in the next lead
        bands = drawn(figures["rows"], "tokens-")
        assert sorted(name.rsplit("-", 1)[0] for name in bands) == sorted(REFERENCE_LEADS)
        for name, collection in bands.items():
            tokens = expected[name.rsplit("-", 1)[0]]
            boxes = np.array([path.vertices[:4] for path in collection.get_paths()])
            starts, stops = (15.0 + 0.25 * np.array([one[at] for one in tokens]) for at in (0, 1))
            np.testing.assert_allclose(boxes[:, :, 0].min(axis=1), starts)
            np.testing.assert_allclose(boxes[:, :, 0].max(axis=1), stops)
            # The last token of the lead before it goes on in this one, or is its neighbour.
            colours = np.array([to_rgb(colour_of[one[3]]) for one in tokens])
            np.testing.assert_allclose(collection.get_facecolors()[:, :3], colours)
            tints = drawn(figures["rows"], "tints-")[name]
            np.testing.assert_allclose(tints.get_facecolors()[:, :3], (1.0 + colours) / 2.0)
            assert [path.vertices[0, 0] for path in tints.get_paths()] == boxes[:, 0, 0].tolist()

    def test_a_column_shows_what_is_read_then(self, figures, signal, tokenizer):
        """V4 is the fourth column: 7.5 to 10 s of it."""
        whole = [path.vertices[:4] for path in drawn(figures["rows"], "tokens-")["V4-9"].get_paths()]
        part = [path.vertices[:4] for path in drawn(figures["3x4"], "tokens-")["V4-0"].get_paths()]
        ends = [max(box[:, 0].max() - (15.0 + 187.5), 0.0) for box in whole]
        assert [box[:, 0].max() - (15.0 + 187.5) for box in part] == pytest.approx([end for end in ends if end > 1e-9])
        assert part[0][:, 0].min() == pytest.approx(15.0 + 187.5)

    @pytest.mark.parametrize("layout", ["3x4", "rows"])
    def test_neighbours_differ_as_much_as_any_two_colours(self, figures, layout):
        shades = 0
        for collection in drawn(figures[layout], "tokens-").values():
            colours = [to_hex(face).upper() for face in collection.get_facecolors()]
            shades += len([colour for colour in colours if colour in TOKEN_SHADES])
            assert all(one != other for one, other in zip(colours, colours[1:], strict=False))
            assert set(colours) <= {*TOKEN_COLOURS, *TOKEN_SHADES}
        assert shades > 10

    def test_numbers_are_ids(self, figures, signal, tokenizer):
        numbers = [text for text in figures["rows"].axes[0].texts if text.get_text().isdecimal()]
        ids = set(tokenizer.encode_signal(signal).tolist())
        assert len(numbers) > 10 and {int(text.get_text()) for text in numbers} <= ids

    def test_heading_and_legend_state_what_is_shown(self, figures, signal, tokenizer):
        count = len(tokenizer.encode_signal(signal))
        texts = [text.get_text() for text in figures["3x4"].axes[0].texts]
        assert "record 1" in texts
        assert f"{count:,} tokens for 12,000 samples: {12_000 / count:.1f} samples per token" in texts
        assert any(
            "25 mm/s   10 mm/mV   100 Hz   columns follow one another in time   colour and number" in text
            for text in texts
        )

    def test_a_record_is_cleaned_as_the_tokenizer_expects(self, signal):
        extractor = EcgByteFeatureExtractor("none", 50, ["II", "V1"])
        calibration = EcgCalibration("percentile", -1.0, 1.0)
        tokenizer = EcgByteTokenizer(
            merges=[(12, 12)],
            calibration=calibration,
            sampling_rate=50,
            leads=["II", "V1"],
            feature_extractor=extractor,
        )
        record = EcgRecord(signal[:2, :400], RATE, ("v1", "II"), name="two")
        figure = plot_tokens(record, tokenizer)
        cleaned = extractor.clean(record)
        heights = drawn(figure, "trace-")["II-0"].get_ydata() - drawn(figure, "pulse-")["0"].get_ydata()[0]
        np.testing.assert_allclose(heights, 10 * (cleaned[0] - np.median(cleaned[0])), atol=1e-4)
        assert "two" in [text.get_text() for text in figure.axes[0].texts]
        with pytest.raises(EcgDataError, match="no feature extractor to clean a record with"):
            plot_tokens(record, EcgByteTokenizer(calibration=calibration, leads=["II", "V1"]))

    def test_refusals(self, signal, tokenizer):
        with pytest.raises(SignalError, match="expected a signal of shape"):
            plot_tokens(signal[:3], tokenizer)
        with pytest.raises(EcgError, match="NaN"):
            plot_tokens(np.full((12, 50), np.nan, np.float32), tokenizer)
        with pytest.raises(EcgDataError, match="got 20 s to draw"):
            plot_tokens(signal, tokenizer, seconds=20)


class TestGrowth:
    def test_levels_are_the_merges(self, tokenizer):
        merges, symbols = tokenizer.bpe.merges, 26
        index = int(np.argmax(tokenizer.bpe.token_lengths))
        levels = growth_levels(index, tokenizer, max_levels=30)
        assert [part.index for part in levels[0]] == [index]
        for above, below in zip(levels, levels[1:], strict=False):
            pairs = [tuple(merges[part.index - symbols]) for part in above if part.index >= symbols]
            assert [part.index for part in below] == [one for pair in pairs for one in pair]
        letters = tokenizer.bpe.decode(np.array([index], dtype=np.uint32))
        for part in (part for level in levels for part in level):
            own = tokenizer.bpe.decode(np.array([part.index], dtype=np.uint32))
            assert own.tolist() == letters[part.start : part.start + part.length].tolist()
        assert all(part.index < symbols for part in levels[-1])

    def test_figure(self, tokenizer):
        index = int(np.argmax(tokenizer.bpe.token_lengths))
        levels = growth_levels(index, tokenizer)
        figure = plot_token_growth(index, tokenizer, title="T")
        assert len(figure.axes) == len(levels)
        assert figure.axes[0].get_ylabel() == "mV" and "(ms)" in figure.axes[-1].get_xlabel()
        (step,) = [patch for patch in figure.axes[0].patches if type(patch).__name__ == "StepPatch"]
        values, edges = step.get_data()[:2]
        np.testing.assert_allclose(values, tokenizer.decode_signal([index], num_leads=1)[0])
        np.testing.assert_allclose(edges, 10.0 * np.arange(len(values) + 1))
        assert f"T: token {index}, merge {index - 25} of 80" in figure.texts[0].get_text()
        figure.draw_without_rendering()
        for axis in figure.axes:
            highest = axis.transData.transform((0.0, values.max()))[1]
            assert axis.texts and all(text.get_window_extent().y0 > highest + 1 for text in axis.texts)

    def test_a_range_of_each_record_is_drawn_in_bins(self):
        tokenizer = EcgByteTokenizer(merges=[(3, 4)], calibration=EcgCalibration.minmax(), leads=["II"])
        assert plot_token_growth(26, tokenizer).axes[0].get_ylabel() == "bin"
        assert "a symbol, 1 sample, 4 ms" in plot_token_growth(3, tokenizer).texts[0].get_text()

    def test_refusals(self, tokenizer):
        for index in (-1, tokenizer.num_ecg_tokens):
            with pytest.raises(EcgError, match=f"got the token {index}, expected an id from 0 to 105"):
                plot_token_growth(index, tokenizer)
        with pytest.raises(EcgDataError, match="got 0 levels"):
            plot_token_growth(30, tokenizer, max_levels=0)


def boxes_of(figure):
    texts = [*figure.texts, *(text for axis in figure.axes for text in axis.texts)]
    return [text.get_window_extent() for text in texts if text.get_text() and not text.get_text().isdecimal()]


@pytest.mark.parametrize("kind", ["3x4", "rows", "short", "one lead", "growth"])
def test_no_text_overlaps_another_or_leaves_the_figure(kind, figures, signal, tokenizer):
    if kind in figures:
        figure = figures[kind]
    elif kind == "growth":
        figure = plot_token_growth(100, tokenizer, max_levels=3)
    elif kind == "short":
        figure = plot_tokens(signal, tokenizer, seconds=2.5, title="a name that is rather long, as names of files are")
    else:
        figure = plot_ecg(signal[:1], leads=["II"], sampling_rate=RATE, seconds=1, title="1 s of one lead")
    figure.draw_without_rendering()
    boxes = boxes_of(figure)
    assert boxes
    for place, one in enumerate(boxes):
        assert one.x0 >= 0 and one.y0 >= 0 and one.x1 <= figure.bbox.width and one.y1 <= figure.bbox.height
        for other in boxes[:place]:
            assert not (one.x0 < other.x1 and other.x0 < one.x1 and one.y0 < other.y1 and other.y0 < one.y1)


def test_other_leads_come_after_the_known():
    assert clinical_order(["Vx", "V1", "aVF", "Vy", "I"]) == [4, 2, 1, 0, 3]
    assert [REFERENCE_LEADS[row] for row in clinical_order(REFERENCE_LEADS)] == list(CLINICAL_LEADS)


def test_saved_by_ending(signal, tmp_path):
    figure = draw(signal[:, :50])
    for ending, start in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")):
        assert save_figure(figure, tmp_path / "new" / f"a{ending}").read_bytes().startswith(start)
    with pytest.raises(EcgDataError, match=r"expected a name that ends in \.png, \.svg, \.pdf"):
        save_figure(figure, tmp_path / "a.txt")


def test_notebooks_show_a_figure_and_pyplot_knows_nothing_of_it(signal):
    figure = draw(signal[:, :50])
    assert figure._repr_png_().startswith(b"\x89PNG")
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_public_names():
    import ecgbyte_hf.interpretation as interpretation

    assert all(callable(getattr(interpretation, name)) for name in public_names)
    with pytest.raises(AttributeError, match="has no attribute 'plot_nothing'"):
        interpretation.plot_nothing  # noqa: B018
