"""Label scores against scikit-learn and against cases worked out by hand."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, roc_auc_score

from ecgbyte_hf.evaluation.label_scores import (
    auc_difference,
    average_precision,
    calibration,
    macro_auc_of_parts,
    mean_over_labels,
    probability_of_yes,
    score_labels,
    verify_questions,
)
from ecgbyte_hf.evaluation.scoring import score_rows
from ecgbyte_hf.evaluation.statistics import AreaUnderCurve, ClusterResamples, percentile_interval
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError


def row(ecg, label, answer, said="no", probability=None, **changes):
    return {
        "sample_id": ecg,
        "question_type": "single-verify",
        "attribute_type": "form",
        "attribute": [label],
        "ecg_id": [ecg],
        "answer": [answer],
        "options": ["no", "not sure", "yes"],
        "prediction": said,
        **({} if probability is None else {"option_logprobs": logprobs(probability)}),
        **changes,
    }


def logprobs(probability):
    # Not normalised: the rest of the vocabulary has three quarters.
    return {"yes": math.log(probability / 4) if probability else -math.inf, "no": math.log((1 - probability) / 4)}


@pytest.fixture(scope="module")
def many():
    """200 ECGs, three labels asked of each, scores with ties."""
    draw = np.random.default_rng(0)
    rows = []
    for ecg in range(200):
        for label, rate in (("LBBB", 0.3), ("LVH", 0.1), ("NORM", 0.5)):
            truth = bool(draw.random() < rate)
            probability = round(float(np.clip(draw.random() * 0.7 + 0.3 * truth, 0.05, 0.9)), 1)
            kind = "diagnostic_superclass" if label == "NORM" else "form"
            said = "yes" if probability > 0.5 else "no"
            rows.append(row(ecg, label, "yes" if truth else "no", said, probability, attribute_type=kind))
    return score_rows(rows)


def arrays(rows, label):
    mine = [one for one in rows if one["attribute"] == [label]]
    truth = np.array([one["answer"] == ["yes"] for one in mine])
    given = np.array(
        [1 / (1 + math.exp(one["option_logprobs"]["no"] - one["option_logprobs"]["yes"])) for one in mine]
    )
    return truth, given


class TestAgainstScikitLearn:
    def test_every_label(self, many):
        report = score_labels(verify_questions(many, n_resamples=50), many).report
        for kind, label in (("form", "LBBB"), ("form", "LVH"), ("diagnostic_superclass", "NORM")):
            found = report["by_attribute"][kind]["labels"][label]
            truth, given = arrays(many, label)
            assert found["n"] == 200 and found["prevalence"] == truth.mean()
            assert found["auc"]["value"] == pytest.approx(roc_auc_score(truth, given), abs=1e-12)
            assert found["average_precision"] == pytest.approx(average_precision_score(truth, given), abs=1e-12)
            assert found["brier"] == pytest.approx(brier_score_loss(truth, given), abs=1e-12)
            said = given > 0.5
            assert found["sensitivity"]["value"] == pytest.approx(said[truth].mean())
            assert found["specificity"]["value"] == pytest.approx((~said)[~truth].mean())
            assert found["ppv"]["value"] == pytest.approx(truth[said].mean())
            assert found["f1"]["value"] == pytest.approx(f1_score(truth, said))
            for name in ("auc", "sensitivity", "specificity", "ppv", "f1"):
                low, high = found[name]["ci95"]
                assert low < found[name]["value"] < high

    def test_macro(self, many):
        report = score_labels(verify_questions(many, n_resamples=50), many).report
        aucs = {label: roc_auc_score(*arrays(many, label)) for label in ("LBBB", "LVH", "NORM")}
        form = report["by_attribute"]["form"]["macro_auc"]
        assert form["value"] == pytest.approx((aucs["LBBB"] + aucs["LVH"]) / 2)
        assert (form["labels"], form["left_out"]) == (2, [])
        assert report["macro_auc"]["value"] == pytest.approx(sum(aucs.values()) / 3)

    def test_each_resample(self, many):
        """The weighted area is that of the rows drawn, ECG by ECG."""
        questions = verify_questions(many, n_resamples=7, seed=5)
        scores = score_labels(questions, many)
        weights = np.concatenate([part for _, part in questions.resamples.weights()], axis=1)
        assert weights.sum(axis=0).tolist() == [200.0] * 7
        for number, (_, label) in enumerate(questions.names):
            truth, given = arrays(many, label)
            for resample in range(7):
                expected = roc_auc_score(truth, given, sample_weight=weights[:, resample])
                assert scores.resampled_auc[number, resample] == pytest.approx(expected, abs=1e-6)
        macro = scores.resampled_auc.mean(axis=0)
        assert scores.report["macro_auc"]["ci95"] == list(np.quantile(macro, [0.025, 0.975]))

    def test_every_resample_has_the_same_labels_in_its_mean(self):
        """A label of one positive ECG that is always wrong: resamples without that ECG are not better for it."""
        rows = []
        for ecg in range(40):
            for label, is_yes, is_likely in (("common", ecg < 20, ecg < 20), ("rare", ecg == 0, ecg > 0)):
                rows.append(row(ecg, label, "yes" if is_yes else "no", probability=0.9 if is_likely else 0.1))
        rows = score_rows(rows)
        questions = verify_questions(rows, n_resamples=300, seed=1)
        scores = score_labels(questions, rows)
        assert np.isnan(scores.resampled_auc).any(axis=1).tolist() == [False, True]
        macro = scores.report["macro_auc"]
        assert macro["value"] == pytest.approx(0.5) and macro["ci95"] == pytest.approx([0.5, 0.5])
        values = np.array([[1.0, 0.5], [np.nan, 0.5], [np.nan, np.nan]])
        assert mean_over_labels(values).tolist() == [1.0, 0.5]
        assert mean_over_labels(values, np.array([0.0, 0.4, np.nan])).tolist() == [pytest.approx(0.7), 0.5]

    def test_average_precision_of_ties(self):
        truth, given = np.array([True, False, True, False]), np.array([0.5, 0.5, 0.5, 0.9])
        assert average_precision(truth, given) == pytest.approx(average_precision_score(truth, given))
        assert average_precision(~(truth | True), given) is None


class TestByHand:
    def test_an_answer_that_is_neither_is_wrong(self):
        rows = score_rows(
            [row(1, "a", "yes", "yes"), row(2, "a", "yes", "maybe"), row(3, "a", "no", "not sure"), row(4, "a", "no")]
        )
        found = score_labels(verify_questions(rows, n_resamples=20), rows).report["by_attribute"]["form"]["labels"][
            "a"
        ]
        assert {name: found[name]["value"] for name in ("sensitivity", "specificity", "ppv")} == {
            "sensitivity": 0.5,
            "specificity": 0.5,
            "ppv": 1.0,
        }
        assert "auc" not in found and found["positives"] == 2

    def test_what_does_not_exist_is_none(self):
        rows = score_rows([row(1, "a", "no", "no", 0.3), row(2, "a", "no", "no", 0.3), row(2, "b", "yes", "no", 0.4)])
        report = score_labels(verify_questions(rows, n_resamples=20), rows).report
        a, b = (report["by_attribute"]["form"]["labels"][label] for label in "ab")
        assert a["sensitivity"] is None and a["ppv"] is None and a["auc"] is None and a["average_precision"] is None
        assert a["specificity"]["value"] == 1.0 and b["specificity"] is None
        macro = report["macro_auc"]
        assert macro == {"value": None, "ci95": None, "labels": 0, "left_out": ["a", "b"]}

    def test_other_questions_are_counted_and_left_out(self):
        rows = score_rows(
            [
                row(1, "a", "yes"),
                row(1, "a", "not sure"),
                row(1, "a", "yes", attribute=None),
                row(1, "a", "yes", attribute=["a", "b"]),
                row(1, "a", "yes", question_type="single-choose"),
                row(1, "a", "yes", question_type="comparison_irrelevant-verify"),
            ]
        )
        questions = verify_questions(rows)
        assert questions.rows.tolist() == [0, 5]
        assert (questions.num_verify, questions.other_answer, questions.without_label) == (5, 1, 2)
        assert questions.groups == ["comparison_irrelevant-verify form", "form"]
        assert verify_questions(rows[1:5]) is None

    def test_calibration(self):
        truth = np.array([True, False, False, True, True])
        found = calibration(truth, np.array([0.05, 0.0, 0.25, 1.0, 0.95]))
        filled = {place: one for place, one in enumerate(found["bins"]) if one["n"]}
        assert set(filled) == {0, 2, 9} and len(found["bins"]) == 10
        assert filled[0] == {"from": 0.0, "to": 0.1, "n": 2, "mean_probability": 0.025, "share_of_yes": 0.5}
        assert filled[9]["n"] == 2 and filled[9]["mean_probability"] == pytest.approx(0.975)
        # 2 of 5 questions are off by 0.475, 1 by 0.25, 2 by 0.025.
        assert found["ece"] == pytest.approx((2 * 0.475 + 0.25 + 2 * 0.025) / 5)
        assert found["bins"][1]["mean_probability"] is None

    def test_clusters_are_ecgs(self):
        """Ten copies of each question of an ECG change no interval."""
        rows = [row(ecg, "a", "yes" if ecg % 3 else "no", "no", (ecg % 7) / 10 + 0.1) for ecg in range(20)]
        once, tenfold = score_rows(rows), score_rows(rows * 10)
        reports = [score_labels(verify_questions(one, n_resamples=200), one).report for one in (once, tenfold)]
        assert reports[0]["macro_auc"]["ci95"] == pytest.approx(reports[1]["macro_auc"]["ci95"], abs=1e-12)

    def test_ties_count_half(self):
        assert AreaUnderCurve([1.0, 1.0, 0.0], [True, False, False], [0, 1, 2]).value() == 0.75
        assert math.isnan(AreaUnderCurve([1.0], [True], [0]).value())


class TestProbability:
    def test_two_way_softmax(self):
        rows = [row(1, "a", "yes", probability=0.8), row(2, "a", "no", probability=0.0)]
        assert probability_of_yes(verify_questions(rows), rows, "m") == pytest.approx([0.8, 0.0])
        assert probability_of_yes(verify_questions(rows), [row(1, "a", "yes"), row(2, "a", "no")], "m") is None

    @pytest.mark.parametrize(
        "given, message",
        [
            (None, "1 of the 2 yes/no questions that resnet answered have no option_logprobs"),
            ({"yes": -1.0}, "expected {'yes': number, 'no': number}"),
            ({"yes": "x", "no": 0}, "expected {'yes': number"),
            ({"yes": math.nan, "no": -1.0}, "for question 2, expected two log-probabilities"),
            ({"yes": -math.inf, "no": -math.inf}, "for question 2"),
            ({"yes": math.inf, "no": -1.0}, "for question 2"),
        ],
    )
    def test_what_is_none(self, given, message):
        rows = [row(1, "a", "yes", probability=0.8), row(2, "a", "no", option_logprobs=given)]
        with pytest.raises(EcgDataError, match=message):
            probability_of_yes(verify_questions(rows), rows, "resnet")


class TestDifference:
    def test_on_the_same_resamples(self, many):
        worse = [{**one, "option_logprobs": logprobs(0.5)} for one in many]
        questions = verify_questions(many, n_resamples=300)
        ours, theirs = score_labels(questions, many), score_labels(questions, worse)
        found = auc_difference(questions, ours, theirs)
        # Against a constant, whose area is 0.5 in every resample, the interval is the model's own.
        assert found["overall"]["value"] == pytest.approx(ours.report["macro_auc"]["value"] - 0.5)
        expected = [bound - 0.5 for bound in ours.report["macro_auc"]["ci95"]]
        assert found["overall"]["ci95"] == pytest.approx(expected, abs=1e-6)
        assert set(found["by_attribute"]) == {"diagnostic_superclass", "form"}
        assert auc_difference(questions, ours, ours)["overall"] == {"value": 0.0, "ci95": [0.0, 0.0]}
        silent = [{**one, "option_logprobs": None} for one in many]
        assert auc_difference(questions, ours, score_labels(questions, silent)) is None

    def test_parts(self, many):
        questions = verify_questions(many, n_resamples=300)
        probability = probability_of_yes(questions, many, "model")
        everything = np.ones(len(probability), dtype=bool)
        nothing = ~everything
        first = np.array([many[place]["ecg_id"][0] < 100 for place in questions.rows])
        whole, half, none = macro_auc_of_parts(questions, probability, [everything, first, nothing])
        macro = score_labels(questions, many).report["macro_auc"]
        assert (whole["value"], whole["ci95"], whole["labels"]) == (macro["value"], macro["ci95"], 3)
        part = [one for one in many if one["ecg_id"][0] < 100]
        expected = np.mean([roc_auc_score(*arrays(part, label)) for label in ("LBBB", "LVH", "NORM")])
        assert half["value"] == pytest.approx(expected) and none is None


class TestResamples:
    def test_those_of_the_exact_match_interval(self):
        """The same seed draws the same ECGs as `bootstrap_interval`, whatever the chunks."""
        from ecgbyte_hf.evaluation.statistics import bootstrap_interval

        clusters, values = [3, 3, 9, 4, 5, 5, 5], [1, 0, 1, 1, 0, 0, 1]
        resamples = ClusterResamples(clusters, n_resamples=500, seed=2)
        one = np.zeros(7, dtype=int)
        sums = resamples.resampled_sums(resamples.cluster_sums(values, one, 1))
        counts = resamples.resampled_sums(resamples.cluster_sums(np.ones(7), one, 1))
        assert percentile_interval(sums / counts) == bootstrap_interval(values, clusters, n_resamples=500, seed=2)
        assert percentile_interval([math.nan]) is None

    def test_nothing_to_resample(self):
        with pytest.raises(EcgDataError, match="0 questions"):
            ClusterResamples([])


class TestFigure:
    def test_lines_are_the_reliability_table(self, many):
        from ecgbyte_hf.evaluation.calibration_figure import plot_calibration

        questions = verify_questions(many, n_resamples=5)
        report = score_labels(questions, many).report
        silent = score_labels(questions, [{**one, "option_logprobs": None} for one in many]).report
        figure = plot_calibration({"systems": {"model": report, "majority": silent}})
        above, below = figure.axes
        diagonal, line = above.lines  # one system has no probabilities
        filled = [one for one in report["calibration"]["bins"] if one["n"]]
        assert list(line.get_xdata()) == [one["mean_probability"] for one in filled]
        assert list(line.get_ydata()) == [one["share_of_yes"] for one in filled]
        assert list(diagonal.get_xdata()) == list(diagonal.get_ydata())
        assert sum(bar.get_height() for bar in below.patches) == 600


def test_templates_that_ask_about_one_attribute_otherwise_are_labels_of_their_own():
    """As in ECG-QA: noise in the whole ECG, and in one lead."""
    rows = [row(ecg, "noise", "yes", template_id=27) for ecg in range(3)]
    rows += [row(0, "noise", "no", template_id=26) for _ in range(4)] + [row(1, "drift", "no", template_id=26)]
    found = verify_questions(rows)
    assert found.names == [("form", "drift"), ("form", "noise (template 26)"), ("form", "noise (template 27)")]
    assert np.bincount(found.label).tolist() == [1, 4, 3]
