"""The report against values worked out by hand, and what may not be scored."""

import json

import pytest

from ecgbyte_hf.data.preparation import RecordSource, prepare
from ecgbyte_hf.data.simulator import simulate_records
from ecgbyte_hf.evaluation import evaluate as module
from ecgbyte_hf.evaluation.evaluate import evaluate_predictions, report_table
from ecgbyte_hf.evaluation.generate import write_predictions
from ecgbyte_hf.evaluation.statistics import bootstrap_interval, paired_difference
from ecgbyte_hf.evaluation.text_metrics import TextOptions, answer_text_metrics
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor

OPTIONS = {1: ["no", "yes"], 2: ["fast", "none", "slow"]}


def question(sample_id, ecg_id, template, answer):
    verify = template == 1
    return {
        "sample_id": sample_id,
        "template_id": template,
        "question_id": template,
        "question_type": "single-verify" if verify else "single-query",
        "attribute_type": "noise" if verify else "rate",
        "question": "Is there noise?" if verify else "How fast is it?",
        "answer": [answer],
        "ecg_id": [ecg_id],
        "attribute": None,
        "ecg_path": None,
    }


# The majority of template 1 is "yes", of template 2 "slow".
TRAIN = [
    *(question(10 + n, 1, 1, answer) for n, answer in enumerate(["yes", "yes", "no"])),
    *(question(20 + n, 2, 2, answer) for n, answer in enumerate(["slow", "none", "slow"])),
]
TEST = [
    question(1, 3, 1, "yes"),
    question(2, 3, 2, "slow"),
    question(3, 4, 1, "no"),
    question(4, 4, 2, "none"),
    question(5, 5, 1, "yes"),
    question(6, 5, 2, "fast"),
]
# Right, right, right, right ("none" is the empty set), unparsed, wrong.
MODEL = ["Yes.", "it is slow", "no", "None", "maybe", "slow"]
# Right: 1, 2, 5.
MAJORITY = [True, True, False, False, True, False]
# Right: 3 and 6.
SHUFFLED = ["no", "fast", "no", "fast", "no", "fast"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    extractor = EcgByteFeatureExtractor(profile="none", sampling_rate=100, leads=["II"])
    records = simulate_records(5, sampling_rate=100.0, leads=("II",))
    sources = [RecordSource(number, None, str(number), signal, 100.0, ("II",)) for number, _, signal in records]
    return prepare(
        sources,
        {"train": TRAIN, "test": TEST, "other": TEST[:2]},
        tmp_path_factory.mktemp("evaluate") / "prepared",
        feature_extractor=extractor,
        template_options=OPTIONS,
        duration=10.0,
        arguments={},
    )


def predictions(path, texts, rows=TEST, at_limit=()):
    written = [
        {**row, "options": OPTIONS[row["template_id"]], "prediction": text, "reached_limit": number in at_limit}
        for number, (row, text) in enumerate(zip(rows, texts, strict=True))
    ]
    return write_predictions(path, written)


@pytest.fixture
def report(prepared, tmp_path):
    return evaluate_predictions(
        prepared,
        predictions(tmp_path / "a.jsonl", MODEL, at_limit=[4, 5]),
        controls={"shuffled": predictions(tmp_path / "s.jsonl", SHUFFLED)},
        output=tmp_path / "report.json",
        with_rule=False,
        n_resamples=500,
        seed=3,
    )


class TestReport:
    def test_exact_match_by_hand(self, report):
        match = report["exact_match"]
        assert match["overall"] == 4 / 6 and match["n"] == 6 and match["n_ecgs"] == 3
        assert match["unparsed"] == 1 / 6
        assert {name: value["value"] for name, value in match["by_type"].items()} == {
            "single-verify": 2 / 3,
            "single-query": 2 / 3,
        }
        correct, clusters = [1, 1, 1, 1, 0, 0], [3, 3, 4, 4, 5, 5]
        assert tuple(match["ci95"]) == bootstrap_interval(correct, clusters, n_resamples=500, seed=3)
        assert report["split"] == "test"

    def test_controls_by_hand(self, report):
        assert {name: value["overall"] for name, value in report["controls"].items()} == {
            "majority": 3 / 6,
            "shuffled": 2 / 6,
        }
        assert report["controls"]["majority"]["by_type"]["single-verify"]["value"] == 2 / 3
        assert report["best_control"] == "majority"
        expected = paired_difference([1, 1, 1, 1, 0, 0], MAJORITY, [3, 3, 4, 4, 5, 5], n_resamples=500, seed=3)
        assert report["difference_to_best_control"] == {"value": 1 / 6, "ci95": list(expected.ci95)}
        assert expected.difference == pytest.approx(1 / 6)

    def test_each_attribute_is_held_against_its_own_best_control(self, report):
        noise, rate = report["by_attribute"]["noise"], report["by_attribute"]["rate"]
        assert noise["controls"] == {"majority": 2 / 3, "shuffled": 1 / 3}
        assert (noise["best_control"], noise["difference_to_best_control"]["value"]) == ("majority", 0.0)
        assert rate["controls"] == {"majority": 1 / 3, "shuffled": 1 / 3}
        assert rate["value"] == 2 / 3 and rate["n"] == 3
        assert rate["difference_to_best_control"]["value"] == pytest.approx(1 / 3)

    def test_answers_at_the_limit_are_counted(self, report):
        assert report["answers_at_limit"] == {"model": 2, "shuffled": 0}
        assert report_table(report).endswith("2 answers of model were cut off at max_new_tokens")

    def test_it_is_the_file(self, report, tmp_path):
        assert json.loads((tmp_path / "report.json").read_text()) == report
        assert report["provenance"]["arguments"]["seed"] == 3 and "test" in report["provenance"]["data_hash"]

    def test_table(self, report):
        lines = report_table(report).splitlines()
        assert lines[0].split() == ["questions", "n", "model", "95", "%", "interval", "majority", "shuffled"]
        assert set(lines[1]) == {"-"}
        assert [line.split()[0] for line in lines[2:]] == [
            "all",
            "single-verify",
            "single-query",
            "noise",
            "rate",
            "2",
        ]
        assert lines[2].split()[:3] == ["all", "6", "66.7"] and lines[2].split()[-2:] == ["50.0", "33.3"]
        start = lines[0].index("majority")
        assert all(line[start - 1] == " " and line[start] != " " for line in lines[2:-1])


class TestTextMetrics:
    @pytest.fixture
    def text_report(self, prepared, tmp_path):
        return evaluate_predictions(
            prepared,
            predictions(tmp_path / "a.jsonl", ["yes", "slow", "", "none", "", "it is slow"]),
            controls={"shuffled": predictions(tmp_path / "s.jsonl", SHUFFLED)},
            output=tmp_path / "report.json",
            with_rule=False,
            text=TextOptions(),
            n_resamples=5,
        )

    def test_beside_every_control(self, text_report):
        """Perfect words for 1, 2 and 4, nothing for 3 and 5, a wrong one of three words for 6 ("fast")."""
        text = text_report["text_metrics"]
        assert {name: value["paper_per_sample"]["token_f1"] for name, value in text.items()} == {
            "model": 3 / 6,
            "majority": 3 / 6,
            "shuffled": 2 / 6,
        }
        assert (text["model"]["n"], text["model"]["empty_predictions"]) == (6, 2)
        assert text["model"]["paper_per_sample"]["bleu_4"] == pytest.approx(0.1**0.75 * 3 / 6)
        assert text["model"]["perfect_answers"]["paper_per_sample"]["bleu_4"] == pytest.approx(0.1**0.75)
        assert text["model"]["corpus_level"]["token_f1"] == pytest.approx(2 * 3 / (6 + 6))
        assert text_report["provenance"]["arguments"]["text"]["answer_separator"] == ", "

    def test_table(self, text_report):
        lines = report_table(text_report).splitlines()
        bleu = next(line.split() for line in lines if line.startswith("BLEU-4 per answer"))
        assert bleu == ["BLEU-4", "per", "answer", "6", "8.9", "perfect:", "17.8", "8.9", "5.9"]
        assert next(line.split()[-3:] for line in lines if line.startswith("token F1 of")) == ["100.0", "50.0", "33.3"]
        # One word each: without a 2-gram even perfect answers have no BLEU-4.
        assert next(line.split()[4:] for line in lines if line.startswith("BLEU-4 of")) == [
            *("6", "0.0", "perfect:", "0.0", "0.0", "0.0")
        ]
        assert lines[-1].startswith("bertscore is left out: no model is named")

    def test_without_it_nothing_of_it(self, report):
        assert "text_metrics" not in report and "BLEU" not in report_table(report)

    def test_several_answers_are_written_as_the_model_was_trained(self):
        rows = [{"answer": ["a wave", "b wave"], "prediction": "a wave; b wave", "parsed": ["a wave", "b wave"]}]
        for separator, value in (("; ", 1.0), (", ", 3 / 4)):
            result = answer_text_metrics(rows, TextOptions(answer_separator=separator))
            assert result["paper_per_sample"]["bleu_1"] == value
            computed = answer_text_metrics(rows, TextOptions(answer_separator=separator), computed=True)
            assert computed["paper_per_sample"]["bleu_1"] == 1.0


class TestRule:
    def test_rule_and_model_are_scored_on_the_same_questions(self, prepared, tmp_path, monkeypatch):
        answers = {1: "yes", 3: "yes", 4: "none"}
        asked = []

        def rule(row, options, measurements):
            asked.append((row["sample_id"], options, len(measurements)))
            return answers.get(row["sample_id"])

        monkeypatch.setattr(module, "rule_answer", rule)
        for num_proc in (1, 2):
            report = evaluate_predictions(
                prepared,
                predictions(tmp_path / "a.jsonl", MODEL),
                controls={},
                output=tmp_path / "report.json",
                n_resamples=50,
                num_proc=num_proc,
            )
            rule_part = report["rule"]
            assert (rule_part["n"], rule_part["questions"]) == (3, 6)
            assert rule_part["exact_match"]["overall"] == 2 / 3
            assert rule_part["model_on_the_same"]["overall"] == 1.0
            assert rule_part["difference_to_rule"]["value"] == pytest.approx(1 / 3)
            assert report_table(report).splitlines()[-1].split()[-2:] == ["rule", "66.7"]
        assert asked[1] == (2, OPTIONS[2], 1)

    def test_a_rule_for_nothing_is_said_so(self, prepared, tmp_path, monkeypatch):
        monkeypatch.setattr(module, "rule_answer", lambda *_: None)
        path = predictions(tmp_path / "a.jsonl", MODEL)
        report = evaluate_predictions(prepared, path, controls={}, output=tmp_path / "r.json", n_resamples=50)
        assert report["rule"] == {"n": 0, "questions": 6, "note": "a rule applies to none of these questions"}
        assert "rule" not in report_table(report)

    def test_records_without_lead_ii_are_scored_without_the_rule(self, small_prepared, tmp_path, caplog):
        rows = small_prepared.questions("test")
        templates = small_prepared.template_options()
        written = [{**row, "options": templates[row["template_id"]], "prediction": row["answer"][0]} for row in rows]
        path = write_predictions(tmp_path / "a.jsonl", written)
        report = evaluate_predictions(small_prepared, path, controls={}, output=tmp_path / "r.json", n_resamples=50)
        assert report["exact_match"]["overall"] == 1.0
        assert report["rule"]["n"] == 0 and "Missing lead II" in report["rule"]["note"]
        assert "no rule is among the controls" in caplog.text

    def test_processes_measure_the_same(self, prepared):
        one, two = (module._measure_all(prepared, prepared.ecg_ids, count) for count in (1, 2))
        assert list(one) == list(two) == prepared.ecg_ids
        assert one == two and len({value.heart_rate_bpm for value in one.values()}) == 5


class TestRefusals:
    def run(self, prepared, tmp_path, path, **controls):
        return evaluate_predictions(
            prepared, path, controls=controls, output=tmp_path / "report.json", with_rule=False, n_resamples=10
        )

    def test_a_part_of_a_split_is_not_scored(self, prepared, tmp_path):
        path = predictions(tmp_path / "a.jsonl", MODEL[1:], TEST[1:])
        with pytest.raises(EcgDataError, match=r"answers 5 questions, which are not all .* 5 of test's 6"):
            self.run(prepared, tmp_path, path)
        assert not (tmp_path / "report.json").exists()
        assert self.run(prepared, tmp_path, predictions(path, MODEL[:2], TEST[:2]))["split"] == "other"

    @pytest.mark.parametrize(
        "change", [{"answer": ["no"]}, {"question": "Is there any noise?"}, {"ecg_id": [4]}, {"sample_id": 9}]
    )
    def test_changed_questions_are_not_scored(self, prepared, tmp_path, change):
        path = predictions(tmp_path / "a.jsonl", MODEL, [{**TEST[0], **change}, *TEST[1:]])
        with pytest.raises(EcgDataError, match="5 of test's 6"):
            self.run(prepared, tmp_path, path)

    def test_a_control_with_other_questions(self, prepared, tmp_path):
        path = predictions(tmp_path / "a.jsonl", MODEL)
        for rows, texts in ((TEST[::-1], MODEL[::-1]), (TEST[:5], MODEL[:5])):
            other = predictions(tmp_path / "b.jsonl", texts, rows)
            with pytest.raises(EcgDataError, match="b.jsonl does not answer the questions of .*a.jsonl"):
                self.run(prepared, tmp_path, path, shuffled=other)

    @pytest.mark.parametrize("name", ["majority", "rule", "mirror"])
    def test_controls_of_other_names(self, prepared, tmp_path, name):
        path = predictions(tmp_path / "a.jsonl", MODEL)
        with pytest.raises(EcgDataError, match=f"controls named {name}"):
            self.run(prepared, tmp_path, path, **{name: path})

    def test_no_answers(self, prepared, tmp_path):
        with pytest.raises(EcgDataError, match="answers 0 questions"):
            self.run(prepared, tmp_path, predictions(tmp_path / "a.jsonl", [], []))
