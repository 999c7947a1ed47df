"""`ecgbyte demo`: the model must have learnt from the signal, within the promised time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    # Not through this process' OMP_NUM_THREADS=1: the demo is meant for both cores.
    command = f"unset OMP_NUM_THREADS; exec {Path(sys.executable).with_name('ecgbyte')} demo --output {folder}"
    finished = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-4000:]
    assert (folder / "table.txt").read_text() in finished.stdout
    return folder


@pytest.fixture(scope="module")
def report(demo: Path) -> dict:
    return json.loads((demo / "report.json").read_text())


def test_overall_beats_every_control_by_15_points(report: dict) -> None:
    assert set(report["controls"]) == {"majority", "question_only", "zero_signal", "shuffled"}
    assert report["exact_match"]["overall"] - max(report["controls"].values()) >= 0.15
    assert report["difference_to_best_control"]["ci95"][0] > 0.0


@pytest.mark.parametrize("attribute", ["rate", "st", "qrs_width"])
def test_attribute_beats_its_best_control(report: dict, attribute: str) -> None:
    assert report["by_attribute_against_best_control"][attribute]["difference_to_best_control"]["ci95"][0] > 0.0


def test_controls_know_nothing(report: dict) -> None:
    """Answers without the right ECG stay near what chance gives on balanced classes."""
    assert max(report["controls"].values()) < 0.6


def test_report_states_its_parts(report: dict) -> None:
    assert report["tokens_per_ecg"] <= 300
    assert report["compression"] > 3
    assert set(report["exact_match"]["by_type"]) == {"single-verify", "single-choose", "single-query"}
    low, high = report["exact_match"]["ci95"]
    assert low <= report["exact_match"]["overall"] <= high
    assert report["provenance"]["versions"]["trl"]


def test_folders_can_be_loaded_by_the_stock_classes(demo: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(demo / "ecg-llm")
    model = AutoModelForCausalLM.from_pretrained(demo / "ecg-llm")
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
    ecg = AutoTokenizer.from_pretrained(demo / "ecg-byte")
    assert f"<|ecg_{ecg.num_ecg_tokens - 1}|>" in tokenizer.get_vocab()
    assert (demo / "ecg-llm" / "ecg_byte" / "ecg_byte.json").read_bytes() == (
        demo / "ecg-byte" / "ecg_byte.json"
    ).read_bytes()


def test_the_figure_is_there(demo: Path) -> None:
    assert (demo / "tokens.png").read_bytes().startswith(b"\x89PNG")
