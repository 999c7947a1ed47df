"""Use of the vocabulary: every number is that of a plain recount, and the figure shows them."""

import json
from collections import Counter

import numpy as np
import pytest

from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.windows import WindowedData
from ecgbyte_hf.interpretation import measure_usage, plot_usage
from ecgbyte_hf.interpretation.usage_splits import records_of_split, splits_seen
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgError
from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer


@pytest.fixture(scope="module")
def tokenizer(small_ecg_byte):
    return EcgByteTokenizer.from_pretrained(small_ecg_byte)


@pytest.fixture(scope="module")
def data(small_prepared):
    """40 records of 10 s, and 120 of 3 s: a batch and none over, and whole batches."""
    return {"whole": PreparedData(small_prepared.folder), "3 s": WindowedData(small_prepared.folder, 3.0)}


@pytest.fixture(scope="module")
def usage(data, tokenizer):
    return measure_usage(data, tokenizer, split="all", num_threads=1)


@pytest.fixture(scope="module")
def training(small_ecg_byte):
    return json.loads((small_ecg_byte / "training.json").read_text())


@pytest.mark.parametrize("name", ["whole", "3 s"])
def test_numbers_are_those_of_a_plain_recount(usage, data, tokenizer, name):
    got = usage["data_sets"][name]
    ids_of, lead_tokens = [], Counter()
    for _, signal in data[name].iter_signals():
        ids = tokenizer(signal)["input_ids"]
        ids_of.append(ids)
        owners = np.repeat(np.arange(len(ids)), [len(tokenizer.decode([one])) for one in ids])
        lengths = Counter(owners.tolist())
        for lead, part in zip(("I", "aVF"), owners.reshape(2, -1), strict=True):
            lead_tokens[lead] += sum(samples / lengths[token] for token, samples in Counter(part.tolist()).items())
    flat = [index for ids in ids_of for index in ids]
    counts = Counter(flat)
    samples = 2000 * 40 if name == "whole" else 600 * 120
    assert (got["records"], got["samples"], got["tokens"]) == (len(ids_of), samples, len(flat))
    assert got["compression"] == pytest.approx(samples / len(flat))
    assert got["counts"] == [counts[index] for index in range(86)]
    assert got["tokens_per_ecg"] == [list(pair) for pair in sorted(Counter(map(len, ids_of)).items())]
    lengths = Counter(len(tokenizer.decode([index])) for index in flat)
    assert got["token_length"] == [list(pair) for pair in sorted(lengths.items())]
    for lead in ("I", "aVF"):
        assert got["by_lead"][lead]["samples"] == samples // 2
        assert got["by_lead"][lead]["tokens"] == pytest.approx(lead_tokens[lead])
        assert got["by_lead"][lead]["compression"] == pytest.approx(samples / 2 / lead_tokens[lead])
    assert lead_tokens.total() == pytest.approx(len(flat))
    ranked = sorted(counts.values(), reverse=True)
    covered = got["coverage"]
    assert (covered["vocabulary"], covered["used"]) == (86, len(counts))
    assert covered["share_used"] == pytest.approx(len(counts) / 86)
    assert covered["share_of_top"] == {
        "10": pytest.approx(sum(ranked[:10]) / len(flat)),
        "30": pytest.approx(sum(ranked[:30]) / len(flat)),
    }
    for share, number in covered["ids_for_share"].items():
        assert sum(ranked[: number - 1]) < float(share) * len(flat) <= sum(ranked[:number])


def test_vocabulary_sizes_are_tokenizers_of_the_first_merges(usage, data, tokenizer):
    points = usage["data_sets"]["3 s"]["by_merges"]
    assert [point["merges"] for point in points] == [0, 10, 30, 60]
    for point in points:
        smaller = EcgByteTokenizer(
            merges=tokenizer.bpe.merges[: point["merges"]],
            calibration=tokenizer.calibration,
            sampling_rate=100,
            leads=["I", "aVF"],
        )
        tokens = sum(len(smaller.encode_signal(signal)) for _, signal in data["3 s"].iter_signals())
        assert point["tokens"] == tokens and point["compression"] == pytest.approx(72_000 / tokens)
    assert points[0]["compression"] == 1.0


class TestSplits:
    def test_by_default_nothing_is_counted_that_tokenizers_are_learnt_from(self, data, tokenizer, training):
        made = measure_usage(data, tokenizer, training=training, vocabulary_sizes=[60], num_threads=1)
        for name, count in (("whole", 4), ("3 s", 12)):
            one, prepared = made["data_sets"][name], data[name]
            others = sorted(set(prepared.ecg_ids) - set(prepared.train_ecg_ids()))
            assert (one["split"], one["seen_by_tokenizer"], one["records"]) == ("held-out", "no", count)
            tokens = sum(len(tokenizer.encode_signal(signal)) for _, signal in prepared.iter_signals(others))
            assert (len(others), one["tokens"]) == (count, tokens)
        origin = made["provenance"]
        assert origin["arguments"]["split"] == "held-out"
        assert origin["tokenizer_data_hash"] == data["whole"].report["data_hash"]

    def test_another_split(self, data, tokenizer):
        prepared = data["whole"]
        made = measure_usage({"a": prepared}, tokenizer, split="test", vocabulary_sizes=[0], num_threads=1)
        one = made["data_sets"]["a"]
        asked = {number for row in prepared.questions("test") for number in row["ecg_id"]}
        assert (one["split"], one["records"], one["samples"]) == ("test", 2, 4000) and len(asked) == 2
        expected = sum(len(tokenizer.encode_signal(prepared.signal(number))) for number in asked)
        assert one["tokens"] == expected and one["seen_by_tokenizer"] == "unknown"  # no training.json was given

    def test_each_split_says_how_many_it_has_and_whether_they_were_seen(self, data, training):
        splits = splits_seen(data["whole"], training)
        assert {name: (one["ecgs"], one["seen_by_tokenizer"]) for name, one in splits.items()} == {
            "train": (36, "yes"),
            "validation": (2, "no"),
            "test": (2, "no"),
            "held-out": (4, "no"),
            "all": (40, "in part"),
        }
        assert splits_seen(data["3 s"], training)["train"] == {"ecgs": 108, "seen_by_tokenizer": "yes"}

    def test_a_draw_and_other_data(self, data, training):
        def seen(changed, split="train"):
            return splits_seen(data["whole"], changed)[split]["seen_by_tokenizer"]

        origin = training["provenance"]
        for name in ("max_records", "records"):
            drawn = {**training, "provenance": {**origin, "arguments": {**origin["arguments"], name: 5}}}
            assert (seen(drawn), seen(drawn, "test")) == ("in part", "no")
        other = {**training, "provenance": {**origin, "data_hash": {"train": "0123", "test": "4567"}}}
        for unknown in (other, None, {}, {"provenance": []}, {"provenance": {"data_hash": "x"}}):
            assert (seen(unknown), seen(unknown, "held-out")) == ("unknown", "unknown")

    def test_records_of_no_split_are_held_out(self, data, training, monkeypatch):
        prepared = PreparedData(data["whole"].folder)
        left_out = prepared.ecg_ids_of_split("test")
        monkeypatch.setitem(prepared.report, "questions", {"train": {}, "validation": {}})
        splits = splits_seen(prepared, training)
        assert splits["in no split"] == {"ecgs": 2, "seen_by_tokenizer": "no"} and splits["held-out"]["ecgs"] == 4
        assert set(left_out) < set(records_of_split(prepared))

    def test_refusals(self, data, tokenizer, monkeypatch):
        with pytest.raises(EcgDataError, match="no split 'tset'; it has held-out, all, test, train, validation"):
            measure_usage(data, tokenizer, split="tset")
        prepared = PreparedData(data["whole"].folder)
        monkeypatch.setattr(prepared, "ecg_ids", prepared.train_ecg_ids())
        with pytest.raises(EcgDataError, match="no held-out record, so there is nothing to count; give another split"):
            measure_usage({"a": prepared}, tokenizer)

    def test_the_figure_says_which(self, data, tokenizer, training):
        made = measure_usage(data, tokenizer, training=training, vocabulary_sizes=[60], num_threads=1)
        texts = [text.get_text() for text in plot_usage(made).legends[0].get_texts()]
        assert texts[0].startswith("whole, held-out records (the tokenizer never saw them): 4 ECGs, ")


def test_it_says_what_it_was_made_of(usage, data, tokenizer):
    origin = json.loads(json.dumps(usage))["provenance"]
    assert origin["tokenizer"] == tokenizer.fingerprint and origin["versions"]["numpy"]
    folders = origin["arguments"]["data"]
    assert {name: one["fingerprint"] for name, one in folders.items()} == {
        name: one.fingerprint for name, one in data.items()
    }
    assert folders["3 s"]["window_seconds"] == 3.0


def test_figure_shows_the_numbers(usage):
    figure = plot_usage(json.loads(json.dumps(usage)), title="T")
    ranks, coverage, per_ecg, lengths, leads, merges = figure.axes
    for number, one in enumerate(usage["data_sets"].values()):
        counts = sorted((count for count in one["counts"] if count), reverse=True)
        np.testing.assert_allclose(ranks.lines[number].get_ydata(), [100 * count / one["tokens"] for count in counts])
        assert coverage.lines[number].get_ydata()[-1] == pytest.approx(100.0)
        heights, edges = per_ecg.patches[number].get_data()[:2]
        assert len(heights) == 20  # of 120 ECGs
        assert heights.sum() == pytest.approx(100.0)
        assert lengths.lines[2 * number].get_xdata()[0] == one["token_length"][0][0] * 10.0
        assert lengths.lines[2 * number].get_ydata()[-1] == pytest.approx(100.0)
        expected = [one["by_lead"][lead]["compression"] for lead in ("I", "aVF")]
        np.testing.assert_allclose(leads.lines[number].get_ydata(), expected)
        np.testing.assert_allclose(
            merges.lines[number].get_ydata(), [point["compression"] for point in one["by_merges"]]
        )
    assert (ranks.get_xscale(), ranks.get_yscale()) == ("log", "log")
    labels = [(axis.get_xlabel(), axis.get_ylabel()) for axis in figure.axes]
    assert all(x and y for x, y in labels) and "(ms" in lengths.get_xlabel()
    assert [label.get_text() for label in leads.get_xticklabels()] == ["I", "aVF"]
    (legend,) = figure.legends
    assert [text.get_text().partition(",")[0] for text in legend.get_texts()] == ["whole", "3 s"]


def test_nothing_overlaps_or_leaves_the_figure(usage):
    figure = plot_usage(usage, title="Two data sets")
    figure.draw_without_rendering()
    boxes = [axis.get_tightbbox() for axis in figure.axes]
    boxes += [figure._suptitle.get_window_extent(), figure.legends[0].get_window_extent()]
    for place, one in enumerate(boxes):
        assert one.x0 >= -1 and one.y0 >= -1
        assert one.x1 <= figure.bbox.width + 1 and one.y1 <= figure.bbox.height + 1
        for other in boxes[:place]:
            assert not (
                one.x0 < other.x1 - 1 and other.x0 < one.x1 - 1 and one.y0 < other.y1 - 1 and other.y0 < one.y1 - 1
            )


def test_refusals(data, tokenizer, usage):
    with pytest.raises(EcgDataError, match="got no data set"):
        measure_usage({}, tokenizer)
    for sizes in ([61], [-1], []):
        with pytest.raises(EcgDataError, match="expected numbers from 0 to the tokenizer's 60"):
            measure_usage(data, tokenizer, vocabulary_sizes=sizes)
    other = EcgByteTokenizer(calibration=tokenizer.calibration, sampling_rate=250, leads=["I", "aVF"])
    with pytest.raises(EcgError, match="250 Hz"):
        measure_usage(data, other)
    many = {str(number): usage["data_sets"]["whole"] for number in range(7)}
    with pytest.raises(EcgDataError, match="got 7 data sets for one figure, expected 1 to 6"):
        plot_usage({**usage, "data_sets": many})
