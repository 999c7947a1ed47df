"""A report with probabilities, another system, metadata and written reports; its tables, figure and Hub files."""

import json
import math

import numpy as np
import pytest
import yaml
from huggingface_hub import parse_eval_result_entries
from sklearn.metrics import roc_auc_score

from ecgbyte_hf import cli
from ecgbyte_hf.data.preparation import RecordSource, prepare
from ecgbyte_hf.evaluation.evaluate import evaluate_predictions, report_table
from ecgbyte_hf.evaluation.generate import write_predictions
from ecgbyte_hf.evaluation.report_files import eval_results, model_index, report_markdown, write_report_files
from ecgbyte_hf.evaluation.statistics import paired_difference
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor

OPTIONS = {1: ["no", "yes"], 2001: []}
LABELS = ("LBBB", "LVH", "never")


def question(ecg, number, answer):
    verify = number < len(LABELS)
    return {
        "sample_id": ecg * 10 + number,
        "template_id": 1 if verify else 2001,
        "question_id": 1,
        "question_type": "single-verify" if verify else "report",
        "attribute_type": "form" if verify else "report",
        "question": f"Does this ECG show {LABELS[number]}?" if verify else "What is it?",
        "answer": [answer],
        "ecg_id": [ecg],
        "attribute": [LABELS[number]] if verify else None,
        "ecg_path": None,
    }


def all_questions():
    draw = np.random.default_rng(1)
    rows = []
    for ecg in range(1, 31):
        truths = draw.random(2) < (0.4, 0.3)
        rows += [question(ecg, n, "yes" if truth else "no") for n, truth in enumerate([*truths, False])]
        rows.append(question(ecg, 3, "Sinus rhythm" + (", LBBB" if truths[0] else "")))
    return rows


ROWS = all_questions()
METADATA = {ecg: {"age": 30.0 + ecg, "sex": "male" if ecg % 2 else "female", "device": "A"} for ecg in range(1, 31)}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    signal = np.zeros((1, 1000), dtype=np.float32)
    signal[0, ::100] = 1.0
    return prepare(
        [RecordSource(ecg, None, str(ecg), signal, 100.0, ("II",)) for ecg in range(1, 31)],
        {"train": ROWS[:4], "test": ROWS},
        tmp_path_factory.mktemp("systems") / "prepared",
        feature_extractor=EcgByteFeatureExtractor(profile="none", sampling_rate=100, leads=["II"]),
        template_options=OPTIONS,
        duration=10.0,
        arguments={},
        metadata=METADATA,
    )


def predictions(path, skill, *, with_scores=True):
    """Answers of a system that knows the truth to some part."""
    draw, written = np.random.default_rng(int(skill * 100)), []
    for row in ROWS:
        new = {**row, "options": OPTIONS[row["template_id"]], "reached_limit": False}
        if row["template_id"] == 1:
            truth = row["answer"] == ["yes"]
            probability = float(np.clip((1 - skill) * draw.random() + skill * truth, 0.02, 0.98))
            new["prediction"] = "yes" if probability > 0.5 else "no"
            if with_scores:
                new["option_logprobs"] = {"yes": math.log(probability), "no": math.log(1 - probability)}
        else:
            new["prediction"] = row["answer"][0] if draw.random() < skill else "sinus rhythm"
        written.append(new)
    return write_predictions(path, written)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("answers")
    return {
        "model": predictions(folder / "model.jsonl", 0.25),
        "shuffled": predictions(folder / "shuffled.jsonl", 0.0, with_scores=False),
        "zero_signal": predictions(folder / "zero.jsonl", 0.1),
        "resnet1d": predictions(folder / "resnet.jsonl", 0.45),
    }


@pytest.fixture(scope="module")
def report(prepared, files, tmp_path_factory):
    return evaluate_predictions(
        prepared,
        files["model"],
        controls={name: files[name] for name in ("shuffled", "zero_signal")},
        systems={"resnet1d": files["resnet1d"]},
        output=tmp_path_factory.mktemp("report") / "report.json",
        with_rule=False,
        n_resamples=200,
    )


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def aucs(path):
    """By scikit-learn, of the two labels that have both classes."""
    rows = [row for row in read(path) if row["template_id"] == 1]
    found = []
    for label in LABELS[:2]:
        mine = [row for row in rows if row["attribute"] == [label]]
        found.append(
            roc_auc_score([row["answer"] == ["yes"] for row in mine], [row["option_logprobs"]["yes"] for row in mine])
        )
    return found


class TestReport:
    def test_macro_auc_of_everybody_with_scores(self, report, files):
        systems = report["labels"]["systems"]
        assert set(systems) == {"model", "majority", "shuffled", "zero_signal", "resnet1d"}
        for name in ("model", "zero_signal", "resnet1d"):
            macro = systems[name]["by_attribute"]["form"]["macro_auc"]
            assert macro["value"] == pytest.approx(np.mean(aucs(files[name])))
            assert (macro["labels"], macro["left_out"]) == (2, ["never"])
        for name in ("majority", "shuffled"):
            assert "macro_auc" not in systems[name] and "sensitivity" in str(systems[name])
        assert report["labels"]["questions"] == 90

    def test_another_system_is_no_control(self, report, files):
        assert list(report["controls"]) == ["majority", "shuffled", "zero_signal"]
        found = report["systems"]["resnet1d"]
        assert found["exact_match"]["overall"] > report["exact_match"]["overall"]
        assert report["best_control"] != "resnet1d"
        difference = found["difference"]["macro_auc"]["overall"]
        assert difference["value"] == pytest.approx(np.mean(aucs(files["model"])) - np.mean(aucs(files["resnet1d"])))
        assert difference == report["labels"]["differences"]["resnet1d"]["overall"]
        correct = [
            [row["prediction"].lower() == row["answer"][0].lower() for row in read(files[name])]
            for name in ("model", "resnet1d")
        ]
        expected = paired_difference(*correct, [row["ecg_id"][0] for row in ROWS], n_resamples=200)
        assert found["difference"]["exact_match"] == {"value": expected.difference, "ci95": list(expected.ci95)}

    def test_groups(self, report):
        sex = report["groups"]["sex"]["groups"]
        assert {name: one["n"] for name, one in sex.items()} == {"female": 60, "male": 60}
        assert list(report["groups"]["age"]["groups"]) == ["under 40", "40 to 59", "60 to 79"]
        assert sex["male"]["macro_auc"]["labels"] == 2 and report["groups"]["site"]["groups"] == {}

    def test_statements_of_the_reports_alone(self, report):
        found = report["statements"]
        assert found["n"] == 30 and set(found["labels"]) == {"left bundle branch block", "sinus rhythm"}
        assert set(found["systems"]) == {"model", "majority", "shuffled", "zero_signal", "resnet1d"}
        assert found["systems"]["shuffled"]["by_label"]["left bundle branch block"]["recall"] == 0.0
        model = found["systems"]["model"]["micro_f1"]["value"]
        assert found["systems"]["shuffled"]["micro_f1"]["value"] < model < 1.0

    def test_a_written_report_is_right_when_it_is_the_same_text(self, report):
        rows = [row for row in read_rows(report) if row["template_id"] == 2001]
        same = [row["prediction"].lower() == row["answer"][0].lower() for row in rows]
        assert report["exact_match"]["by_type"]["report"]["value"] == np.mean(same)

    def test_it_is_json(self, report, prepared):
        assert "NaN" not in json.dumps(report)
        assert report["provenance"]["arguments"]["systems"]["resnet1d"].endswith("resnet.jsonl")


def read_rows(report):
    from pathlib import Path

    return read(Path(report["provenance"]["arguments"]["predictions"]))


class TestTables:
    def test_terminal(self, report):
        lines = report_table(report).splitlines()
        assert lines[0].split()[-4:] == ["majority", "shuffled", "zero_signal", "resnet1d"]
        macro = next(line for line in lines if line.startswith("macro AUC, form (2 of 3 labels)"))
        ours = report["labels"]["systems"]["model"]["macro_auc"]["value"]
        assert macro.split()[7:9] == ["90", f"{100 * ours:.1f}"]
        assert any(line.startswith("statements, micro F1") for line in lines)
        assert lines[-1] == "resnet1d is another system on the same questions, no control"

    def test_markdown(self, report):
        text = report_markdown(report)
        headings = [line for line in text.splitlines() if line.startswith("#")]
        assert headings == [
            "# Exact match on split test",
            "## Labels: form",
            "## Calibration",
            "## Other systems",
            "## Groups of records",
            "## Statements of reports",
        ]
        assert "Left out: never." in text and "| sex: female | 60 | 15 |" in text
        for line in text.splitlines():
            assert not line.startswith("|") or line.endswith("|")

    def test_groups_that_nobody_knows(self, report):
        text = report_markdown({**report, "groups": {"note": "not known: nothing"}})
        assert "## Groups of records\n\nNot known: nothing.\n" in text


class TestHubFiles:
    def test_eval_results_are_what_the_hub_client_reads(self, report):
        entries = eval_results(
            report, dataset_id="user/ecg-qa", revision="abc", date="2030-01-02", source_url="https://x"
        )
        parsed = {entry.task_id: entry for entry in parse_eval_result_entries(entries)}
        assert set(parsed) == {"exact_match", "exact_match_single-verify", "exact_match_report", "macro_auc_form"}
        assert parsed["exact_match"].value == report["exact_match"]["overall"]
        macro = report["labels"]["systems"]["model"]["by_attribute"]["form"]["macro_auc"]
        assert parsed["macro_auc_form"].value == macro["value"]
        first = entries[0]
        assert first["dataset"] == {"id": "user/ecg-qa", "task_id": "exact_match", "revision": "abc"}
        assert (first["date"], first["source"]) == ("2030-01-02", {"url": "https://x"})
        assert first["notes"].startswith("split test, n=120, 95 % interval ") and "best control" in first["notes"]
        assert yaml.safe_load(yaml.safe_dump(entries)) == entries
        assert "n=90" in parsed["macro_auc_form"].notes

    @pytest.mark.parametrize("name", ["ecg-qa", "user/ecg qa", "a/b/c", ""])
    def test_a_name_that_is_none(self, report, name):
        with pytest.raises(EcgDataError, match="expected USER/NAME"):
            eval_results(report, dataset_id=name)

    def test_model_index_has_the_macro_auc(self, report):
        metrics = model_index(report, model_name="m", data_set="d")["model-index"][0]["results"][0]["metrics"]
        (macro,) = [one for one in metrics if one["type"] == "roc_auc"]
        assert macro["args"]["labels"] == 2 and macro["name"] == "macro AUC, form"

    def test_files(self, report, tmp_path):
        results = eval_results(report, dataset_id="user/ecg-qa")
        written = write_report_files(report, tmp_path / "r.json", data_set="d", results=results)
        assert [path.name for path in written] == ["r.md", "r.calibration.png", "r.eval_results.yaml"]
        assert written[1].read_bytes().startswith(b"\x89PNG")
        assert yaml.safe_load(written[2].read_text()) == results

    def test_without_matplotlib(self, report, tmp_path, monkeypatch, caplog):
        import sys

        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        written = write_report_files(report, tmp_path / "r.json", data_set="d")
        assert [path.name for path in written] == ["r.md"] and "ecgbyte-hf[plot]" in caplog.text


class TestRefusals:
    def test_names(self, prepared, files, tmp_path):
        for name in ("shuffled", "majority", "model"):
            with pytest.raises(EcgDataError, match=f"a system named {name}"):
                evaluate_predictions(
                    prepared,
                    files["model"],
                    controls={},
                    systems={name: files["resnet1d"]},
                    output=tmp_path / "r.json",
                )

    def test_other_questions(self, prepared, files, tmp_path):
        part = write_predictions(tmp_path / "part.jsonl", read(files["resnet1d"])[:-1])
        with pytest.raises(EcgDataError, match=r"part.jsonl does not answer the questions of"):
            evaluate_predictions(
                prepared, files["model"], controls={}, systems={"r": part}, output=tmp_path / "r.json"
            )

    def test_scores_of_a_part(self, prepared, files, tmp_path):
        rows = read(files["resnet1d"])
        del rows[0]["option_logprobs"]
        part = write_predictions(tmp_path / "part.jsonl", rows)
        with pytest.raises(EcgDataError, match="1 of the 90 yes/no questions that bigram answered"):
            evaluate_predictions(
                prepared,
                files["model"],
                controls={},
                systems={"bigram": part},
                output=tmp_path / "r.json",
                with_rule=False,
                n_resamples=5,
            )


class TestCommand:
    def test_whole(self, prepared, files, tmp_path, capsys):
        given = [
            "--data",
            prepared.folder,
            "--predictions",
            files["model"],
            "--system",
            f"resnet1d={files['resnet1d']}",
        ]
        hub = ["--dataset-id", "user/ecg-qa", "--dataset-revision", "abc", "--model-name", "m"]
        phrases = tmp_path / "phrases.csv"
        phrases.write_text("label,phrase\nblock,lbbb\n")
        more = ["--output", tmp_path / "r.json", "--no-rule", "--resamples", 20, "--statements", phrases]
        assert cli.main(["evaluate", *map(str, [*given, *hub, *more])]) == 0
        assert "macro AUC, form" in capsys.readouterr().out
        report = json.loads((tmp_path / "r.json").read_text())
        assert list(report["statements"]["labels"]) == ["block"]
        (first, *_) = yaml.safe_load((tmp_path / "r.eval_results.yaml").read_text())
        assert first["dataset"]["revision"] == "abc" and first["value"] == report["exact_match"]["overall"]

    @pytest.mark.parametrize(
        "given, code, message",
        [
            (["--system", "resnet"], 2, "--system 'resnet' is not NAME=FILE"),
            (["--dataset-revision", "abc"], 2, "need --dataset-id"),
            (["--dataset-id", "ecg-qa"], 1, "expected USER/NAME"),
            (["--control", "majority=x"], 2, "--control 'majority=x' is not NAME=FILE"),
        ],
    )
    def test_refusals(self, given, code, message, tmp_path, capsys):
        needed = ["--data", "d", "--predictions", "p", "--output", str(tmp_path / "r.json")]
        assert cli.main(["evaluate", *needed, *given]) == code
        assert message in capsys.readouterr().err
