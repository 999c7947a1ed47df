"""Push and pull of all kinds against `hub_server.py`, by the real client, from processes of their own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hub_server import TOKEN, HubServer

import ecgbyte_hf
from ecgbyte_hf import EcgLanguageModel, cli, read_ecg
from ecgbyte_hf.data.hub_folder import local_or_hub_folder
from ecgbyte_hf.hub.cards import write_card
from ecgbyte_hf.hub.push import PushOptions, push_folder
from ecgbyte_hf.models.errors_ecg_byte import EcgHubError

pytestmark = [
    pytest.mark.slow,
    # Of peft 0.21 with transformers 5.23, in nobody's hands here.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    # Of huggingface_hub 2.4, when it sends a file without Xet.
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]

ROOT = Path(__file__).parents[2]
QUESTION = "Is the rhythm regular?"
CARD = "---\nlicense: apache-2.0\n---\n# A test\n"
LETTERS = "abcabdmmmmmmmnnnnnnmzzzaab"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with HubServer(tmp_path_factory.mktemp("hub")) as server:
        yield server
    assert server.unknown == []


@pytest.fixture(scope="module")
def online(hub, tmp_path_factory):
    """This process talks to that Hub, as its owner."""
    import datasets

    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        constants = huggingface_hub.constants
        # scripts/test.sh keeps all tests off the network; this Hub is on the loopback interface.
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        patch.delenv("HF_HUB_OFFLINE", raising=False)
        patch.setattr(constants, "ENDPOINT", hub.url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        patch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.url)
        patch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
        patch.setenv("HF_TOKEN", TOKEN)
        yield hub


@pytest.fixture(scope="module")
def record(tmp_path_factory, small_prepared):
    """A WFDB file."""
    import wfdb

    folder = tmp_path_factory.mktemp("records")
    signal = small_prepared.signal(20).T.astype(np.float64)
    names = {"sig_name": ["I", "aVF"], "units": ["mV", "mV"], "fmt": ["16", "16"]}
    wfdb.wrsamp("twenty", fs=100, p_signal=signal, write_dir=str(folder), **names)
    return folder / "twenty"


@pytest.fixture(scope="module")
def folders(tmp_path_factory, small_prepared, small_ecg_byte, lively_llm):
    """One of each kind, as the commands leave them, each with a card."""
    from peft import LoraConfig, get_peft_model
    from tiny_ecg_llm import make_encoder
    from tiny_encoders import resnet_config, seeded
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ecgbyte_hf.data.encode import encode_rows
    from ecgbyte_hf.training.extend_llm import load_prompter
    from ecgbyte_hf.training.train_tokenizer import train_tokenizer

    root = tmp_path_factory.mktemp("folders")
    names = "older tokenizer rows prepared encoder pictures llm adapter two-stage two-lora"
    made = {name: root / name for name in names.split()}
    train_tokenizer(small_prepared, made["older"], num_merges=10)
    shutil.copytree(small_ecg_byte, made["tokenizer"])
    prompter = load_prompter(lively_llm, small_prepared)
    encode_rows(small_prepared, made["rows"], prompter, splits=["validation", "test"])
    shutil.copytree(small_prepared.folder, made["prepared"])
    encoder = seeded(ecgbyte_hf.EcgResNetModel, resnet_config())
    encoder.save_pretrained(made["encoder"])
    ecgbyte_hf.EcgByteFeatureExtractor(profile="reference", sampling_rate=250).save_pretrained(made["encoder"])
    make_encoder("EcgVit").save_pretrained(made["pictures"])
    ecgbyte_hf.EcgImageProcessor(size={"height": 32, "width": 32}).save_pretrained(made["pictures"])
    ecgbyte_hf.EcgByteFeatureExtractor(sampling_rate=250).save_pretrained(made["pictures"] / "signal")
    shutil.copytree(lively_llm, made["llm"])
    torch.manual_seed(5)
    base = AutoModelForCausalLM.from_pretrained(made["llm"])
    lora = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(base, lora).save_pretrained(made["adapter"])
    AutoTokenizer.from_pretrained(made["llm"]).save_pretrained(made["adapter"])
    (made["adapter"] / "optimizer.pt").write_bytes(b"\x80")
    make_two_stage(made["two-stage"], root / "two-stage-encoder", small_prepared.folder.with_name("tiny-llama"))
    two_stage = AutoModelForCausalLM.from_pretrained(made["two-stage"])
    lora = LoraConfig(r=2, target_modules=r".*language_model.*q_proj", init_lora_weights=False)
    get_peft_model(two_stage, lora).save_pretrained(made["two-lora"])
    for name in ("tokenizer.json", "tokenizer_config.json"):  # as `trl sft` leaves one
        shutil.copy(made["two-stage"] / name, made["two-lora"])
    for folder in made.values():
        (folder / "README.md").write_text(CARD)
    (made["prepared"] / "README.md").write_text(
        "---\nlicense: apache-2.0\nconfigs:\n- config_name: questions\n  default: true\n  data_files:\n"
        "  - {split: train, path: questions/train.parquet}\n  - {split: test, path: questions/test.parquet}\n"
        "- config_name: records\n  data_files: records/*.parquet\n"
        "- config_name: metadata\n  data_files: metadata.parquet\n---\n"
    )
    if not (made["prepared"] / "metadata.parquet").exists():
        text = (made["prepared"] / "README.md").read_text()
        (made["prepared"] / "README.md").write_text(
            text.replace("- config_name: metadata\n  data_files: metadata.parquet\n", "")
        )
    return made


def make_two_stage(folder, encoder, base):
    """A model with an encoder in front, whose weights are large enough that its answers depend on the ECG."""
    from tiny_ecg_llm import save_encoder
    from transformers import AutoModelForCausalLM

    from ecgbyte_hf.data.prompts import EcgPrompt
    from ecgbyte_hf.training.extend_ecg_llm import extend_ecg_llm

    prompt = EcgPrompt(max_length=192, reserve=16)
    extend_ecg_llm(save_encoder(encoder), str(base), folder, prompt=prompt)
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "language_model" in name:
                parameter.mul_(10.0)
    model.save_pretrained(folder)


@pytest.fixture
def table(tmp_path):
    """A small data set: one Parquet file of noise, with a card."""
    folder = tmp_path / "data"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 2**60, 10_000)
    pq.write_table(pa.table({"ecg_id": noise}), folder / "train.parquet")
    (folder / "README.md").write_text(CARD)
    return folder / "train.parquet"


@pytest.fixture(scope="module")
def pushed(online, folders, tmp_path_factory):
    """Everything pushed by the command; what it wrote to the screen."""
    private = ["--private"]
    drop = ["--drop-columns", "patient_id", "name"]
    commands = [
        ["older", "someone/ecg-byte"],
        ["older", "someone/ecg-byte", "--revision", "v0"],
        ["tokenizer", "someone/ecg-byte"],
        ["rows", "someone/rows"],
        ["prepared", "someone/prepared", *drop],
        ["encoder", "someone/encoder"],
        ["llm", "someone/llm"],
        ["adapter", "someone/adapter", "--base", "someone/llm"],
        ["adapter", "someone/merged", "--merge"],
        ["two-stage", "someone/two-stage"],
        ["two-lora", "someone/two-lora", "--base", "someone/two-stage"],
        ["llm", "someone/secret", *private],
        ["rows", "someone/secret-rows", *private],
    ]
    import io
    from contextlib import redirect_stderr, redirect_stdout

    screen = io.StringIO()
    with redirect_stdout(screen), redirect_stderr(screen):
        codes = [cli.main(["push", str(folders[name]), *rest]) for name, *rest in commands]
    assert codes == [0] * len(commands), screen.getvalue()
    return screen.getvalue()


PLAIN_PUSH = """
import json, sys, warnings
warnings.simplefilter("ignore")
import ecgbyte_hf
from datasets import load_dataset
from ecgbyte_hf import EcgLanguageModel

folders = json.loads(sys.argv[1])
ecgbyte_hf.EcgByteTokenizer.from_pretrained(folders["tokenizer"]).push_to_hub("someone/plain-ecg-byte")
ecgbyte_hf.EcgByteProcessor.from_pretrained(folders["tokenizer"]).push_to_hub("someone/plain-processor")
ecgbyte_hf.EcgResNetModel.from_pretrained(folders["encoder"]).push_to_hub("someone/plain-encoder")
ecgbyte_hf.EcgVitModel.from_pretrained(folders["pictures"]).push_to_hub("someone/plain-pictures")
bare = ecgbyte_hf.EcgResNetModel(ecgbyte_hf.EcgResNetModel.from_pretrained(folders["encoder"]).config)
bare.push_to_hub("someone/plain-bare")
ecgbyte_hf.EcgByteFeatureExtractor(profile="none", sampling_rate=100).push_to_hub("someone/plain-bare")
EcgLanguageModel.load(folders["llm"]).push_to_hub("someone/plain-llm")
rows = load_dataset("parquet", data_files={"test": folders["rows"] + "/test.parquet"})
rows.push_to_hub("someone/plain-rows")
print(json.dumps({}))
"""


@pytest.fixture(scope="module")
def plainly_pushed(online, folders, tmp_path_factory):
    """All kinds by the ordinary `push_to_hub`, by a process that knows no other Hub since it began."""
    home = tmp_path_factory.mktemp("plain")
    environment = online.environment(home, token=TOKEN, PYTHONPATH=str(ROOT))
    places = json.dumps({name: str(folder) for name, folder in folders.items()})
    run(PLAIN_PUSH, places, environment=environment, cwd=home)


@pytest.fixture(scope="module")
def expected(folders, record):
    """What the local folders give."""
    ecg = read_ecg(record)
    tokenizer = ecgbyte_hf.EcgByteTokenizer.from_pretrained(folders["tokenizer"])
    encoder = ecgbyte_hf.EcgResNetModel.from_pretrained(folders["encoder"])
    with torch.no_grad():
        pooled = encoder(torch.ones(1, 12, 64)).pooler_output
    tables = {split: pq.read_table(folders["rows"] / f"{split}.parquet") for split in ("validation", "test")}
    return {
        "tokenizer": tokenizer.fingerprint,
        "older": ecgbyte_hf.EcgByteTokenizer.from_pretrained(folders["older"]).fingerprint,
        "letters": tokenizer(LETTERS)["input_ids"],
        "encoder": pooled.double().sum().item(),
        "rows": {split: table.num_rows for split, table in tables.items()},
        "first": tables["test"].column("prompt")[0].as_py(),
        **{
            name: EcgLanguageModel.load(folders[name]).answer(ecg, QUESTION, max_new_tokens=6)
            for name in ("llm", "adapter", "two-stage", "two-lora")
        },
    }


def run(code: str, *arguments: object, environment: dict[str, str], cwd: Path) -> dict:
    """Run code in a process of its own; its last line is JSON."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipes = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    done = subprocess.run(command, cwd=cwd, env=environment, check=False, **pipes)
    assert TOKEN not in done.stdout + done.stderr
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


WITH_THE_PACKAGE = """
import io, json, os, sys, warnings
from contextlib import redirect_stderr, redirect_stdout
warnings.simplefilter("ignore", FutureWarning)
import datasets, torch
import ecgbyte_hf
from ecgbyte_hf import EcgLanguageModel, cli, read_ecg
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoModel, AutoTokenizer, pipeline
from ecgbyte_hf.models.errors_ecg_byte import EcgHubError

record, question = sys.argv[1:]
is_offline = os.environ.get("HF_HUB_OFFLINE") == "1"
limit = {"max_new_tokens": 6}
found = {}

def encoded(name):
    with torch.no_grad():
        return AutoModel.from_pretrained(name)(torch.ones(1, 12, 64)).pooler_output.double().sum().item()

def command(*arguments):
    screen = io.StringIO()
    with redirect_stdout(screen), redirect_stderr(screen):
        code = cli.main(list(arguments))
    return [code, screen.getvalue().strip()]

def answer(name, **options):
    return EcgLanguageModel.load(name, **options).answer(read_ecg(record), question, **limit)

def fingerprint(name, **options):
    return AutoTokenizer.from_pretrained(name, **options).fingerprint

found["tokenizer"] = fingerprint("someone/ecg-byte")
found["older"] = fingerprint("someone/ecg-byte", revision="v0")
found["letters"] = AutoTokenizer.from_pretrained("someone/ecg-byte")(sys.stdin.readline().strip())["input_ids"]
found["encoder"] = encoded("someone/encoder")
found["profile"] = AutoFeatureExtractor.from_pretrained("someone/encoder").profile
rows = datasets.load_dataset("someone/rows")
found["rows"] = {split: len(rows[split]) for split in rows}
found["first"] = rows["test"][0]["prompt"]
found["by_our_load_dataset"] = len(ecgbyte_hf.load_dataset("someone/rows", split="test"))
for name in ("llm", "adapter", "merged", "two-stage", "two-lora"):
    found[name] = answer("someone/" + name)
for name in ("llm", "adapter"):
    pipe = pipeline("ecg-question-answering", model="someone/" + name, device="cpu")
    found["pipeline " + name] = pipe(ecg=record, question=question, **limit)["answer"]
found["ask"] = command("ask", "--model", "someone/llm", record, question, "--max-new-tokens", "6")
given = ["--record", record, "--question", question, "--max-new-tokens", "6", "--revision", "main"]
found["generate"] = command("generate", "--model", "someone/llm", *given)
if not is_offline:
    found["plain"] = [fingerprint("someone/plain-ecg-byte"), fingerprint("someone/plain-processor")]
    extractor = AutoFeatureExtractor.from_pretrained("someone/plain-encoder")
    found["plain encoder"] = [encoded("someone/plain-encoder"), extractor.profile]
    found["plain bare"] = AutoFeatureExtractor.from_pretrained("someone/plain-bare").sampling_rate
    pictures = AutoImageProcessor.from_pretrained("someone/plain-pictures")
    extractor = ecgbyte_hf.EcgByteFeatureExtractor.from_pretrained("someone/plain-pictures", subfolder="signal")
    found["plain pictures"] = [dict(pictures.size), extractor.sampling_rate]
    found["plain pictures"].append(AutoModel.from_pretrained("someone/plain-pictures").config.model_type)
    found["plain llm"] = answer("someone/plain-llm")
    found["plain rows"] = len(datasets.load_dataset("someone/plain-rows")["test"])
    ids = ["encode", "--data", "someone/prepared", "--tokenizer", "someone/ecg-byte", "--output", "ids"]
    found["encode"] = command(*ids)
    given = ["--model", "someone/llm", "--splits", "test", "--output", "new-rows"]
    found["encode rows"] = command("encode", "--data", "someone/prepared", *given)
    found["encode rows of windows"] = command("encode", "--data", "someone/prepared", "--window-seconds", "5", *given)
    found["records"] = datasets.load_dataset("someone/prepared", "records", split="train").column_names
    found["questions"] = len(datasets.load_dataset("someone/prepared", split="train"))
    found["refused"] = command("ask", "--model", "someone/secret", record, question)
    found["refused rows"] = ""
    try:
        ecgbyte_hf.load_dataset("someone/secret-rows")
    except EcgHubError as error:
        found["refused rows"] = str(error)
    found["no such"] = command("ask", "--model", "someone/llm", "--revision", "v9", record, question)
    os.environ["HF_TOKEN"] = os.environ["LATER_TOKEN"]
    found["secret"] = answer("someone/secret")
    found["secret rows"] = len(ecgbyte_hf.load_dataset("someone/secret-rows", split="test"))
else:
    found["not in the cache"] = command("ask", "--model", "someone/other", record, question)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("stranger")


@pytest.fixture(scope="module")
def pulled(hub, pushed, plainly_pushed, record, home):
    environment = hub.environment(home, PYTHONPATH=str(ROOT), LATER_TOKEN=TOKEN)
    return _run_with_package(record, environment, home)


@pytest.fixture(scope="module")
def pulled_offline(hub, pulled, record, home):
    count = len(hub.requests)
    found = _run_with_package(record, hub.environment(home, PYTHONPATH=str(ROOT), HF_HUB_OFFLINE="1"), home)
    assert len(hub.requests) == count
    return found


def _run_with_package(record, environment, home):
    code = WITH_THE_PACKAGE.replace("sys.stdin.readline().strip()", repr(LETTERS))
    return run(code, record, QUESTION, environment=environment, cwd=home)


class TestPull:
    @pytest.mark.parametrize("way", ["pulled", "pulled_offline"])
    def test_with_the_package(self, way, request, expected):
        found = request.getfixturevalue(way)
        for name, value in expected.items():
            assert found[name] == value, name
        assert found["older"] != found["tokenizer"]
        assert found["profile"] == "reference"
        assert found["by_our_load_dataset"] == expected["rows"]["test"]
        assert found["merged"] == expected["adapter"] != expected["llm"]
        assert expected["two-stage"] != expected["two-lora"]
        assert found["pipeline llm"] == expected["llm"] and found["pipeline adapter"] == expected["adapter"]
        for command in ("ask", "generate"):
            code, screen = found[command]
            assert code == 0 and screen.splitlines()[-1:] == ([expected["llm"]] if expected["llm"] else [])

    def test_by_the_ordinary_push_to_hub(self, pulled, expected):
        assert pulled["plain"] == [expected["tokenizer"]] * 2
        assert pulled["plain encoder"] == [expected["encoder"], "reference"]
        assert pulled["plain bare"] == 100
        assert pulled["plain pictures"] == [{"height": 32, "width": 32}, 250, "ecg_vit"]
        assert pulled["plain llm"] == expected["llm"]
        assert pulled["plain rows"] == expected["rows"]["test"]

    def test_a_prepared_folder(self, pulled, small_prepared):
        code, screen = pulled["encode"]
        assert code == 0 and f"{len(small_prepared.ecg_ids)} records" in screen, screen
        code, screen = pulled["encode rows"]
        assert code == 0 and "30 questions in 30 rows" in screen, screen
        code, screen = pulled["encode rows of windows"]
        assert code == 1 and "someone/llm is on the Hub and was not extended for these rows" in screen, screen
        assert pulled["questions"] == len(small_prepared.questions("train"))
        assert "signal" in pulled["records"]

    def test_a_private_one_needs_a_token(self, pulled, expected):
        code, screen = pulled["refused"]
        assert code == 1
        message = "someone/secret is neither a folder here nor a model on the Hub that you may see; if it is private"
        assert screen.splitlines()[-1].startswith(f"ecgbyte ask: {message}")
        assert "someone/secret-rows" in pulled["refused rows"] and "hf auth login" in pulled["refused rows"]
        assert "\n" not in pulled["refused rows"]
        assert pulled["secret"] == expected["llm"] and pulled["secret rows"] == expected["rows"]["test"]

    def test_what_is_not_there(self, pulled, pulled_offline):
        code, screen = pulled["no such"]
        assert code == 1 and screen.endswith("someone/llm has no revision v9; see the branches and tags on its page")
        code, screen = pulled_offline["not in the cache"]
        assert code == 1 and "someone/other is not in the cache" in screen.splitlines()[-1]

    def test_without_the_package(self, hub, pushed, expected, tmp_path):
        code = WITHOUT_THE_PACKAGE
        if _is_installed():
            code = "import sys\nsys.modules['ecgbyte_hf'] = None\n" + code
        found = run(code, LETTERS, environment=hub.environment(tmp_path), cwd=tmp_path)
        assert found["tokenizer"] == ["TokenizersBackend", expected["letters"]]
        assert found["encoder"] == expected["encoder"]
        assert "trust_remote_code" in found["refused"]
        assert found["rows"] == expected["rows"]
        assert found["ecg tokens"] == 86 and found["adapter differs"]
        assert found["two-stage"] == ["EcgLlmForConditionalGeneration", True]


WITHOUT_THE_PACKAGE = """
import json, sys, warnings
warnings.simplefilter("ignore", FutureWarning)
import datasets, torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
found = {}
tokenizer = AutoTokenizer.from_pretrained("someone/ecg-byte")
found["tokenizer"] = [type(tokenizer).__name__, tokenizer(sys.argv[1])["input_ids"]]
try:
    AutoModel.from_pretrained("someone/encoder")
except ValueError as error:
    found["refused"] = str(error)
with torch.no_grad():
    encoder = AutoModel.from_pretrained("someone/encoder", trust_remote_code=True)
    assert type(encoder).__module__.startswith("transformers_modules.")
    found["encoder"] = encoder(torch.ones(1, 12, 64)).pooler_output.double().sum().item()
    rows = datasets.load_dataset("someone/rows")
    found["rows"] = {split: len(rows[split]) for split in rows}
    words = AutoTokenizer.from_pretrained("someone/adapter")
    ids = words("<|ecg_start|>" + "".join(f"<|ecg_{number}|>" for number in range(86)), return_tensors="pt")
    found["ecg tokens"] = ids["input_ids"].shape[1] - 2
    logits = [AutoModelForCausalLM.from_pretrained(name)(**ids).logits for name in ("someone/llm", "someone/adapter")]
    found["adapter differs"] = not torch.allclose(*logits)
    trusted = {"trust_remote_code": True}
    two_stage = AutoModelForCausalLM.from_pretrained("someone/two-stage", **trusted)
    assert type(two_stage).__module__.startswith("transformers_modules.")
    words = AutoTokenizer.from_pretrained("someone/two-stage")
    text = words("Is the rhythm regular?", return_tensors="pt")
    found["two-stage"] = [type(two_stage).__name__, bool(torch.isfinite(two_stage(**text).logits).all())]
assert not sys.modules.get("ecgbyte_hf")
print()  # behind the question whether to trust the code
print(json.dumps(found))
"""


def _is_installed() -> bool:
    code = "import importlib.util as u; print(u.find_spec('ecgbyte_hf') is not None)"
    command = [sys.executable, "-P", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "True"


class TestPush:
    def test_what_is_there(self, hub, pushed, folders):
        names = hub.names("models", "someone/adapter")
        assert "ecg_byte/ecg_prompt.json" in names and "adapter_model.safetensors" in names
        assert "optimizer.pt" not in names
        assert "left out: optimizer.pt (may hold a pickle)" in pushed
        config = json.loads(hub.read("models", "someone/adapter", "adapter_config.json"))
        assert config["base_model_name_or_path"] == "someone/llm"
        here = json.loads((folders["adapter"] / "adapter_config.json").read_text())
        assert here["base_model_name_or_path"] == str(folders["llm"])
        weights = hub.read("models", "someone/llm", "model.safetensors")
        assert weights == (folders["llm"] / "model.safetensors").read_bytes()
        assert not any("adapter" in name for name in hub.names("models", "someone/merged"))
        for kind, name in hub.repos:
            for file in hub.names(kind, name):
                if file.endswith((".json", ".md")) and file != "tokenizer.json":
                    assert str(folders["llm"].parent).encode() not in hub.read(kind, name, file), file
        assert hub.repo("models", "someone/secret").private and not hub.repo("models", "someone/llm").private

    def test_no_patient_is_there(self, hub, pushed):
        for name in hub.names("datasets", "someone/prepared"):
            if name.startswith("records/"):
                import io

                table = pq.read_table(io.BytesIO(hub.read("datasets", "someone/prepared", name)))
                assert table.column("patient_id").null_count == table.column("name").null_count == len(table) > 0
                assert table.column("signal").null_count == 0

    def test_the_screen_says_how_to_load_it(self, pushed, hub):
        assert f"at {hub.url}/someone/llm (commit " in pushed
        assert 'model = EcgLanguageModel.load("someone/llm")' in pushed
        assert TOKEN not in pushed

    def test_a_broken_upload_goes_on(self, hub, online, table, monkeypatch):
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
        folder = table.parent
        before = len(hub.requests)
        # The client goes on after a break by itself; what it cannot go on from is a commit that fails.
        with hub.fault("PUT", "/lfs/", "drop"), hub.fault("POST", "/commit/", "drop"):
            with pytest.raises(EcgHubError, match="someone/broken: .*Try again: what is there already") as caught:
                push_folder(folder, "someone/broken")
        assert "\n" not in str(caught.value) and TOKEN not in str(caught.value)
        assert hub.names("datasets", "someone/broken") == [".gitattributes"]
        sent = [entry for entry in hub.requests[before:] if entry[0] == "PUT"]
        assert len(sent) == 1
        with hub.fault("POST", "/commit/", "500"), pytest.raises(EcgHubError, match="500"):
            push_folder(folder, "someone/broken")
        made = push_folder(folder, "someone/broken")
        assert [entry for entry in hub.requests[before:] if entry[0] == "PUT"] == sent
        assert hub.read("datasets", "someone/broken", "train.parquet") == table.read_bytes()
        assert made.commit == hub.repo("datasets", "someone/broken").branches["main"]
        again = push_folder(folder, "someone/broken")
        assert again.commit == made.commit

    def test_a_broken_download_goes_on(self, hub, online, table, monkeypatch, tmp_path):
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
        monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 4096)
        push_folder(table.parent, "someone/long")
        with hub.fault("GET", "resolve/.*/train.parquet", "drop"):
            path = huggingface_hub.hf_hub_download(
                "someone/long", "train.parquet", repo_type="dataset", cache_dir=tmp_path / "cache"
            )
        assert Path(path).read_bytes() == table.read_bytes()
        method, _, status = hub.requests[-1]
        assert (method, status) == ("GET", 206)

    def test_stale_files_go(self, hub, online, table):
        shutil.copy(table, table.with_name("validation.parquet"))
        push_folder(table.parent, "someone/shrinking")
        table.with_name("validation.parquet").unlink()
        push_folder(table.parent, "someone/shrinking", PushOptions(message="Without validation"))
        names = hub.names("datasets", "someone/shrinking")
        assert "train.parquet" in names and "validation.parquet" not in names
        assert hub.repo("datasets", "someone/shrinking").messages[-1] == "Without validation"

    def test_what_the_hub_refuses(self, online, hub, table, monkeypatch):
        push_folder(table.parent, "someone/public")
        with pytest.raises(EcgHubError, match="public already; make it private on its page"):
            push_folder(table.parent, "someone/public", PushOptions(private=True))
        with pytest.raises(EcgHubError, match="somebody/rows: .*403"):
            push_folder(table.parent, "somebody/rows")
        assert ("datasets", "somebody/rows") not in hub.repos
        wrong = "hf_" + "someothertoken" * 3
        monkeypatch.setenv("HF_TOKEN", wrong)
        with pytest.raises(EcgHubError) as caught:
            push_folder(table.parent, "someone/public")
        assert wrong not in str(caught.value) and "\n" not in str(caught.value)

    def test_a_base_that_is_not_there(self, online, hub, folders):
        with pytest.raises(EcgHubError, match="someone/nowhere is neither a folder here nor a model on the Hub"):
            push_folder(folders["adapter"], "someone/other", PushOptions(base="someone/nowhere"))
        assert ("models", "someone/other") not in hub.repos

    def test_another_base_with_the_same_tokens(self, online, pushed, plainly_pushed, hub, folders):
        """The merged model has the base's tokens and configuration, and the adapter in its weights."""
        assert "could not be compared" not in pushed
        with pytest.raises(EcgHubError, match=r"someone/merged is not the base .* its model.safetensors is another"):
            push_folder(folders["adapter"], "someone/other", PushOptions(base="someone/merged"))
        assert ("models", "someone/other") not in hub.repos
        # The base itself, as the ordinary `push_to_hub` saves it once more.
        made = push_folder(folders["adapter"], "someone/plain-adapter", PushOptions(base="someone/plain-llm"))
        assert not any("could not be compared" in note for note in made.notes)

    def test_the_parts_of_a_model_with_an_encoder_come_from_the_hub(self, online, pushed, folders, tmp_path):
        folder = shutil.copytree(folders["two-lora"], tmp_path / "adapter")
        config = json.loads((folder / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = "someone/two-stage"
        (folder / "adapter_config.json").write_text(json.dumps(config))
        made = push_folder(folder, "someone/again", PushOptions(ecg="someone/two-stage"))
        assert {"processor_config.json", "ecg_prompt.json", "processing_ecg_llm.py"} <= set(made.sizes)
        config["base_model_name_or_path"] = "someone/llm"
        (folder / "adapter_config.json").write_text(json.dumps(config))
        with pytest.raises(EcgHubError, match="someone/llm is not the base that .* it has no encoder"):
            push_folder(folder, "someone/again", PushOptions(ecg="someone/two-stage"))

    def test_a_dry_run_asks_nobody(self, online, hub, table, capsys):
        count = len(hub.requests)
        assert cli.main(["push", str(table.parent), "someone/new", "--dry-run"]) == 0
        assert len(hub.requests) == count
        screen = capsys.readouterr().out
        assert "train.parquet" in screen and "nothing was uploaded" in screen

    def test_a_gated_one_says_so(self, hub, online, table, monkeypatch, tmp_path):
        push_folder(table.parent, "someone/gated")
        monkeypatch.delenv("HF_TOKEN")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(hub.repo("datasets", "someone/gated"), "gated", True)
        with pytest.raises(EcgHubError, match="someone/gated is gated: accept its licence on its page"):
            local_or_hub_folder("someone/gated", made_by="ecgbyte prepare", repo_type="dataset")


def test_trl_trains_and_pushes_what_it_pulled(hub, online, pushed, record, tmp_path):
    """What `trl sft` starts, with nothing of this package: base and rows from the Hub, the adapter to it."""
    words = {
        "model_name_or_path": "someone/llm",
        "dataset_name": "someone/rows",
        "dataset_train_split": "validation",
        "hub_model_id": "someone/trained",
        "push_to_hub": "true",
        "use_peft": "true",
        "lora_target_modules": "all-linear",
        "output_dir": tmp_path / "trained",
        "max_length": 384,
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-2,
        "use_cpu": "true",
        "bf16": "false",
        "dtype": "float32",
        "gradient_checkpointing": "false",
        "report_to": "none",
        "save_strategy": "no",
    }
    arguments = [part for name, value in words.items() for part in (f"--{name}", str(value))]
    done = subprocess.run(
        [sys.executable, "-m", "trl.scripts.sft", *arguments],
        cwd=tmp_path,
        env=hub.environment(tmp_path / "home", token=TOKEN),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert TOKEN not in done.stdout + done.stderr
    assert "adapter_model.safetensors" in hub.names("models", "someone/trained")
    config = json.loads(hub.read("models", "someone/trained", "adapter_config.json"))
    assert config["base_model_name_or_path"] == "someone/llm"
    # Of the adapter alone nobody can answer: the base's parts go with it.
    assert cli.main(["push", str(tmp_path / "trained"), "someone/whole", "--dry-run"]) == 1
    folder = tmp_path / "trained"
    (folder / "README.md").write_text(CARD)
    made = push_folder(folder, "someone/whole", PushOptions(ecg="someone/llm"))
    assert "ecg_byte/ecg_prompt.json" in hub.names("models", "someone/whole") and "training_args.bin" in made.left_out
    model = EcgLanguageModel.load("someone/trained")
    assert "lora" in str(model.model).lower()
    assert model.prompt == EcgLanguageModel.load("someone/llm").prompt
    assert isinstance(model.answer(read_ecg(record), QUESTION, max_new_tokens=6), str)


def test_ecgbyte_sft_notes_which_rows_it_read(hub, online, pushed, folders, tmp_path):
    """Data sets of the Hub by name: one that `ecgbyte push` made, and one without a report beside it."""
    from datasets import Dataset

    from ecgbyte_hf.data.questions import rows_hash

    plain = Dataset.from_parquet(str(folders["rows"] / "validation.parquet"), cache_dir=str(tmp_path / "cache"))
    plain = plain.select_columns(["prompt", "completion"])
    plain.push_to_hub("someone/bare-rows", split="validation")
    encoded = json.loads((folders["rows"] / "encode.json").read_text())["provenance"]
    given = {
        "--model_name_or_path": "someone/llm",
        "--dataset_train_split": "validation",
        "--use_peft": "true",
        "--lora_target_modules": "all-linear",
        "--max_length": 384,
        "--max_steps": 1,
        "--use_cpu": "true",
        "--bf16": "false",
        "--dtype": "float32",
        "--gradient_checkpointing": "false",
        "--report_to": "none",
    }
    for name, noted in (
        ("someone/rows", {"data_hash": encoded["data_hash"], "data_source": encoded["data_source"]}),
        ("someone/bare-rows", {"data_hash": None, "rows_hash": {"validation": rows_hash(plain)}}),
    ):
        folder = tmp_path / name.partition("/")[2]
        words = {**given, "--dataset_name": name, "--output_dir": folder}
        command = ["-m", "ecgbyte_hf.cli", "sft", *(str(part) for pair in words.items() for part in pair)]
        environment = hub.environment(tmp_path / "home", token=TOKEN, PYTHONPATH=str(ROOT), LOCAL_RANK="0")
        environment |= {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
        pipes = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=environment, check=False, **pipes)
        assert done.returncode == 0, done.stderr[-4000:]
        block = json.loads((folder / "training_log.json").read_text())["provenance"]
        commit = hub.repo("datasets", name).branches["main"]
        assert {key: block.get(key) for key in noted} == noted
        assert (block["dataset"], block["revision"]) == (name, commit)
        card = write_card(folder, repo_id="someone/x").read_text()
        assert f"datasets:\n- {name}\n" in card
        told = f"Its rows were [{name}](https://huggingface.co/datasets/{name}), commit `{commit}`."
        assert told in " ".join(card.split())
