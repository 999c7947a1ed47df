"""Registration with transformers' Auto classes, in fresh interpreters and with a small stand-in for transformers."""

import importlib
import importlib.resources
import importlib.util
import inspect
import json
import os
import subprocess
import sys
import threading
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

from ecgbyte_hf.models import auto

REPOSITORY = Path(__file__).parents[2]


def run_python(code: str, *arguments: str, cwd: Path) -> dict:
    """Run code in a fresh interpreter; it prints one line of JSON last."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# ---- the import hook, on modules of our own --------------------------------------------------------------------


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A package `stand_in_<n>` with a module `auto`, registered with by appending to `seen`."""
    name = f"stand_in_{tmp_path.name}".replace("-", "_")
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "auto.py").write_text("VALUE = 7\n\ndef answer():\n    return VALUE\n")
    seen: list = []
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(auto, "REGISTRATIONS", {f"{name}.auto": lambda module: seen.append(module.VALUE)})
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if not auto._is_ours(finder)])
    importlib.invalidate_caches()
    yield folder, f"{name}.auto", seen
    for module in [module for module in sys.modules if module.split(".")[0] == name]:
        del sys.modules[module]


def test_registers_when_imported_later(stand_in):
    _, name, seen = stand_in
    auto.register()
    assert seen == []
    module = importlib.import_module(name)
    assert seen == [7]
    importlib.import_module(name)
    assert seen == [7]
    assert type(module.__spec__.loader) is type(module.__loader__) is SourceFileLoader


def test_registers_at_once_when_imported_before(stand_in):
    _, name, seen = stand_in
    importlib.import_module(name)
    auto.register()
    assert seen == [7]


def test_reload_registers_anew_and_once(stand_in):
    folder, name, seen = stand_in
    auto.register()
    module = importlib.import_module(name)
    (folder / "auto.py").write_text("VALUE = 1234567\n")
    assert importlib.reload(module) is module
    assert importlib.reload(module) is module
    assert seen == [7, 1234567, 1234567]
    assert type(module.__spec__.loader) is type(module.__loader__) is SourceFileLoader


def test_imported_anew_after_removal(stand_in):
    _, name, seen = stand_in
    auto.register()
    importlib.import_module(name)
    del sys.modules[name]
    importlib.import_module(name)
    assert seen == [7, 7]


def test_registering_twice_leaves_one_finder(stand_in):
    _, name, seen = stand_in
    auto.register()
    auto.register()
    stale = type("_RegisterOnImport", (), {"__module__": auto.__name__})()
    sys.meta_path.insert(0, stale)
    auto.register()
    assert stale not in sys.meta_path
    assert sum(auto._is_ours(finder) for finder in sys.meta_path) == 1
    importlib.import_module(name)
    assert seen == [7]


def test_a_spec_that_is_only_looked_at_answers_like_its_own(stand_in):
    folder, name, seen = stand_in
    auto.register()
    spec = importlib.util.find_spec(name)
    assert seen == [] and name not in sys.modules
    assert isinstance(spec.loader, auto._RegisteringLoader)
    assert spec.origin == str(folder / "auto.py") == spec.loader.get_filename(name) == spec.loader.path
    assert spec.loader.is_package(name) is False
    assert "def answer" in spec.loader.get_source(name)
    assert spec.loader.get_code(name).co_filename == spec.origin
    assert spec.loader.get_data(spec.origin).startswith(b"VALUE")
    assert spec.loader.get_resource_reader(name) is not None
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        spec.loader.nothing_of_this_name  # noqa: B018
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert seen == [7] and type(module.__loader__) is SourceFileLoader


def test_source_and_resources_of_the_module(stand_in):
    _, name, _ = stand_in
    auto.register()
    module = importlib.import_module(name)
    assert inspect.getsource(module.answer) == "def answer():\n    return VALUE\n"
    files = importlib.resources.files(name.split(".")[0])
    assert (files / "auto.py").read_text().startswith("VALUE = 7")


def test_a_module_that_fails_to_import_fails_as_ever(stand_in):
    folder, name, seen = stand_in
    (folder / "auto.py").write_text("raise RuntimeError('its own')\n")
    auto.register()
    with pytest.raises(RuntimeError, match="its own"):
        importlib.import_module(name)
    assert seen == [] and name not in sys.modules


def test_module_that_another_thread_is_importing(stand_in):
    """`sys.modules` already holds it, half made: registration waits for the rest."""
    folder, name, seen = stand_in
    halfway, go_on = threading.Event(), threading.Event()
    sys.halfway_for_test, sys.go_on_for_test = halfway, go_on
    try:
        (folder / "auto.py").write_text(
            "import sys\nsys.halfway_for_test.set()\nassert sys.go_on_for_test.wait(20)\nVALUE = 7\n"
        )
        importer = threading.Thread(target=importlib.import_module, args=(name,))
        importer.start()
        assert halfway.wait(20) and name in sys.modules
        registrar = threading.Thread(target=auto.register)
        registrar.start()
        registrar.join(0.1)
        assert registrar.is_alive() and seen == []
        go_on.set()
        importer.join(20)
        registrar.join(20)
    finally:
        del sys.halfway_for_test, sys.go_on_for_test
    assert seen == [7]


# ---- transformers itself, in fresh interpreters ----------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A processor's folder, small."""
    from ecgbyte_hf import EcgByteFeatureExtractor, EcgByteProcessor, EcgByteTokenizer, EcgCalibration

    path = tmp_path_factory.mktemp("auto") / "ecg-byte"
    tokenizer = EcgByteTokenizer(merges=[(0, 0), (26, 1)], calibration=EcgCalibration("percentile", -1.0, 1.0))
    EcgByteProcessor(EcgByteFeatureExtractor(), tokenizer).save_pretrained(path)
    return path


def test_import_is_light(tmp_path):
    heavy = ("torch", "transformers", "tokenizers", "datasets", "scipy", "pywt", "rust_bpe", "numpy")
    code = f"import sys, json, ecgbyte_hf; print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    assert run_python(code, cwd=tmp_path) == []


CLASSES = """
import json, sys
folder = sys.argv[1]
names = ("AutoConfig", "AutoTokenizer", "AutoFeatureExtractor", "AutoProcessor")
def classes():
    return {name: type(getattr(transformers, name).from_pretrained(folder)).__name__ for name in names}
"""
EXPECTED = {
    "AutoConfig": "EcgByteConfig",
    "AutoTokenizer": "EcgByteTokenizer",
    "AutoFeatureExtractor": "EcgByteFeatureExtractor",
    "AutoProcessor": "EcgByteProcessor",
}


def test_auto_classes_when_transformers_came_first(folder, tmp_path):
    code = """
import transformers
for name in names:
    getattr(transformers, name)
import ecgbyte_hf
print(json.dumps(classes()))
"""
    assert run_python(CLASSES + code, str(folder), cwd=tmp_path) == EXPECTED


def test_auto_classes_when_ecgbyte_came_first(folder, tmp_path):
    code = """
import ecgbyte_hf, importlib
assert "transformers" not in sys.modules
import transformers
found = classes()
import transformers.pipelines
assert "ecg-question-answering" in transformers.pipelines.PIPELINE_REGISTRY.get_supported_tasks()
loaders = {type(sys.modules[name].__spec__.loader).__name__ for name in ecgbyte_hf.models.auto.REGISTRATIONS}
module = importlib.reload(sys.modules["transformers.models.auto.tokenization_auto"])
reloaded = type(module.AutoTokenizer.from_pretrained(folder)).__name__
importlib.reload(ecgbyte_hf.models.auto)
importlib.reload(ecgbyte_hf)
finders = sum(type(finder).__name__ == "_RegisterOnImport" for finder in sys.meta_path)
print(json.dumps([found, sorted(loaders), reloaded, finders]))
"""
    assert run_python(CLASSES + code, str(folder), cwd=tmp_path) == [
        EXPECTED,
        ["SourceFileLoader"],
        "EcgByteTokenizer",
        1,
    ]


def test_auto_classes_when_our_own_class_came_first(folder, tmp_path):
    """The processor's module imports transformers, which imports Auto modules, which register the processor."""
    code = """
from ecgbyte_hf import EcgByteProcessor
import transformers
print(json.dumps(classes()))
"""
    assert run_python(CLASSES + code, str(folder), cwd=tmp_path) == EXPECTED


def test_this_interpreter_too(folder):
    import transformers

    found = {name: type(getattr(transformers, name).from_pretrained(folder)).__name__ for name in EXPECTED}
    assert found == EXPECTED
