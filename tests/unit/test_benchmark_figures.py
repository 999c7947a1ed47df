"""The benchmark of figures: its commands are commands, it measures what it says, its table is what was measured."""

import importlib.util
import json
import os
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from attribution_models import LEADS, RATE, make_model, record

from ecgbyte_hf.cli import build_parser

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark" / "figures.py"
RESULTS = SCRIPT.parent / "results"


def load_script():
    spec = importlib.util.spec_from_file_location("benchmark_figures", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    # The script sets the number of threads, and where modules are found, for its own process.
    with patch.dict(os.environ), patch.object(sys, "path", list(sys.path)):
        spec.loader.exec_module(module)
    return module


benchmark = load_script()


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("recording") / "one.csv"
    signal = record(3).signal.astype(np.float64)
    np.savetxt(path, signal.T, delimiter=",", header=",".join(LEADS), comments="")
    return path


def test_every_command_is_one_of_ecgbyte(tmp_path):
    given = ["--data", "prepared", "--recording", "00001_hr", "--work", str(tmp_path), "--layers", "3"]
    commands = benchmark.commands_of(benchmark.parser().parse_args(given))
    assert len(commands) > 12
    methods = set()
    for words, made in commands.values():
        options = build_parser()[0].parse_args(words)
        assert options.output == made and Path(made).parent == tmp_path / "figures"
        methods |= set(getattr(options, "method", ()))
        assert getattr(options, "layer", None) in (None, 2)
    assert len({made for _, made in commands.values()}) == len(commands)
    assert {"attention", "paper", "rollout", "gradient_x_input", "integrated_gradients"} <= methods


def test_a_command_is_timed_and_a_failed_one_is_no_result(recording, tmp_path):
    made = tmp_path / "a.png"
    words = ["plot", "ecg", "--record", str(recording), "--sampling-rate", str(RATE), "--units", "mV"]
    result = benchmark.run_command([*words, "--output", str(made)], str(made))
    assert result["file_bytes"] == made.stat().st_size
    assert 0.0 < result["seconds"] < 60.0 and result["peak_bytes"] > 50e6
    with pytest.raises(RuntimeError, match="ecgbyte plot ecg ended with 1"):
        benchmark.run_command([*words, "--seconds", "99", "--output", str(made)], str(made))


def test_a_map_alone(tmp_path):
    import wfdb

    signal = record(3).signal.T.astype(np.float64)
    names = {"units": ["mV"] * 2, "sig_name": list(LEADS), "fmt": ["16"] * 2}
    wfdb.wrsamp("one", fs=RATE, p_signal=signal, write_dir=str(tmp_path), **names)
    model, threads = make_model(tmp_path), torch.get_num_threads()
    try:
        result = benchmark.run_map(str(model), str(tmp_path / "one"), "gradient_x_input", 2)
    finally:
        torch.set_num_threads(threads)
    assert result["samples"] == [2, 200] and 0 < result["ecg_tokens"] < result["tokens"]
    assert result["seconds"] > 0.0 and result["memory_bytes"] >= 0 and result["model_bytes"] > 1e5


def test_the_table_is_that_of_the_numbers(tmp_path, capsys):
    stored = RESULTS / "figures.json"
    copy = tmp_path / "figures.json"
    copy.write_text(stored.read_text())
    assert benchmark.main(["--from-json", str(copy)]) == 0
    text = (RESULTS / "figures.md").read_text()
    assert capsys.readouterr().out == (tmp_path / "figures.md").read_text() == text
    assert "/tmp" not in stored.read_text() + text and "failed" not in text and "limit" not in text
    results = json.loads(stored.read_text())
    known = results["maps"]["4"]["attention"]["result"]
    assert known["samples"] == [12, 2500] and 1900 < known["ecg_tokens"] < 2100


def test_memory_does_not_grow_with_the_layers_but_by_their_inputs():
    """Of the stored results: 12 more layers hold 12 more inputs where gradients are, of 2,009 x 512 float32."""
    maps = json.loads((RESULTS / "figures.json").read_text())["maps"]
    inputs = 12 * 4 * 512 * maps["4"]["attention"]["result"]["tokens"]
    for method, sequences in (("attention", 0), ("gradient_x_input", 1), ("integrated_gradients", 2)):
        few, many = (maps[depth][method]["result"]["memory_bytes"] for depth in ("4", "16"))
        assert many - few < sequences * inputs + 20e6
