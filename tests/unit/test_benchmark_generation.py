"""The benchmark of generation: its ways answer the same, a difference is counted, its table is what was measured."""

import importlib.util
import json
import os
import re
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark" / "generation.py"
SMALL = "--ecgs 2 --questions 3 --ecg-tokens 20 --new-tokens 3 --hidden-size 32 --layers 1 --vocabulary 99 --repeat 2"


def load_script():
    spec = importlib.util.spec_from_file_location("benchmark_generation", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    # The script sets the number of threads for its own process.
    with patch.dict(os.environ):
        spec.loader.exec_module(module)
    return module


benchmark = load_script()


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The folder that the script leaves."""
    folder = tmp_path_factory.mktemp("generation")
    threads = torch.get_num_threads()
    try:
        assert benchmark.main([*SMALL.split(), "--output", str(folder)]) == 0
    finally:
        torch.set_num_threads(threads)
    return folder


def test_what_is_written(measured):
    results = json.loads((measured / "generation.json").read_text())
    assert results["questions"] == 6
    assert {name: len(rounds) for name, rounds in results["rounds_s"].items()} == dict.fromkeys(benchmark.LABELS, 2)
    assert results["answers_that_differ"] == dict.fromkeys(benchmark.LABELS, 0)
    assert results["provenance"]["arguments"]["ecg_tokens"] == 20
    assert str(measured) not in (measured / "generation.json").read_text()


def test_the_table(measured, capsys):
    text = (measured / "generation.md").read_text()
    for label in benchmark.LABELS.values():
        assert re.search(rf"\| {label} \| [0-9.]+ \| [0-9.]+ \| [0-9]+ MB \| 0 of 12 \|", text)
    assert "one prompt after another | " in text and "| 1.0 |" in text
    assert benchmark.main(["--from-json", str(measured / "generation.json")]) == 0
    assert capsys.readouterr().out == text == (measured / "generation.md").read_text()


def test_every_answer_has_all_its_tokens_and_differences_are_counted():
    options = benchmark.parser().parse_args(SMALL.split())
    model = benchmark.random_model(options)
    ways = benchmark.ways_of(model, benchmark.prompts_of(options), options.new_tokens)
    answers = ways["separate"]()
    assert [len(answer) for answer in answers] == [3] * 6
    assert len({tuple(answer) for answer in answers}) > 3
    wrong = [[*answers[0][:-1], answers[0][-1] + 1], *answers[1:]]
    raced = benchmark.race({"separate": lambda: answers, "shared": lambda: wrong}, 3)
    assert raced["answers_that_differ"] == {"separate": 0, "shared": 3}
