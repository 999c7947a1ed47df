"""Fixtures for all tests."""

import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ecgbyte_hf.data.prepared import PreparedData


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Return the folder of real recordings, or skip: it is no part of the project."""
    folder = os.environ.get("ECGBYTE_TEST_DATA")
    if not folder:
        pytest.skip("ECGBYTE_TEST_DATA is not set")
    return Path(folder)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--allowed-skips",
        metavar="FILE",
        help="fail the run on any skip whose reason is not a line of this file",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests run last."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


class SkipGate:
    """Collects the reasons of skipped tests and fails the run on those that are not allowed."""

    def __init__(self, allowed: set[str]) -> None:
        self.allowed = allowed
        self.refused: list[str] = []

    def _look_at(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        longrepr = report.longrepr
        reason = longrepr[2].removeprefix("Skipped: ") if isinstance(longrepr, tuple) else str(longrepr)
        if reason not in self.allowed:
            self.refused.append(f"{report.nodeid}: {reason}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._look_at(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._look_at(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.refused and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.refused:
            terminalreporter.section("skips that are not allowed")
            for line in self.refused:
                terminalreporter.line(line)


def pytest_configure(config: pytest.Config) -> None:
    # A background job of a shell without job control ignores Ctrl-C, and so would all that tests start and interrupt.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    path = config.getoption("--allowed-skips")
    if path:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        allowed = {line for line in lines if line and not line.startswith("#")}
        config.pluginmanager.register(SkipGate(allowed), "skip-gate")


# Data sets that tests build are cached here and not in the user's home. Set before `datasets` is imported.
_DATASETS_CACHE = tempfile.mkdtemp(prefix="ecgbyte-tests-")
os.environ["HF_DATASETS_CACHE"] = _DATASETS_CACHE


def pytest_unconfigure() -> None:
    shutil.rmtree(_DATASETS_CACHE, ignore_errors=True)


@pytest.fixture(scope="session")
def small_prepared(tmp_path_factory: pytest.TempPathFactory) -> "PreparedData":
    """40 simulated ECGs of two leads at 100 Hz: 36 to train, 2 to validate, 2 to test; 15 questions about each."""
    from ecgbyte_hf.data.sources import prepare_synthetic
    from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor

    extractor = EcgByteFeatureExtractor(profile="none", sampling_rate=100, leads=["I", "aVF"])
    folder = tmp_path_factory.mktemp("small") / "prepared"
    return prepare_synthetic(folder, feature_extractor=extractor, num_records=40, seed=3)


@pytest.fixture(scope="session")
def small_ecg_byte(small_prepared: "PreparedData") -> Path:
    """The folder of a tokenizer with 60 merges learnt from `small_prepared`."""
    from ecgbyte_hf.training.train_tokenizer import train_tokenizer

    folder = small_prepared.folder.with_name("ecg-byte")
    train_tokenizer(small_prepared, folder, num_merges=60)
    return folder


@pytest.fixture(scope="session")
def small_llm(small_prepared: "PreparedData", small_ecg_byte: Path) -> Path:
    """The folder of a tiny random Llama with rows for that tokenizer; prompts of 384 tokens, so every ECG is cut."""
    from ecgbyte_hf.data.prompts import EcgPrompt
    from ecgbyte_hf.models.processing_ecg_byte import EcgByteProcessor
    from ecgbyte_hf.training.extend_llm import extend_llm
    from ecgbyte_hf.training.tiny_llm import make_tiny_llama, texts_of

    prompt = EcgPrompt(max_length=384, reserve=16)
    base = small_prepared.folder.with_name("tiny-llama")
    make_tiny_llama(
        base, texts_of(small_prepared, prompt), hidden_size=32, num_layers=2, num_heads=2, text_vocab_size=320
    )
    processor = EcgByteProcessor.from_pretrained(small_ecg_byte)
    return extend_llm(str(base), processor, small_prepared.folder.with_name("extended"), prompt=prompt).folder


@pytest.fixture(scope="session")
def lively_llm(small_llm: Path) -> Path:
    """The folder of `small_llm` with weights ten times as large, so that its answers differ and some of them end."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = shutil.copytree(small_llm, small_llm.with_name("lively"))
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(10.0)
        model.get_output_embeddings().weight[1] *= 3.0  # the end of sequence
    model.save_pretrained(folder)
    return folder
