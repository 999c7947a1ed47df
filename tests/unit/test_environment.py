"""`ecgbyte env`: what it says, what it never says, and what it tries."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bpe_twin import encode_greedy

from ecgbyte_hf import cli, environment
from ecgbyte_hf.environment import Check, greedy_twin, missing_extras, range_warnings


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Make `ecgbyte-hf` look installed with the given requirements."""

    def install(*requirements: str) -> None:
        folder = tmp_path / "ecgbyte_hf-0.1.0.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.1", "Name: ecgbyte-hf", "Version: 0.1.0"]
        lines += [f"Requires-Dist: {requirement}" for requirement in requirements]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(tmp_path)

    return install


class TestRanges:
    """What is installed against what the package's own metadata wants."""

    def test_inside(self, installed):
        installed("numpy>=1.26", "ecgbyte-rust-bpe @ file:///somewhere/rust_bpe", 'scipy>=1; extra == "plot"')
        assert range_warnings() == []

    def test_outside(self, installed):
        installed("numpy<1", "no-such-package>=1", 'scipy>=100,<101; extra == "plot"', 'numpy>9; extra == "unknown"')
        assert range_warnings() == [
            f"numpy {np.__version__} is installed, expected <1",
            "no-such-package is not installed, and ecgbyte-hf needs it",
            f"scipy {environment._version('scipy')} is installed, expected <101,>=100",
        ]

    def test_what_is_missing_and_what_for(self, installed):
        installed('no-such-package>=1; extra == "eval"', 'numpy>=1; extra == "eval"', "numpy")
        extras = missing_extras()
        assert extras["eval"] == {"for": "`ecgbyte evaluate --text-metrics`", "missing": ["no-such-package"]}
        assert extras["plot"]["missing"] == []

    def test_every_extra_of_the_distribution_is_known(self):
        """An extra without a purpose would never be named."""
        text = Path(__file__).parents[2].joinpath("setup.py").read_text()
        named = set(re.findall(r'^    "(\w+)": \[', text, re.MULTILINE)) | set(
            re.findall(r'EXTRAS\["(\w+)"\] =', text)
        )
        assert named - {"all", "test"} == set(environment.EXTRAS)


class TestReport:
    """The report for people and as JSON."""

    def test_lines(self, capsys):
        assert cli.main(["env"]) == 0
        text = capsys.readouterr().out
        assert f"numpy                {np.__version__}" in text and "Hub                  token: " in text
        assert "cpu: " in text and "bf16: " in text

    def test_no_secret(self, monkeypatch, capsys):
        monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnopqrstuvwx")
        monkeypatch.setenv("WANDB_API_KEY", "0123456789secret")
        assert cli.main(["env", "--json", "--cache"]) == 0
        text = capsys.readouterr().out
        found = json.loads(text)
        assert found["hub"]["token"] is True and found["cache_bytes"]["built data sets"] >= 0
        assert "abcdefghij" not in text and "secret" not in text
        assert cli.main(["env"]) == 0
        assert "abcdefghij" not in capsys.readouterr().out

    def test_without_a_token(self, monkeypatch, tmp_path):
        import huggingface_hub

        monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
        assert environment._hub()["token"] is False


class TestCheck:
    """What `--check` tries."""

    def test_all_passes_here(self, capsys):
        assert cli.main(["env", "--check"]) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("passed", "FAILED"))]
        assert lines[0].startswith("passed  core: 50 merges, 4 records")
        assert any(line.startswith("passed  cpu, float32: forward and backward, loss 4.") for line in lines)

    def test_a_failure_is_exit_code_1(self, monkeypatch, capsys):
        def broken(*_):
            raise RuntimeError("CUDA error:\nno kernel image")

        monkeypatch.setattr(environment, "check_device", broken)
        assert cli.main(["env", "--check", "--json"]) == 1
        checks = json.loads(capsys.readouterr().out)["checks"]
        assert checks[0]["passed"] and not checks[1]["passed"]
        assert checks[1]["detail"] == "RuntimeError: CUDA error: no kernel image"

    def test_a_core_that_errs_is_found(self, monkeypatch):
        monkeypatch.setattr(environment, "greedy_twin", lambda *_: [])
        found = environment._tried("core", environment.check_core)
        assert found == Check("core", False, "ArithmeticError: the core's greedy ids are not those of its twin")

    def test_the_twin_is_the_definition(self):
        rng = np.random.default_rng(1)
        merges = [(0, 1), (26, 0), (1, 1), (27, 28)]
        for _ in range(20):
            symbols = rng.integers(0, 3, 40).tolist()
            assert greedy_twin(symbols, merges) == encode_greedy(symbols, merges)

    def test_without_torch(self):
        """In a process of its own: an import that fails once stays failed."""
        code = (
            "import sys; sys.modules['torch'] = None\n"
            "from ecgbyte_hf.environment import check_environment, devices\n"
            "assert devices() == []\n"
            "print([one.line() for one in check_environment({'devices': []})][-1])"
        )
        made = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
        )
        assert made.stdout.strip() == "FAILED  devices: torch is not installed"
