"""Answers about windows taken together by record: by hand, and in a report beside answers about whole records."""

import json
import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ecgbyte_hf import cli
from ecgbyte_hf.data.preparation import RecordSource, prepare
from ecgbyte_hf.data.windows import WindowedData
from ecgbyte_hf.evaluation.evaluate import evaluate_predictions, report_table
from ecgbyte_hf.evaluation.generate import write_predictions
from ecgbyte_hf.evaluation.record_answers import record_answers
from ecgbyte_hf.evaluation.statistics import paired_difference
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor

LABELS = ("LBBB", "LVH")
OPTIONS = {1: ["no", "yes"], 2: ["fast", "none", "slow"]}


def question(ecg, number, answer):
    is_verify = number < len(LABELS)
    return {
        "sample_id": ecg * 10 + number,
        "template_id": 1 if is_verify else 2,
        "question_id": 1,
        "question_type": "single-verify" if is_verify else "single-query",
        "attribute_type": "form" if is_verify else "rate",
        "question": f"Does this ECG show {LABELS[number]}?" if is_verify else "How fast is it?",
        "answer": [answer],
        "ecg_id": [ecg],
        "attribute": [LABELS[number]] if is_verify else None,
        "ecg_path": None,
    }


def windowed(row, answers, **changes):
    """Rows of a question about as many windows; an answer is a text, or P(yes)."""
    count = len(answers)
    rows = []
    for window, answer in enumerate(answers):
        new = {
            "options": OPTIONS[row["template_id"]],
            **row,
            "sample_id": row["sample_id"] * count + window,
            "ecg_id": [ecg * count + window for ecg in row["ecg_id"]],
            "record_id": row["ecg_id"],
            "prediction": answer if isinstance(answer, str) else ("yes" if answer > 0.5 else "no"),
            "reached_limit": False,
        }
        if not isinstance(answer, str):
            # Of any scale: not all probability is on the two answers.
            new["option_logprobs"] = {"yes": math.log(0.1 * answer), "no": math.log(0.1 * (1 - answer))}
        rows.append(new | changes)
    return rows


def p_yes(row):
    return math.exp(row["option_logprobs"]["yes"])


class TestByHand:
    def test_probabilities_are_averaged_and_decide(self):
        """One sure window outvotes two that lean to no."""
        (answer,) = record_answers(windowed(question(7, 0, "yes"), [0.4, 0.45, 0.95]), "a")
        assert answer["prediction"] == "yes" and p_yes(answer) == pytest.approx(0.6)
        assert math.exp(answer["option_logprobs"]["no"]) == pytest.approx(0.4)
        assert (answer["sample_id"], answer["ecg_id"]) == (70, [7]) and "record_id" not in answer

    def test_a_half_is_yes(self):
        (answer,) = record_answers(windowed(question(7, 0, "yes"), [0.25, 0.75]), "a")
        assert answer["prediction"] == "yes"
        (answer,) = record_answers(windowed(question(7, 0, "yes"), [0.25, 0.74]), "a")
        assert answer["prediction"] == "no"

    @pytest.mark.parametrize(
        "texts, expected",
        [
            (["slow", "fast", "It is fast."], "fast"),
            (["slow", "Fast", "fast", "slow"], "slow"),
            (["maybe", "perhaps", "none"], "none"),
            (["maybe", "", "perhaps"], "maybe"),
            (["slow fast", "slow", "fast slow"], "slow fast"),
        ],
    )
    def test_the_most_frequent_answer_the_earliest_of_equals(self, texts, expected):
        (answer,) = record_answers(windowed(question(7, 2, "slow"), texts), "a")
        assert answer["prediction"] == expected and "option_logprobs" not in answer

    def test_reports_are_texts(self):
        row = {**question(7, 2, "x"), "options": [], "question_type": "report"}
        (answer,) = record_answers(windowed(row, ["AF", "Sinus  rhythm", "sinus rhythm"]), "a")
        assert answer["prediction"] == "Sinus  rhythm"

    def test_yes_and_no_without_probabilities_are_votes(self):
        (answer,) = record_answers(windowed(question(7, 0, "yes"), ["no", "yes", "yes"]), "a")
        assert answer["prediction"] == "yes" and "option_logprobs" not in answer

    def test_not_sure_can_still_be_the_answer(self):
        row = {**question(7, 0, "not sure"), "options": ["no", "not sure", "yes"]}
        rows = windowed(row, [0.2, 0.3, 0.9])
        for one in rows[:2]:
            one["prediction"] = "not sure"
        (answer,) = record_answers(rows, "a")
        assert answer["prediction"] == "not sure" and p_yes(answer) == pytest.approx(1.4 / 3)

    def test_certainty(self):
        sure = {"option_logprobs": {"yes": 0.0, "no": -math.inf}}
        (answer,) = record_answers(windowed(question(7, 0, "yes"), [0.9, 0.9], **sure), "a")
        assert answer["option_logprobs"] == {"yes": 0.0, "no": -math.inf} and answer["prediction"] == "yes"

    def test_neighbours_stay_apart(self):
        """The same words about one record twice, about the next record, and about two records."""
        asked = [question(7, 0, "yes"), {**question(7, 0, "yes"), "sample_id": 99}, question(8, 0, "yes")]
        asked.append({**question(8, 2, "slow"), "ecg_id": [8, 3]})
        given = [[0.1, 0.1], [0.9, 0.9], [0.2, 0.6], ["slow", "slow"]]
        rows = [one for row, values in zip(asked, given, strict=True) for one in windowed(row, values)]
        answers = record_answers(rows, "a")
        assert [(one["sample_id"], one["ecg_id"]) for one in answers] == [
            (70, [7]),
            (99, [7]),
            (80, [8]),
            (82, [8, 3]),
        ]
        assert [p_yes(one) for one in answers[:3]] == pytest.approx([0.1, 0.9, 0.4])

    def test_a_cut_answer_is_counted(self):
        rows = windowed(question(7, 2, "slow"), ["slow", "slow", "slow"])
        rows[1]["reached_limit"] = True
        assert record_answers(rows, "a")[0]["reached_limit"] is True
        assert record_answers(windowed(question(7, 2, "slow"), ["slow"]), "a")[0]["reached_limit"] is False

    def test_whole_records_stay(self):
        rows = [{**question(7, 0, "yes"), "options": OPTIONS[1], "prediction": "maybe"}]
        assert record_answers(rows, "a") == rows and record_answers([], "a") == []

    def test_refusals(self):
        rows = windowed(question(7, 0, "yes"), [0.1, 0.2]) + windowed(question(8, 0, "yes"), [0.3, 0.4])
        whole = {**question(9, 0, "yes"), "options": OPTIONS[1], "prediction": "yes"}
        with pytest.raises(EcgDataError, match=r"a.jsonl has 4 rows about windows \(record_id\) and 1 about whole"):
            record_answers([*rows, whole], "a.jsonl")
        for broken in (rows[:3], rows[1:], [rows[1], rows[0], *rows[2:]], [rows[0], rows[2]], [*rows, rows[3]]):
            with pytest.raises(EcgDataError, match=r"a.jsonl answers sample .* windows of a record, in order"):
                record_answers(broken, "a.jsonl")
        with pytest.raises(EcgDataError, match="a.jsonl answers sample 140"):
            record_answers([rows[0], {**rows[1], "sample_id": 142}, *rows[2:]], "a.jsonl")
        del rows[2]["option_logprobs"]
        with pytest.raises(EcgDataError, match="1 of the 4 yes/no questions that a.jsonl answered have no"):
            record_answers(rows, "a.jsonl")


def all_questions():
    draw, rows = np.random.default_rng(1), []
    for ecg in range(1, 31):
        truths = draw.random(2) < (0.4, 0.3)
        rows += [question(ecg, number, "yes" if truth else "no") for number, truth in enumerate(truths)]
        rows.append(question(ecg, 2, "fast" if truths[0] else "slow"))
    return rows


ROWS = all_questions()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    signal = np.zeros((1, 1000), dtype=np.float32)
    signal[0, ::100] = 1.0
    return prepare(
        [RecordSource(ecg, None, str(ecg), signal, 100.0, ("II",)) for ecg in range(1, 31)],
        {"train": ROWS[:3], "test": ROWS},
        tmp_path_factory.mktemp("records") / "prepared",
        feature_extractor=EcgByteFeatureExtractor(profile="none", sampling_rate=100, leads=["II"]),
        template_options=OPTIONS,
        duration=10.0,
        arguments={},
        metadata={ecg: {"age": 30.0 + ecg, "sex": "male", "device": "A"} for ecg in range(1, 31)},
    )


def drawn(seed, count, skill):
    """For each question the answers of a system to its windows."""
    draw, given = np.random.default_rng(seed), []
    for row in ROWS:
        if row["template_id"] == 1:
            noise = draw.uniform(0.02, 0.98, count)
            given.append(list((1 - skill) * noise + skill * (0.9 if row["answer"] == ["yes"] else 0.1)))
        else:
            given.append([row["answer"][0] if draw.random() < skill else "none" for _ in range(count)])
    return given


def write_windows(path, given):
    rows = [one for row, answers in zip(ROWS, given, strict=True) for one in windowed(row, answers)]
    return write_predictions(path, rows)


def write_whole(path, given):
    """Answers about whole records as a baseline writes them: no `record_id`."""
    rows = []
    for row, answers in zip(ROWS, given, strict=True):
        (one,) = windowed(row, answers)
        del one["record_id"]
        rows.append(one)
    return write_predictions(path, rows)


@pytest.fixture(scope="module")
def given():
    return {
        "model": drawn(0, 4, 0.2),
        "shuffled": drawn(1, 4, 0.0),
        "resnet1d": drawn(2, 1, 0.3),
        "5s": drawn(3, 2, 0.1),
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory, given):
    folder = tmp_path_factory.mktemp("answers")
    return {
        name: (write_whole if name == "resnet1d" else write_windows)(folder / f"{name}.jsonl", answers)
        for name, answers in given.items()
    }


@pytest.fixture(scope="module")
def report(prepared, files, tmp_path_factory):
    return evaluate_predictions(
        prepared,
        files["model"],
        controls={"shuffled": files["shuffled"]},
        systems={name: files[name] for name in ("resnet1d", "5s")},
        output=tmp_path_factory.mktemp("report") / "report.json",
        by_record=True,
        with_rule=False,
        n_resamples=100,
    )


def mean_auc(given):
    """By scikit-learn, of the mean probabilities."""
    areas = []
    for label in LABELS:
        mine = [number for number, row in enumerate(ROWS) if row["attribute"] == [label]]
        truth = [ROWS[number]["answer"] == ["yes"] for number in mine]
        areas.append(roc_auc_score(truth, [np.mean(given[number]) for number in mine]))
    return np.mean(areas)


class TestReport:
    def test_the_windows_of_a_drawn_file_are_those_of_the_folder(self, prepared, files):
        rows = [json.loads(line) for line in files["model"].read_text().splitlines()]
        asked = WindowedData(prepared.folder, 2.5).questions("test")
        keys = ("sample_id", "ecg_id", "record_id", "question", "answer")
        assert [[row[key] for key in keys] for row in rows] == [[row[key] for key in keys] for row in asked]

    def test_auc_of_the_mean_probabilities(self, report, given):
        systems = report["labels"]["systems"]
        for name, answers in given.items():
            assert systems[name]["by_attribute"]["form"]["macro_auc"]["value"] == pytest.approx(mean_auc(answers))
        difference = report["systems"]["resnet1d"]["difference"]["macro_auc"]["overall"]
        assert difference["value"] == pytest.approx(mean_auc(given["model"]) - mean_auc(given["resnet1d"]))
        assert difference["ci95"][0] < difference["value"] < difference["ci95"][1]

    def test_exact_match_and_brier_score_by_record(self, report, given):
        verify = [number for number, row in enumerate(ROWS) if row["template_id"] == 1]
        truth = np.array([ROWS[number]["answer"] == ["yes"] for number in verify])

        def probability(name):
            return np.array([np.mean(given[name][number]) for number in verify])

        correct = {name: (probability(name) >= 0.5) == truth for name in ("model", "resnet1d")}
        ours = report["exact_match"]
        assert (ours["n"], ours["n_ecgs"]) == (90, 30) and report["split"] == "test"
        assert ours["by_type"]["single-verify"]["value"] == np.mean(correct["model"])
        assert report["labels"]["systems"]["model"]["calibration"]["brier"] == pytest.approx(
            np.mean((probability("model") - truth) ** 2)
        )
        form = report["labels"]["systems"]["model"]["by_attribute"]["form"]["labels"]["LBBB"]
        lbbb = np.array([ROWS[number]["attribute"] == ["LBBB"] for number in verify])
        said = probability("model") >= 0.5
        assert form["sensitivity"]["value"] == np.mean(said[lbbb & truth])
        assert form["specificity"]["value"] == np.mean(~said[lbbb & ~truth])
        query = report["exact_match"]["by_type"]["single-query"]
        right = []
        for row, answers in zip(ROWS, given["model"], strict=True):
            if row["template_id"] == 2:
                counts = sorted(set(answers), key=lambda text: (-answers.count(text), answers.index(text)))
                right.append(counts[0] == row["answer"][0])
        assert query["value"] == np.mean(right) and 0 < sum(right) < len(right)

    def test_pairs_are_records(self, report, given):
        correct = {}
        for name in ("model", "resnet1d"):
            correct[name] = []
            for row, answers in zip(ROWS, given[name], strict=True):
                if row["template_id"] == 1:
                    answer = "yes" if np.mean(answers) >= 0.5 else "no"
                else:
                    answer = min(set(answers), key=lambda text: (-answers.count(text), answers.index(text)))
                correct[name].append(answer == row["answer"][0])
        expected = paired_difference(*correct.values(), [row["ecg_id"][0] for row in ROWS], n_resamples=100)
        assert report["systems"]["resnet1d"]["difference"]["exact_match"] == {
            "value": expected.difference,
            "ci95": list(expected.ci95),
        }

    def test_it_says_so(self, report):
        assert report["windows_per_record"] == {"model": 4, "shuffled": 4, "resnet1d": 1, "5s": 2}
        assert report["provenance"]["arguments"]["by_record"] is True
        lines = report_table(report).splitlines()
        assert [line for line in lines if line.startswith("an answer of")] == [
            "an answer of model is that of 4 windows of a record",
            "an answer of shuffled is that of 4 windows of a record",
            "an answer of 5s is that of 2 windows of a record",
        ]
        assert report["groups"]["sex"]["groups"]["male"]["n"] == 90

    def test_a_window_that_nobody_answered_is_not_passed_over(self, prepared, files, tmp_path):
        """The last window of every record left out, or all questions about the last record."""
        rows = [json.loads(line) for line in files["model"].read_text().splitlines()]
        fewer = write_predictions(tmp_path / "fewer.jsonl", [row for row in rows if row["sample_id"] % 4 != 3])
        with pytest.raises(EcgDataError, match="windows of a record, in order"):
            self.run(prepared, fewer, tmp_path)
        part = write_predictions(tmp_path / "part.jsonl", rows[:-12])
        with pytest.raises(EcgDataError, match="87 of test's 90"):
            self.run(prepared, part, tmp_path)
        with pytest.raises(EcgDataError, match=r"part.jsonl does not answer the questions of"):
            self.run(prepared, files["model"], tmp_path, systems={"r": part})

    @staticmethod
    def run(prepared, path, tmp_path, **more):
        evaluate_predictions(
            prepared, path, controls={}, output=tmp_path / "r.json", by_record=True, with_rule=False, **more
        )


def test_command(prepared, files, tmp_path, capsys):
    command = ["evaluate", "--data", prepared.folder, "--predictions", files["model"], "--no-rule"]
    command += ["--system", f"resnet1d={files['resnet1d']}", "--resamples", 20, "--output", tmp_path / "r.json"]
    assert cli.main([*map(str, command), "--by-record"]) == 0
    assert "an answer of model is that of 4 windows of a record" in capsys.readouterr().out
    assert "an answer of model is that of 4 windows" in (tmp_path / "r.md").read_text()
    assert json.loads((tmp_path / "r.json").read_text())["exact_match"]["n"] == 90
    assert cli.main([*map(str, command), "--by-record", "--window-seconds", "2.5"]) == 1
    assert "leave out --window-seconds" in capsys.readouterr().err
    assert cli.main([*map(str, command)]) == 1
