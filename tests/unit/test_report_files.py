"""The Markdown table and the `model-index` block of a small report."""

import pytest
import yaml

from ecgbyte_hf.evaluation.report_files import (
    eval_results,
    markdown_path,
    model_index,
    report_markdown,
    write_report_files,
)
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError


def match(overall, verify):
    group = {"value": verify, "n": 3, "ci95": [0.1, 0.9]}
    return {
        "overall": overall,
        "n": 6,
        "ci95": [0.25, 0.75],
        "by_type": {"single-verify": group},
        "by_attribute": {"a|b": group},
    }


@pytest.fixture
def report():
    samples = {"bleu_4": 0.125, "token_f1": 0.5}
    text = {
        "n": 6,
        "paper_per_sample": samples,
        "perfect_answers": {"paper_per_sample": samples},
        "corpus_level": {},
        "left_out": {},
    }
    return {
        "split": "test",
        "exact_match": match(0.5, 0.4),
        "controls": {"majority": match(0.4, 0.1), "shuffled": match(0.3, 0.2)},
        "best_control": "majority",
        "answers_at_limit": {"model": 2},
        "rule": {"n": 2, "model_on_the_same": match(0.5, 0.5), "exact_match": match(1.0, 1.0)},
        "text_metrics": {name: text for name in ("model", "majority", "shuffled")},
    }


def test_markdown(report):
    lines = report_markdown(report).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table[:3] == [
        "| questions | n | model | 95 % interval | majority | shuffled |  |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| all | 6 | 50.0 | 25.0 to 75.0 | 40.0 | 30.0 |  |",
    ]
    assert table[4] == "| a\\|b | 3 | 40.0 | 10.0 to 90.0 | 10.0 | 20.0 |  |"
    assert table[5] == "| where a rule applies | 2 | 50.0 | 25.0 to 75.0 |  |  | rule 100.0 |"
    assert table[6] == "| BLEU-4 per answer | 6 | 12.5 | perfect: 12.5 | 12.5 | 12.5 |  |"
    assert lines[-1] == "- 2 answers of model were cut off at max_new_tokens"


def test_model_index(report):
    """Each question type has its own best control."""
    (model,) = model_index(report, model_name="ecg-llm", data_set="ecg_qa")["model-index"]
    (result,) = model["results"]
    assert model["name"] == "ecg-llm" and result["task"] == {"type": "question-answering"}
    assert result["dataset"] == {"name": "ecg_qa", "type": "ecg_qa", "split": "test"}
    overall, verify, bleu, f1 = result["metrics"]
    assert overall["value"] == 0.5 and overall["args"] == {
        "n": 6,
        "ci95": [0.25, 0.75],
        "best_control": "majority",
        "best_control_value": 0.4,
    }
    assert verify["name"] == "exact match, single-verify" and verify["value"] == 0.4
    assert (verify["args"]["best_control"], verify["args"]["best_control_value"]) == ("shuffled", 0.2)
    assert (bleu["type"], bleu["value"], bleu["args"]["convention"]) == ("bleu", 0.125, "paper_per_sample")
    assert (f1["type"], f1["value"]) == ("f1", 0.5)


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ({"view": "shuffled", "perturbations": []}, "shuffled"),
        ({"view": "true", "perturbations": ["noise=0.1"]}, "signals that were made worse"),
        ({"view": "true", "perturbations": []}, None),
        (None, None),
    ],
)
def test_scores_of_a_control_are_not_the_model_s(report, tmp_path, asked, shown):
    report["provenance"] = {"model": asked}
    for write in (
        lambda: model_index(report, model_name="m", data_set="d"),
        lambda: eval_results(report, dataset_id="user/d"),
        lambda: write_report_files(report, tmp_path / "report.json", data_set="d", model_name="m"),
    ):
        if shown is None:
            assert write()
            continue
        with pytest.raises(EcgDataError, match=f"given to {shown}, not to the ECGs themselves"):
            write()
    assert write_report_files(report, tmp_path / "report.json", data_set="d")


def test_files(report, tmp_path):
    output = tmp_path / "report.json"
    assert [path.name for path in write_report_files(report, output, data_set="d")] == ["report.md"]
    table, index = write_report_files(report, output, data_set="d", model_name="m")
    assert table.read_text() == report_markdown(report)
    assert yaml.safe_load(index.read_text()) == model_index(report, model_name="m", data_set="d")
    assert index.name == "report.model_index.yaml"


def test_the_table_may_not_take_the_place_of_the_report():
    with pytest.raises(EcgDataError, match=r"got report.md for the JSON report"):
        markdown_path("report.md")
