"""The README's commands on real PTB-XL records and ECG-QA questions, with a tiny random model.

With so few records the score proves nothing; that every step takes real input does.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SPLITS = ("test", "validation", "train_patient_disjoint")
RECIPE = Path(__file__).parents[2] / "scripts" / "recipes" / "trl_sft_paper.yaml"


def run(*command: object) -> str:
    """Run one command in a process of its own, as a user would; fail with what it printed."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "2"}
    finished = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=environment, check=False
    )
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-4000:]
    return finished.stdout


def script(name: str) -> Path:
    return Path(sys.executable).with_name(name)


@pytest.fixture(scope="module")
def trained(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data, tokenizer, extended model and adapter in one folder."""
    folder = tmp_path_factory.mktemp("real")
    ecgbyte = script("ecgbyte")
    run(
        *(ecgbyte, "prepare", "ecg_qa", "--data-dir", test_data / "ecg_qa" / "ecgqa"),
        *("--signals-dir", test_data / "ptbxl", "--metadata", test_data / "ptbxl" / "ptbxl_database.csv"),
        *(test_data / "ptbxl" / "ptbxl_database_extra_rows.csv", "--held-out-fraction", 0.25),
        *("--output", folder / "prepared"),
    )
    run(
        *(ecgbyte, "train-tokenizer", "--data", folder / "prepared", "--num-merges", 3500),
        *("--output", folder / "ecg-byte"),
    )
    run(
        *(ecgbyte, "extend-llm", "--tiny-from", folder / "prepared", "--tokenizer", folder / "ecg-byte"),
        *("--output", folder / "base"),
    )
    run(ecgbyte, "encode", "--data", folder / "prepared", "--model", folder / "base", "--output", folder / "rows")
    run(
        *(script("trl"), "sft", "--config", RECIPE, "--model_name_or_path", folder / "base"),
        *("--dataset_name", folder / "rows", "--output_dir", folder / "sft", "--max_steps", 3),
        *("--per_device_train_batch_size", 1, "--bf16", "false", "--dtype", "float32", "--use_cpu", "true"),
        *("--gradient_checkpointing", "false", "--eval_strategy", "no", "--save_strategy", "no"),
        *("--load_best_model_at_end", "false"),
    )
    return folder


def test_records_and_splits(trained: Path) -> None:
    report = json.loads((trained / "prepared" / "report.json").read_text())
    # Of the 180 at hand, those that a question refers to: 145, less the few of straddling comparisons alone.
    assert report["records"] == report["records_asked_about"] and 130 < report["records"] <= 145
    assert report["refused"] == []
    assert report["questions_without_their_record"] == dict.fromkeys(report["questions"], 0)
    held = report["questions"]
    straddling = report["questions_straddling_held_out_part"]
    assert held["train"] + held["train_patient_disjoint"] + straddling == 335
    assert (held["validation"], held["test"]) == (38, 22)
    for pair, shared in report["overlap"].items():
        if pair != "unknown_patients":
            assert shared == {"ecgs": [], "patients": []}, pair


def test_tokenizer_fits_held_out_records(trained: Path) -> None:
    report = json.loads((trained / "ecg-byte" / "training.json").read_text())
    assert report["held_out"] is True
    assert report["round_trip"] == 1.0
    assert report["merges"] == 3500
    assert report["max_error_mv"] <= report["half_bin_mv"] + 1e-9
    assert 5.0 < report["compression"] < 40.0


def test_no_answer_is_cut(trained: Path) -> None:
    from datasets import load_dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(trained / "base")
    rows = load_dataset(str(trained / "rows"), cache_dir=str(trained / "cache"))
    for split in ("train", "validation"):
        lengths = [len(tokenizer(row["prompt"] + row["completion"])["input_ids"]) + 1 for row in rows[split]]
        assert max(lengths) <= 1024
        assert min(lengths) > 500  # the ECG takes what the text leaves
    assert json.loads((trained / "rows" / "encode.json").read_text())["splits"]["train"]["rows"] == len(rows["train"])


def test_the_answers_are_scored(trained: Path) -> None:
    ecgbyte = script("ecgbyte")
    seen_types = set()
    for split in SPLITS:
        files = {}
        for view in ("true", "shuffled", "zero_signal"):
            files[view] = trained / f"{split}-{view}.jsonl"
            run(
                *(ecgbyte, "generate", "--model", trained / "sft", "--data", trained / "prepared"),
                *("--split", split, "--view", view, "--output", files[view], "--max-new-tokens", 4),
            )
        table = run(
            *(ecgbyte, "evaluate", "--data", trained / "prepared", "--predictions", files["true"]),
            *("--control", f"shuffled={files['shuffled']}", "--control", f"zero_signal={files['zero_signal']}"),
            *("--output", trained / f"{split}.json", "--resamples", 200, "--num-proc", 2),
        )
        report = json.loads((trained / f"{split}.json").read_text())
        prepared = json.loads((trained / "prepared" / "report.json").read_text())
        assert report["exact_match"]["n"] == prepared["questions"][split]
        assert set(report["controls"]) == {"majority", "shuffled", "zero_signal"}
        assert report["controls"]["majority"]["n"] == report["exact_match"]["n"]
        assert "majority" in table and "all" in table
        seen_types |= set(report["exact_match"]["by_type"])
    assert seen_types == {"comparison_irrelevant-query", "single-verify"}


def test_one_question_about_one_file(trained: Path, test_data: Path) -> None:
    record = test_data / "ptbxl" / "records500" / "00000" / "00001_hr"
    answer = run(
        *(script("ecgbyte"), "generate", "--model", trained / "sft", "--record", record),
        *("--question", "Is the rhythm regular?", "--max-new-tokens", 4),
    )
    assert answer.endswith("\n")
