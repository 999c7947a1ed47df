"""The benchmark of training: what it counts, and that its table says what was measured."""

import importlib.util
import os
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark" / "training.py"


def load_script():
    spec = importlib.util.spec_from_file_location("benchmark_training", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    with patch.dict(os.environ):
        spec.loader.exec_module(module)
    return module


benchmark = load_script()
finetuning = sys.modules["contest.finetuning"]


def test_steps_count_what_lies_behind_the_warm_up():
    steps = finetuning.Steps("cpu", 1, pad_token_id=0, eos_token_id=2)
    ids = torch.tensor([[5, 6, 2, 0], [7, 8, 9, 2]])
    labels = torch.tensor([[-100, 6, 2, -100], [-100, -100, 9, 2]])
    for _ in range(4):  # the loader is one batch ahead
        assert steps.count({"input_ids": ids, "labels": labels})["labels"] is labels
    steps.ends = [(10.0, 1.0), (12.0, 2.0), (15.0, 4.5)]
    report = steps.report()
    assert report.pop("peak_bytes") >= 0
    assert report == {
        "steps": 2,
        "seconds": 5.0,
        "cpu_seconds": 3.5,
        "positions": 16,
        "useful_tokens": 14,
        "questions": 4,
    }


def test_the_table():
    counted = {"steps": 2, "seconds": 9.0, "cpu_seconds": 2.0, "positions": 100, "useful_tokens": 90}
    ways = {
        "plain_padded": {"status": "ok", "result": {**counted, "questions": 4, "peak_bytes": 5_000_000}},
        "trl_packed": {"status": "limit", "reason": "over the limit of 3 s"},
        "shared_prefix": {"status": "ok", "result": {**counted, "questions": 28, "peak_bytes": 7_000_000}},
    }
    given = vars(benchmark.parser().parse_args([]))
    results = {
        "provenance": {"arguments": given},
        "machine": {"cpu": "a processor"},
        "rows": {
            name: {"questions": 60, "rows": 4, "longest_row_tokens": 99} for name in ("text", "grouped", "shared")
        },
        "ways": ways,
    }
    lines = benchmark.text_of(results).splitlines()
    assert lines[-3:] == [
        "| plain loop, padded to the full length | 2.00 | 1.0 | 45 | 10.0 % | 25 | 5 MB |",
        "| TRL, packed | over the limit of 3 s | | | | | |",
        "| `ecgbyte sft`, shared-prefix rows | 14.00 | 7.0 | 45 | 10.0 % | 4 | 7 MB |",
    ]


def test_steps_of_none_are_refused():
    with pytest.raises(SystemExit, match="at least 1"):
        benchmark.main(["--steps", "0"])
