"""What every encoder must do: load by the Auto classes with and without this package, and train on several ranks."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_encoders import enable_checkpointing, make_inputs, make_pretraining_models
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoModel, AutoModelForPreTraining

import ecgbyte_hf
from ecgbyte_hf.models.auto import ENCODERS

NAMES = [encoder.prefix for encoder in ENCODERS]
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def models() -> dict:
    return make_pretraining_models()


@pytest.fixture(scope="module")
def folders(models, tmp_path_factory) -> dict[str, Path]:
    """Each saved by pretraining, with its inputs and outputs beside it."""
    path = tmp_path_factory.mktemp("encoders")
    for name, model in models.items():
        model.save_pretrained(path / name)
        inputs = make_inputs(name)
        with torch.no_grad():
            output, encoded = model(**inputs), model.encoder(inputs[model.main_input_name])
        kept = {"loss": output.loss, "pooled": encoded.pooler_output, "sequence": encoded.last_hidden_state}
        torch.save({"inputs": inputs, "kept": kept}, path / f"{name}.pt")
    return {name: path / name for name in models}


def run_python(code: str, *arguments: object, cwd: Path, **environment: str) -> dict:
    """Run code in a fresh interpreter, where this package can be found only if told so; its last line is JSON."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        env=inherited | {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(cwd / "modules")} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# ---- loading ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_auto_classes_load_the_same_model(name, models, folders):
    from transformers import AutoConfig, AutoModel, AutoModelForPreTraining

    saved = torch.load(folders[name].with_suffix(".pt"))
    whole = AutoModelForPreTraining.from_pretrained(folders[name])
    assert type(whole) is getattr(ecgbyte_hf, f"{name}ForPreTraining")
    for key, value in models[name].state_dict().items():
        assert torch.equal(whole.state_dict()[key], value), key
    with torch.no_grad():
        assert torch.equal(whole(**saved["inputs"]).loss, saved["kept"]["loss"])
        base, info = AutoModel.from_pretrained(folders[name], output_loading_info=True)
        output = base(saved["inputs"][base.main_input_name])
    assert type(base) is getattr(ecgbyte_hf, f"{name}Model")
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert torch.equal(output.pooler_output, saved["kept"]["pooled"])
    assert torch.equal(output.last_hidden_state, saved["kept"]["sequence"])
    config = AutoConfig.from_pretrained(folders[name])
    assert type(config) is getattr(ecgbyte_hf, f"{name}Config")
    assert output.pooler_output.shape[1] == config.pooler_output_size
    assert output.last_hidden_state.shape[2] == config.hidden_size
    assert type(AutoModel.from_config(config)) is type(base)
    assert base(saved["inputs"][base.main_input_name], return_dict=False)[1].shape == output.pooler_output.shape


class TestInputFiles:
    """How its input is made goes with an encoder, as an ordinary `save_pretrained` or `push_to_hub` writes it."""

    def test_of_signals(self, folders, tmp_path):
        folder = shutil.copytree(folders["EcgResNet"], tmp_path / "first")
        extractor = ecgbyte_hf.EcgByteFeatureExtractor(profile="none", sampling_rate=100)
        extractor.save_pretrained(folder)
        AutoModel.from_pretrained(folder).save_pretrained(tmp_path / "second")
        assert AutoFeatureExtractor.from_pretrained(tmp_path / "second").to_dict() == extractor.to_dict()
        assert AutoModel.from_pretrained(folders["EcgResNet"]).input_files == {}

    def test_of_pictures_with_their_code(self, folders, tmp_path):
        folder = shutil.copytree(folders["EcgVit"], tmp_path / "first")
        ecgbyte_hf.EcgImageProcessor("reference").save_pretrained(folder)
        ecgbyte_hf.EcgByteFeatureExtractor(sampling_rate=250).save_pretrained(folder / "signal")
        model, _ = AutoModelForPreTraining.from_pretrained(folder, output_loading_info=True)
        second = tmp_path / "second"
        model.save_pretrained(second)
        assert AutoImageProcessor.from_pretrained(second).mode == "reference"
        assert ecgbyte_hf.EcgByteFeatureExtractor.from_pretrained(second, subfolder="signal").sampling_rate == 250
        first = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        assert {path.relative_to(second) for path in second.rglob("*") if path.is_file()} == first
        assert Path("image_processing_ecg.py") in first

    @pytest.mark.parametrize("content", [b"[1]", b'{"auto_map": null}', b'{"auto_map": [1]}', b"{", b"\xff\xfe{}"])
    def test_weights_load_beside_damaged_ones_which_stay_as_they_are(self, content, folders, tmp_path):
        folder = shutil.copytree(folders["EcgResNet"], tmp_path / "first")
        (folder / "preprocessor_config.json").write_bytes(content)
        AutoModel.from_pretrained(folder).save_pretrained(tmp_path / "second")
        assert (tmp_path / "second" / "preprocessor_config.json").read_bytes() == content

    def test_saving_that_pushes_pushes_them_too(self, folders, tmp_path, monkeypatch):
        folder = shutil.copytree(folders["EcgResNet"], tmp_path / "first")
        ecgbyte_hf.EcgByteFeatureExtractor(profile="none", sampling_rate=100).save_pretrained(folder)
        model = AutoModel.from_pretrained(folder)
        pushed = []
        monkeypatch.setattr(type(model), "push_to_hub", lambda self, *args, **kwargs: pushed.append((args, kwargs)))
        model.save_pretrained(tmp_path / "second", push_to_hub=True, repo_id="a/b", private=True, token="hf_x")
        model.save_pretrained(tmp_path / "third", push_to_hub=True)
        assert pushed == [(("a/b",), {"token": "hf_x", "private": True}), (("third",), {"token": None})]
        assert AutoFeatureExtractor.from_pretrained(tmp_path / "second").profile == "none"

    def test_newer_ones_stay(self, folders, tmp_path):
        folder = shutil.copytree(folders["EcgResNet"], tmp_path / "first")
        ecgbyte_hf.EcgByteFeatureExtractor(sampling_rate=100, profile="none").save_pretrained(folder)
        model = AutoModel.from_pretrained(folder)
        ecgbyte_hf.EcgByteFeatureExtractor(sampling_rate=250).save_pretrained(folder)
        model.save_pretrained(folder)
        assert AutoFeatureExtractor.from_pretrained(folder).sampling_rate == 250


WITHOUT_THE_PACKAGE = """
import importlib.util, json, sys, torch
from pathlib import Path
assert importlib.util.find_spec("ecgbyte_hf") is None
from transformers import AutoImageProcessor, AutoModel, AutoModelForPreTraining
same = {}
for folder in map(Path, sys.argv[1:]):
    saved = torch.load(folder.with_suffix(".pt"))
    inputs, kept = saved["inputs"], saved["kept"]
    base = AutoModel.from_pretrained(folder, trust_remote_code=True)
    whole = AutoModelForPreTraining.from_pretrained(folder, trust_remote_code=True)
    assert type(base).__module__.startswith("transformers_modules."), type(base).__module__
    with torch.no_grad():
        output = base(inputs[base.main_input_name])
        same[folder.name] = [
            torch.equal(output.pooler_output, kept["pooled"]),
            torch.equal(output.last_hidden_state, kept["sequence"]),
            torch.equal(whole(**inputs).loss, kept["loss"]),
        ]
folder = next(path for path in map(Path, sys.argv[1:]) if path.name == "EcgClipVit")
processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
same["processor"] = [type(processor).__name__, processor.mode]
assert "ecgbyte_hf" not in sys.modules
print(json.dumps(same))
"""


@pytest.mark.slow
def test_code_in_the_folder_works_without_the_package(folders, tmp_path):
    """The venv of the tests may have the package installed: then its finder is what must be kept away."""
    ecgbyte_hf.EcgImageProcessor("reference").save_pretrained(folders["EcgClipVit"])
    code = WITHOUT_THE_PACKAGE
    if _installed():
        code = "import sys\nsys.modules['ecgbyte_hf'] = None\n" + code.replace(
            'importlib.util.find_spec("ecgbyte_hf") is None', "True"
        ).replace('"ecgbyte_hf" not in sys.modules', 'sys.modules["ecgbyte_hf"] is None')
    same = run_python(code, *folders.values(), cwd=tmp_path)
    assert same == {name: [True] * 3 for name in NAMES} | {"processor": ["EcgImageProcessor", "reference"]}


def _installed() -> bool:
    done = subprocess.run(
        [sys.executable, "-c", "import importlib.util as u; print(u.find_spec('ecgbyte_hf') is not None)"],
        cwd=Path(sys.executable).parent,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip() == "True"


REGISTERED_LATE = """
import json, sys, time
import ecgbyte_hf
from transformers import AutoModel, AutoTokenizer
heavy = [name for name in sys.modules if name == "transformers.modeling_utils" or "modeling_ecg" in name]
from transformers import AutoConfig
config = AutoConfig.from_pretrained(sys.argv[1])
model = AutoModel.from_config(config)
print(json.dumps([heavy, type(model) is ecgbyte_hf.EcgResNetModel]))
"""


@pytest.mark.slow
def test_registration_imports_no_model_before_it_is_used(folders, tmp_path):
    found = run_python(REGISTERED_LATE, folders["EcgResNet"], cwd=tmp_path, PYTHONPATH=str(REPOSITORY))
    assert found == [[], True]


def test_folder_names_all_classes_of_its_code_and_holds_it(folders):
    for encoder in ENCODERS:
        folder = folders[encoder.prefix]
        auto_map = json.loads((folder / "config.json").read_text())["auto_map"]
        assert set(auto_map) == {"AutoConfig", "AutoModel", *(f"AutoModel{rest}" for rest in encoder.classes[1:])}
        for name in auto_map.values():
            file, its_class = name.split(".")
            assert f"class {its_class}(" in (folder / f"{file}.py").read_text()
        assert (folder / "errors_ecg_byte.py").is_file()


def test_public_names_are_the_classes():
    for encoder in ENCODERS:
        for name in encoder.public_names():
            assert name in ecgbyte_hf.__all__
            assert getattr(ecgbyte_hf, name).__name__ == name


# ---- precision, memory, gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision(name, dtype, models, folders):
    inputs = make_inputs(name)
    half = type(models[name]).from_pretrained(folders[name], dtype=dtype).eval()
    with torch.no_grad():
        assert half(**inputs).loss.item() == pytest.approx(models[name](**inputs).loss.item(), rel=0.05)
        assert half.encoder(inputs[half.main_input_name]).pooler_output.dtype == dtype


@pytest.mark.parametrize("name", NAMES)
def test_every_trained_weight_has_a_gradient(name):
    """Else DistributedDataParallel waits for it."""
    model = make_pretraining_models()[name].train()
    model(**make_inputs(name)).loss.backward()
    assert [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("name", ["EcgClip", "EcgVit", "EcgClipVit", "EcgPatch"])
def test_gradient_checkpointing_changes_nothing(name):
    model, inputs = make_pretraining_models()[name], make_inputs(name)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            enable_checkpointing(model)
        for part in model.modules():
            part.training = part is not getattr(model, "decoder", None)
        model.zero_grad()
        model(**inputs).loss.backward()
        gradients.append({key: p.grad.clone() for key, p in model.named_parameters()})
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, msg=key)


# ---- several ranks ---------------------------------------------------------------------------------------------

ON_A_RANK = """
import json, sys
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from tiny_encoders import enable_checkpointing, make_inputs, make_pretraining_models
rank, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
part = slice(0, 3) if rank == 0 else slice(3, 8)  # the last batch of an epoch need not be even
gradients = {}
for name in ("EcgResNet", "EcgClip"):
    model = make_pretraining_models()[name]
    inputs = {key: value[part] for key, value in make_inputs(name, batch=8).items()}
    parallel = DistributedDataParallel(model)
    loss = parallel(**inputs).loss
    loss.backward()
    gradients[name] = {key: p.grad for key, p in model.named_parameters() if p.requires_grad}
    gradients[name]["loss"] = loss.detach()
torch.save(gradients, f"{out}.{rank}")
dist.destroy_process_group()
print("{}")
"""


@pytest.mark.slow
def test_two_ranks_have_the_gradient_of_one_on_the_whole_batch(models, tmp_path):
    """Batch normalisation in evaluation and dropout off, since those see each rank's own batch."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(Path(__file__).parent)])}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", ON_A_RANK, str(rank), str(tmp_path / "store"), str(tmp_path / "gradients")],
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=500)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], errors
    found = [torch.load(tmp_path / f"gradients.{rank}") for rank in range(2)]
    for name in ("EcgResNet", "EcgClip"):
        model = models[name]
        model.zero_grad()
        loss = model(**make_inputs(name, batch=8)).loss
        loss.backward()
        expected = {key: p.grad for key, p in model.named_parameters() if p.requires_grad} | {"loss": loss.detach()}
        for gradients in found:
            assert gradients[name].keys() == expected.keys()
            for key, value in expected.items():
                torch.testing.assert_close(gradients[name][key], value, rtol=1e-5, atol=1e-5, msg=key)
        assert max(value.abs().max() for value in expected.values()) > 0.01
        model.zero_grad()
