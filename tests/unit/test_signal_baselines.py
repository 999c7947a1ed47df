"""Supervised baselines: which labels they learn, that they learn them from the signal, and the files they write."""

import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from ecgbyte_hf import cli
from ecgbyte_hf.data.label_questions import label_questions, label_template_options
from ecgbyte_hf.data.preparation import RecordSource, prepare
from ecgbyte_hf.data.windows import WindowedData
from ecgbyte_hf.evaluation import signal_baselines
from ecgbyte_hf.evaluation.evaluate import evaluate_predictions
from ecgbyte_hf.evaluation.generate import read_predictions, report_path
from ecgbyte_hf.evaluation.label_regression import fit_label_regressions
from ecgbyte_hf.evaluation.resnet1d import Resnet1d, train_resnet1d
from ecgbyte_hf.evaluation.scoring import score_rows
from ecgbyte_hf.evaluation.signal_baselines import (
    BaselineOptions,
    LabelColumns,
    answer_by_baseline,
    macro_auc,
    worse_path,
)
from ecgbyte_hf.evaluation.symbol_bigrams import DEFAULT_C, bigram_counts, bigram_features
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor
from ecgbyte_hf.models.processing_ecg_byte import EcgByteProcessor
from ecgbyte_hf.training.train_tokenizer import train_tokenizer

fit = partial(fit_label_regressions, what="bigram counts")
SPLITS = {"train": range(1, 121), "validation": range(121, 151), "test": range(151, 201)}


def draw_record(rng):
    """Noise of two leads, 2 s at 100 Hz, and its labels: a bump somewhere in I is MI, a fast wave in all of II CD."""
    signal = 0.1 * rng.standard_normal((2, 200))
    labels = []
    if rng.uniform() < 0.4:
        signal[0] += np.exp(-(((np.arange(200) - rng.uniform(50, 150)) / 12) ** 2))
        labels.append("MI")
    if rng.uniform() < 0.4:
        signal[1] += 0.4 * np.sin(np.arange(200) * 1.5 + rng.uniform(0, 6))
        labels.append("CD")
    return signal.astype(np.float32), labels or ["NORM"]


def make_prepared(folder, *, permuted=False, splits=SPLITS, change=lambda row: row):
    """200 records asked about the five superclasses one by one and together; ST/T changes and hypertrophy never occur.

    Permuted, every record has the labels of another one.
    """
    rng = np.random.default_rng(5)
    drawn = {number: draw_record(rng) for number in range(1, 201)}
    numbers = list(drawn)
    owner = dict(zip(numbers, rng.permutation(numbers) if permuted else numbers, strict=True))
    questions = {
        split: [
            change(row)
            for row in label_questions(
                ({"ecg_id": number, "superclass": drawn[owner[number]][1]} for number in members),
                ["superclass", "which"],
            )
        ]
        for split, members in splits.items()
    }
    sources = [
        RecordSource(number, signal=signal, patient_id=str(number), sampling_rate=100, lead_names=("I", "II"))
        for number, (signal, _) in drawn.items()
        if any(number in members for members in splits.values())
    ]
    return prepare(
        sources,
        questions,
        folder,
        feature_extractor=EcgByteFeatureExtractor(
            profile="none", sampling_rate=100, leads=["I", "II"], on_problem=["amplitude"]
        ),
        template_options=label_template_options(["superclass", "which"]),
        duration=2.0,
        arguments={},
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("learnable") / "prepared")


@pytest.fixture(scope="module")
def ecg_byte(prepared):
    folder = prepared.folder.with_name("ecg-byte")
    train_tokenizer(prepared, folder, num_merges=5)
    return folder


@pytest.fixture(scope="module")
def by_resnet(prepared):
    output = prepared.folder.with_name("resnet1d.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal_baselines, "DEFAULT_EPOCHS", 4)
        report = answer_by_baseline(prepared, output, kind="resnet1d", options=BaselineOptions(num_threads=1))
    return report, read_predictions(output)


@pytest.fixture(scope="module")
def by_bigram(prepared, ecg_byte):
    output = prepared.folder.with_name("bigram.jsonl")
    report = answer_by_baseline(prepared, output, kind="bigram", processor=EcgByteProcessor.from_pretrained(ecg_byte))
    return report, read_predictions(output)


def p_yes(row):
    return math.exp(row["option_logprobs"]["yes"])


class TestAnswers:
    @pytest.fixture(params=["by_resnet", "by_bigram"])
    def answered(self, request):
        return request.getfixturevalue(request.param)

    def test_the_labels_are_learnt(self, answered):
        report, rows = answered
        assert report["macro_auc"]["test"]["value"] > 0.9 and report["macro_auc"]["test"]["labels"] == 3
        correct = [row["correct"] for row in score_rows(rows) if row["question_type"] == "single-verify"]
        assert len(correct) == 250 and np.mean(correct) > 0.9

    def test_every_question_has_its_row(self, answered, prepared):
        _, rows = answered
        asked = prepared.questions("test")
        keys = ("sample_id", "question", "answer", "ecg_id", "attribute", "question_type")
        assert [[row[key] for key in keys] for row in rows] == [[row[key] for key in keys] for row in asked]

    def test_probabilities(self, answered):
        _, rows = answered
        verify = [row for row in rows if row["question_type"] == "single-verify"]
        for row in verify:
            assert p_yes(row) + math.exp(row["option_logprobs"]["no"]) == pytest.approx(1.0)
            assert row["prediction"] == ("yes" if p_yes(row) >= 0.5 else "no")
        never = [p_yes(row) for row in verify if row["attribute"] in (["STTC"], ["HYP"])]
        assert len(never) == 100 and max(never) < 0.3

    def test_the_macro_auc_is_that_of_the_written_probabilities(self, answered):
        report, rows = answered
        verify = [row for row in rows if row["question_type"] == "single-verify"]
        areas = []
        for code in ("NORM", "MI", "CD"):
            mine = [row for row in verify if row["attribute"] == [code]]
            positive = np.array([row["answer"] == ["yes"] for row in mine])
            areas.append(roc_auc_score(positive, [row["option_logprobs"]["yes"] for row in mine]))
        assert report["macro_auc"]["test"]["by_attribute"] == {
            "diagnostic_superclass": {"value": pytest.approx(np.mean(areas), abs=1e-6), "labels": 3}
        }

    def test_which_is_answered_by_the_likely_labels(self, answered):
        _, rows = answered
        names = {"NORM": "normal ECG", "MI": "myocardial infarction", "CD": "conduction disturbance"}
        likely = {}
        for row in rows:
            if row["question_type"] == "single-verify" and p_yes(row) >= 0.5:
                likely.setdefault(row["ecg_id"][0], []).append(names[row["attribute"][0]])
        which = [row for row in rows if row["question_type"] == "single-query"]
        assert len(which) == 50 and all("option_logprobs" not in row for row in which)
        for row in which:
            assert row["prediction"] == ", ".join(likely.get(row["ecg_id"][0], ["none"]))
        assert np.mean([row["correct"] for row in score_rows(which)]) > 0.8

    def test_the_report(self, answered, prepared):
        report, rows = answered
        assert report["questions"] == len(rows) == 300 and report["unanswered"] == {}
        assert report["labels"] == 5 and report["threshold"] == 0.5
        assert report["records"] == {"train": 120, "validation": 30, "test": 50}
        measure = {"resnet1d": "macro AUC", "bigram": "log loss"}[report["kind"]]
        assert report["chosen"]["by"] == f"validation {measure}"
        assert set(report["macro_auc"]) == {"validation", "test"}
        assert report["seconds"]["train"] > 0.0 and report["provenance"]["versions"]["torch"]
        output = prepared.folder.with_name(f"{report['kind']}.jsonl")
        assert json.loads(report_path(output).read_text()) == json.loads(json.dumps(report))

    def test_evaluate_reads_them(self, answered, prepared, tmp_path):
        report, rows = answered
        scores = evaluate_predictions(
            prepared,
            prepared.folder.with_name(f"{report['kind']}.jsonl"),
            controls={},
            output=tmp_path / "report.json",
            with_rule=False,
            n_resamples=20,
        )
        assert scores["exact_match"]["by_type"]["single-verify"]["value"] > 0.9
        assert scores["difference_to_best_control"]["value"] > 0.1


@pytest.mark.parametrize("kind", ["resnet1d", "bigram"])
def test_labels_of_other_records_cannot_be_learnt(kind, ecg_byte, tmp_path):
    prepared = make_prepared(tmp_path / "prepared", permuted=True)
    processor = EcgByteProcessor.from_pretrained(ecg_byte) if kind == "bigram" else None
    options = BaselineOptions(epochs=2) if kind == "resnet1d" else BaselineOptions(c=1e-3)
    report = answer_by_baseline(prepared, tmp_path / "a.jsonl", kind=kind, processor=processor, options=options)
    assert 0.3 < report["macro_auc"]["test"]["value"] < 0.7
    assert report["chosen"]["by"] == "given"


class TestFolders:
    def test_no_validation(self, tmp_path):
        prepared = make_prepared(tmp_path / "prepared", splits={"train": range(1, 31), "test": range(31, 41)})
        report = answer_by_baseline(
            prepared, tmp_path / "a.jsonl", kind="resnet1d", options=BaselineOptions(epochs=1, seed=3)
        )
        assert report["chosen"]["epoch"] == 1 and report["chosen"]["validation_macro_auc"] == []
        assert set(report["macro_auc"]) == {"test"}
        assert report["provenance"]["arguments"]["seed"] == 3

    def test_questions_without_a_label(self, tmp_path):
        """A label that training does not ask about, and a question about two ECGs."""

        def change(row):
            if row["ecg_id"][0] > 30 and row["attribute"] == ["HYP"]:
                return row | {"attribute": ["LVH"]}
            if row["ecg_id"][0] > 30 and row["attribute"] == ["CD"]:
                return row | {"question_type": "comparison_irrelevant-verify", "ecg_id": [*row["ecg_id"], 1]}
            return row

        prepared = make_prepared(
            tmp_path / "prepared", splits={"train": range(1, 31), "test": range(31, 41)}, change=change
        )
        report = answer_by_baseline(prepared, tmp_path / "a.jsonl", kind="resnet1d", options=BaselineOptions(epochs=1))
        assert report["unanswered"] == {"single-verify": 10, "comparison_irrelevant-verify": 10}
        rows = read_predictions(tmp_path / "a.jsonl")
        empty = [row for row in rows if not row["prediction"]]
        assert len(empty) == 20
        assert all(p_yes(row) == 0.5 and math.exp(row["option_logprobs"]["no"]) == 0.5 for row in empty)
        assert not any(row["correct"] for row in score_rows(empty))

    def test_windows(self, prepared, tmp_path):
        windows = WindowedData(prepared.folder, 1.0)
        report = answer_by_baseline(windows, tmp_path / "a.jsonl", kind="resnet1d", options=BaselineOptions(epochs=1))
        assert (report["provenance"]["window_seconds"], report["provenance"]["window_stride"]) == (1.0, 1.0)
        rows = read_predictions(tmp_path / "a.jsonl")
        assert len(rows) == 600 and rows[0]["record_id"] == [151] and rows[0]["ecg_id"] == [302]

    def test_simulated_questions(self, small_prepared, tmp_path):
        """Names that are themselves what is asked about: query and choose questions are answered by them."""
        report = answer_by_baseline(
            small_prepared, tmp_path / "a.jsonl", kind="resnet1d", options=BaselineOptions(epochs=1)
        )
        assert report["unanswered"] == {}
        for row in read_predictions(tmp_path / "a.jsonl"):
            assert set(row["prediction"].split(", ")) <= set(row["options"])

    def test_what_cannot_be(self, prepared, ecg_byte, tmp_path):
        output, processor = tmp_path / "a.jsonl", EcgByteProcessor.from_pretrained(ecg_byte)
        for kind, given in (("svm", None), ("bigram", None), ("resnet1d", processor)):
            with pytest.raises(EcgDataError, match="expected one of resnet1d, bigram; bigram alone needs a tokenizer"):
                answer_by_baseline(prepared, output, kind=kind, processor=given)
        with pytest.raises(EcgDataError, match="no split 'dev'"):
            answer_by_baseline(prepared, output, kind="resnet1d", split="dev")
        with pytest.raises(EcgDataError, match="got 0 threads"):
            answer_by_baseline(prepared, output, kind="resnet1d", options=BaselineOptions(num_threads=0))
        with pytest.raises(EcgDataError, match="got 0 epochs"):
            answer_by_baseline(prepared, output, kind="resnet1d", options=BaselineOptions(epochs=0))

    def test_another_cleaning(self, prepared, small_ecg_byte, tmp_path):
        with pytest.raises(EcgDataError, match="was not prepared for this tokenizer"):
            answer_by_baseline(
                prepared,
                tmp_path / "a.jsonl",
                kind="bigram",
                processor=EcgByteProcessor.from_pretrained(small_ecg_byte),
            )


class TestLabels:
    @staticmethod
    def row(**changes):
        return {
            "template_id": 1,
            "question_type": "single-verify",
            "attribute_type": "noise",
            "attribute": ["static noise"],
            "question": "?",
            "answer": ["yes"],
            "ecg_id": [5],
        } | changes

    def test_columns(self):
        rows = [
            self.row(),
            self.row(attribute=["Baseline Drift"], answer=["no"], ecg_id=[4]),
            self.row(template_id=2, answer=["not sure"]),
            self.row(question_type="comparison_irrelevant-verify", ecg_id=[4, 5], template_id=3),
            self.row(question_type="single-query", template_id=4, answer=["static noise"]),
        ]
        columns = LabelColumns(rows)
        assert [(label.template_id, label.attribute) for label in columns.labels] == [
            (1, ("baseline drift",)),
            (1, ("static noise",)),
        ]
        ecg_ids, targets = columns.targets(rows)
        assert ecg_ids == [4, 5]
        np.testing.assert_array_equal(targets, [[0.0, np.nan], [np.nan, 1.0]])
        assert [columns.column_of(row) for row in rows] == [1, 0, None, None, None]

    def test_columns_of_names(self):
        columns = LabelColumns([self.row(), self.row(attribute=["baseline drift"])])
        query = self.row(question_type="single-query", attribute=None)
        options = ["baseline drift", "none", "static noise"]
        assert columns.columns_of_options(query, options) == {"baseline drift": 0, "static noise": 1}
        # The options' own names come before the order of `attribute`, which is not theirs here.
        choose = self.row(question_type="single-choose", attribute=["static noise", "baseline drift"])
        assert columns.columns_of_options(choose, options) == {"baseline drift": 0, "static noise": 1}
        by_code = self.row(question_type="single-query", attribute=["static noise", "baseline drift"])
        assert columns.columns_of_options(by_code, ["static", "drift"]) == {"static": 1, "drift": 0}

    def test_names_without_a_column(self):
        columns = LabelColumns([self.row(), self.row(attribute=["baseline drift"])])
        query = self.row(question_type="single-query", attribute=None)
        assert columns.columns_of_options(query, ["baseline drift", "burst noise"]) is None
        assert columns.columns_of_options(query | {"attribute_type": "lead"}, ["baseline drift"]) is None
        assert columns.columns_of_options(self.row(), ["yes", "no"]) is None
        # Two templates ask about the same words: which of them is meant is not said.
        twice = LabelColumns([self.row(), self.row(template_id=2)])
        assert twice.columns_of_options(query, ["static noise"]) is None

    def test_nothing_to_learn(self):
        with pytest.raises(EcgDataError, match="nothing to learn"):
            LabelColumns([self.row(question_type="single-query"), self.row(answer=["not sure"])])


class TestAuc:
    def test_macro(self):
        row = TestLabels.row
        columns = LabelColumns([row(), row(template_id=2, attribute_type="form"), row(template_id=3)])
        targets = np.array([[1, 1, 0], [0, 0, 0], [0, np.nan, 0], [np.nan, 1, 0]], np.float32)
        logits = np.array([[3, -1, 0], [1, 0, 0], [4, 9, 0], [9, 1, 0]], float)
        assert macro_auc(columns, targets, logits) == {
            "value": 0.5,
            "labels": 2,
            "by_attribute": {"noise": {"value": 0.5, "labels": 1}, "form": {"value": 0.5, "labels": 1}},
        }
        assert macro_auc(columns, targets[:0], logits[:0])["value"] is None


class TestResnet:
    @pytest.fixture
    def signals(self):
        return np.random.default_rng(0).standard_normal((20, 3, 64)).astype(np.float32)

    def test_size(self):
        assert 800_000 < sum(parameter.numel() for parameter in Resnet1d(12, 59).parameters()) < 1_000_000

    def test_the_seed_decides(self, signals):
        targets = (signals[:, :1, 0] > 0).astype(np.float32)
        before = torch.random.get_rng_state()
        first, second, other = (train_resnet1d(signals, targets, epochs=2, seed=s).logits(signals) for s in (0, 0, 1))
        np.testing.assert_array_equal(first, second)
        assert np.abs(first - other).max() > 1e-3
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_what_is_not_asked_does_not_count(self, signals):
        """Labels that are never asked about change nothing of the others but by the weights' number."""
        targets = np.full((20, 2), np.nan, np.float32)
        targets[:, 0] = signals[:, 0, 0] > 0
        loss = train_resnet1d(signals, targets, epochs=1).losses[0]
        assert 0.3 < loss < 1.5
        targets[5:, 0] = np.nan
        assert np.isfinite(train_resnet1d(signals, targets, epochs=1).losses[0])
        with pytest.raises(EcgDataError, match="no label that is asked about"):
            train_resnet1d(signals, np.full((20, 2), np.nan, np.float32), epochs=1)

    def test_the_best_epoch_is_kept(self, signals):
        targets = (signals[:, :1, 0] > 0).astype(np.float32)
        seen = []

        def judge(trained):
            seen.append(trained.logits(signals))
            return [0.2, float("nan"), 0.9, 0.8][len(seen) - 1]

        trained = train_resnet1d(signals, targets, epochs=4, judge=judge)
        assert trained.epoch == 3 and len(trained.scores) == 4
        np.testing.assert_array_equal(trained.logits(signals), seen[2])
        seen.clear()
        last = train_resnet1d(signals, targets, epochs=4, judge=judge, keep_best=False)
        assert last.epoch == 4
        np.testing.assert_array_equal(last.logits(signals), seen[3])
        with pytest.raises(EcgDataError, match="no epoch could be judged"):
            train_resnet1d(signals, targets, epochs=1, judge=lambda trained: float("nan"))

    def test_the_scale_of_a_lead_does_not_matter(self, signals):
        targets = (signals[:, :1, 0] > 0).astype(np.float32)
        other = signals * np.array([[1.0], [64.0], [1 / 128]], np.float32)  # powers of two: no rounding
        first, second = (train_resnet1d(one, targets, epochs=1) for one in (signals, other))
        np.testing.assert_allclose(second.std / first.std, [[1.0], [64.0], [1 / 128]])
        np.testing.assert_allclose(first.logits(signals), second.logits(other), atol=1e-6)

    def test_logits_of_no_record(self, signals):
        trained = train_resnet1d(signals, np.ones((20, 3), np.float32), epochs=1)
        assert trained.logits(signals[:0]).shape == (0, 3)

    def test_short_signals_and_flat_leads(self, signals):
        targets = np.ones((20, 1), np.float32)
        flat = signals.copy()
        flat[:, 1] = 0.25
        assert np.isfinite(train_resnet1d(flat, targets, epochs=1).logits(flat)).all()
        with pytest.raises(EcgDataError, match="expected at least 1 epoch, 2 records and 64 samples"):
            train_resnet1d(signals[:, :, :63], targets, epochs=1)

    @pytest.mark.parametrize("samples", [64, 65, 77, 250, 1001])
    def test_any_length(self, samples):
        assert Resnet1d(2, 3)(torch.zeros(2, 2, samples)).shape == (2, 3)


class TestBigrams:
    def test_counts(self):
        counts = bigram_counts(np.array([[0, 1, 1, 0], [25, 25, 25, 3]], np.uint8))
        assert counts.shape == (2, 26, 26) and counts.sum() == 6
        assert counts[0, 0, 1] == counts[0, 1, 1] == counts[0, 1, 0] == 1
        assert counts[1, 25, 25] == 2 and counts[1, 25, 3] == 1

    def test_features_are_of_the_tokenizers_symbols(self, prepared, ecg_byte):
        tokenizer = EcgByteProcessor.from_pretrained(ecg_byte).tokenizer
        signal = prepared.signal(1)
        letters = tokenizer.decode(tokenizer.encode_signal(signal)).replace(" ", "")
        symbols = np.frombuffer(letters.encode(), np.uint8).reshape(2, 200) - ord("a")
        features = bigram_features(signal[None], tokenizer)
        np.testing.assert_allclose(features[0] ** 2, bigram_counts(symbols).ravel(), atol=1e-5)

    def test_a_single_class_is_its_share(self):
        features = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
        targets = np.zeros((30, 2), np.float32)
        targets[:20, 1] = np.nan
        logits = fit(features, targets, choices=[DEFAULT_C]).logits(features)
        np.testing.assert_allclose(1 / (1 + np.exp(-logits)), [[1 / 32, 1 / 12]] * 30)

    def test_the_best_c_is_kept(self):
        features = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
        targets = (features[:, :1] > 0).astype(np.float32)
        scores = {0.01: 0.3, 0.1: 0.8, 1.0: 0.5}
        trained = fit(features, targets, choices=[*scores, 10.0], judge=lambda one: scores[one.c])
        assert trained.c == 0.1 and trained.scores == scores  # 10 was not tried any more
        alone = fit(features, targets, choices=[0.1])
        np.testing.assert_array_equal(trained.logits(features), alone.logits(features))
        for choices in ([], [0.0], [0.1, 1.0]):
            with pytest.raises(EcgDataError, match="expected one above 0, or several and a validation split"):
                fit(features, targets, choices=choices)

    def test_the_same_counts_everywhere(self):
        with pytest.raises(EcgDataError, match="bigram counts of all 5 records are the same"):
            fit(np.ones((5, 3), np.float32), np.ones((5, 1), np.float32), choices=[DEFAULT_C])


class TestCommand:
    def test_both(self, prepared, ecg_byte, tmp_path, capsys):
        command = ["baseline", "--data", str(prepared.folder), "--output", str(tmp_path / "a.jsonl")]
        assert cli.main([*command, "--kind", "resnet1d", "--epochs", "1", "--num-threads", "1"]) == 0
        out = capsys.readouterr().out
        assert "test all labels: macro AUC" in out and "300 answers in" in out
        bigram = ["--kind", "bigram", "--tokenizer", str(ecg_byte), "--c", "0.001", "--split", "validation"]
        assert cli.main([*command, *bigram]) == 0
        assert "180 answers in" in capsys.readouterr().out
        assert len(read_predictions(tmp_path / "a.jsonl")) == 180

    def test_overlapping_windows_are_scored_by_record(self, prepared, tmp_path, capsys):
        data, output = ["--data", str(prepared.folder)], str(tmp_path / "a.jsonl")
        command = ["baseline", *data, "--kind", "resnet1d", "--epochs", "1", "--num-threads", "1", "--output", output]
        assert cli.main([*command, "--window-seconds", "1", "--window-stride", "0.5"]) == 0
        assert "900 answers in" in capsys.readouterr().out
        rows = read_predictions(output)
        assert [(row["ecg_id"], row["record_id"]) for row in rows[:3]] == [([453 + n], [151]) for n in range(3)]
        assert json.loads(report_path(output).read_text())["provenance"]["window_stride"] == 0.5
        scored = ["--predictions", output, "--no-rule", "--resamples", "20", "--output", str(tmp_path / "r.json")]
        assert cli.main(["evaluate", *data, *scored, "--by-record"]) == 0
        report = json.loads((tmp_path / "r.json").read_text())
        assert report["windows_per_record"] == {"model": 3} and report["exact_match"]["n"] == 300

    @pytest.mark.parametrize("kind", ["resnet1d", "bigram"])
    @pytest.mark.parametrize("windows", [(), ("--window-seconds", "1")])
    def test_trained_once_for_all_changes(self, kind, windows, prepared, ecg_byte, tmp_path):
        """The answers are those of a baseline trained anew for each change, and the others stay as they are."""
        own = ["--epochs", "1"] if kind == "resnet1d" else ["--tokenizer", str(ecg_byte), "--c", "0.001"]
        command = ["baseline", "--data", str(prepared.folder), "--kind", kind, "--num-threads", "1", *own, *windows]
        given = ["--worse", "noise=0.5", "gain=0.5", "--seed", "3", "--output"]
        assert cli.main([*command, *given, str(tmp_path / "a.jsonl")]) == 0
        told = {}
        for change in ((), ("noise=0.5",), ("gain=0.5",)):
            perturbed = ["--perturb", *change] if change else []
            assert cli.main([*command, *perturbed, "--seed", "3", "--output", str(tmp_path / "b.jsonl")]) == 0
            made = worse_path(tmp_path / "a.jsonl", change[0]) if change else tmp_path / "a.jsonl"
            assert read_predictions(made) == read_predictions(tmp_path / "b.jsonl")
            told[change] = json.loads(report_path(made).read_text())
            again = json.loads(report_path(tmp_path / "b.jsonl").read_text())
            assert told[change]["provenance"]["perturbations"] == again["provenance"]["perturbations"]
            assert told[change]["macro_auc"]["test"] == again["macro_auc"]["test"]
        values = [report["macro_auc"]["test"]["value"] for report in told.values()]
        assert len(set(values)) == 3 and told["noise=0.5",]["macro_auc"].keys() == {"test"}

    def test_a_change_that_is_none(self, prepared, tmp_path, capsys):
        command = ["baseline", "--data", str(prepared.folder), "--kind", "resnet1d", "--output"]
        assert cli.main([*command, str(tmp_path / "a.jsonl"), "--worse", "noise=0.1", "hum=1"]) == 1
        assert "expected one of noise" in capsys.readouterr().err
        assert not (tmp_path / "a.jsonl").exists()

    def test_options_of_the_other_kind(self, prepared, capsys, tmp_path):
        command = ["baseline", "--data", str(prepared.folder), "--output", str(tmp_path / "a.jsonl")]
        assert cli.main([*command, "--kind", "resnet1d", "--c", "1"]) == 2
        assert "leave out --c" in capsys.readouterr().err
        assert cli.main([*command, "--kind", "bigram", "--tokenizer", "x", "--epochs", "3"]) == 2
        assert "leave out --epochs" in capsys.readouterr().err
        assert cli.main([*command, "--kind", "bigram"]) == 2
        assert "give --tokenizer" in capsys.readouterr().err
        assert not (tmp_path / "a.jsonl").exists()


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with signal_baselines._threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
