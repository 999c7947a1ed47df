"""The benchmark of cleaning: the ways it times do the same, and its tables say what was measured."""

import importlib.util
import json
import os
import re
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

import rust_bpe

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark" / "cleaning.py"


def load_script():
    spec = importlib.util.spec_from_file_location("benchmark_cleaning", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    # The script sets the number of threads for its own process.
    with patch.dict(os.environ):
        spec.loader.exec_module(module)
    return module


benchmark = load_script()


@pytest.fixture(scope="module")
def records():
    return benchmark.simulated_records(3, seed=5)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The folder that the script leaves."""
    folder = tmp_path_factory.mktemp("cleaning")
    arguments = ["--records", "2", "--compared", "3", "--repeat", "2", "--output", str(folder)]
    assert benchmark.main(arguments) == 0
    return folder


@pytest.mark.parametrize("step", ["filters", "shrinkage", "spline", "whole"])
def test_the_ways_do_the_same(records, step):
    signal = benchmark.signal_of(records[0])
    plain = benchmark.plain_steps()[step](signal)
    for ours in (benchmark.scipy_steps(), benchmark.rust_steps()):
        assert ours[step](signal).shape == plain.shape
        np.testing.assert_allclose(ours[step](signal), plain, rtol=0, atol=1e-6)


def test_differences_are_found(records, monkeypatch):
    found = benchmark.differences(records)
    assert found["records"] == 3
    assert max(value for name, value in found.items() if name != "records") < 1e-6
    whole = benchmark.whole_of_ours
    monkeypatch.setattr(benchmark, "whole_of_ours", lambda signal: whole(signal) + 0.25)
    assert benchmark.differences(records)["ours_scipy"] == pytest.approx(0.25, abs=1e-3)
    assert benchmark.differences(records)["ours_rust"] == pytest.approx(0.25, abs=1e-3)


def test_symbols_are_the_tokenizer_s():
    signal = np.random.default_rng(0).normal(size=(2, 12, 500)).astype(np.float32)
    for signals in signal:
        expected = rust_bpe.quantize(signals, -1.5, 1.25, num_symbols=26)
        np.testing.assert_array_equal(benchmark.symbols_of(signals, -1.5, 1.25), expected)


def test_profiles_differ_where_they_differ(records, monkeypatch):
    compared = benchmark.compare_profiles(records)
    assert compared["records"] == 3
    assert compared["symbols_per_record"] == 30_000
    assert 0 < compared["median_mv"] < compared["p99.9_mv"] <= compared["max_mv"] < 0.05
    assert 0 <= compared["median_flips"] <= compared["max_flips"] < 3_000

    class Same(benchmark.EcgByteFeatureExtractor):
        def __init__(self, profile):
            super().__init__("reference")

    monkeypatch.setattr(benchmark, "EcgByteFeatureExtractor", Same)
    same = benchmark.compare_profiles(records)
    assert (same["max_mv"], same["max_flips"]) == (0, 0)


def test_the_core_is_back_after_an_error():
    core = benchmark.cleaning._clean_in_rust
    with pytest.raises(RuntimeError), benchmark.rust_put_away():
        assert benchmark.cleaning._clean_in_rust is None
        raise RuntimeError
    assert benchmark.cleaning._clean_in_rust is core is not None


def test_milliseconds_are_per_signal():
    calls = []
    signals = [np.zeros(1)] * 4
    assert benchmark.milliseconds(calls.append, signals) >= 0
    assert len(calls) == 5


def test_what_is_written(measured):
    results = json.loads((measured / "cleaning.json").read_text())
    corpus = results["corpora"]["simulated"]
    assert corpus["records"] == 2
    for way in ("plain", "ours_scipy", "ours_rust"):
        assert {step: len(rounds) for step, rounds in corpus["rounds_ms"][way].items()} == dict.fromkeys(
            benchmark.STEPS, 2
        )
    assert results["provenance"]["arguments"]["repeat"] == 2
    assert "scipy" in results["provenance"]["versions"]
    assert set(results["first_call"]) == {"ours_scipy", "ours_rust"}
    assert str(measured) not in (measured / "cleaning.json").read_text()


def test_the_table(measured, capsys):
    text = (measured / "cleaning.md").read_text()
    for step in benchmark.STEPS:
        assert re.search(rf"\| {step} \| [0-9.]+ \| [0-9.]+ \([0-9.]+\) \| [0-9.]+ \([0-9.]+\) \|", text)
    assert benchmark.main(["--from-json", str(measured / "cleaning.json")]) == 0
    assert capsys.readouterr().out == text == (measured / "cleaning.md").read_text()


def test_the_table_without_the_core():
    rounds = {
        "plain": dict.fromkeys(benchmark.STEPS, [10.0, 30.0, 20.0]),
        "ours_scipy": dict.fromkeys(benchmark.STEPS, [5.0]),
        "ours_rust": {},
    }
    assert benchmark.step_table(rounds)[2] == "| filters | 20.00 | 5.00 (4.0) |"
    assert "Rust" not in benchmark.difference_line({"records": 1, "ours_scipy": 0.0})


def test_refused_records_are_counted(tmp_path, capsys):
    (tmp_path / "broken.hea").write_text("not a header\n")
    assert benchmark.real_records(tmp_path, 5) == []
    assert "0 records, 1 refused" in "".join(capsys.readouterr())
