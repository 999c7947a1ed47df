import io
import json
import pickle
import zipfile
from pathlib import Path

import hostile_pickles
import huggingface_hub
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import wfdb
from reference_models import (
    ResNet,
    ResNetPretrain,
    SecondStage,
    as_transformers_4_names,
    extended_as_the_reference,
    prefixed,
    projections,
    save,
    shake,
)
from safetensors.torch import load_file
from test_reference_tokenizer import reference_data, trained_merges, write
from tiny_ecg_llm import LEADS
from tiny_encoders import BERT, CLIP, VIT, make_inputs, resnet_config, seeded, text_tokenizer
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    ViTConfig,
    ViTForMaskedImageModeling,
)

from ecgbyte_hf import (
    EcgByteFeatureExtractor,
    EcgClipConfig,
    EcgClipForPreTraining,
    EcgClipVitConfig,
    EcgClipVitForPreTraining,
    EcgImageProcessor,
    EcgResNetForPreTraining,
    EcgVitConfig,
    EcgVitForPreTraining,
    cli_convert,
)
from ecgbyte_hf.cli import main
from ecgbyte_hf.data.prompts import EcgPrompt
from ecgbyte_hf.hub.convert_checkpoint import KINDS, convert_ecg_byte_checkpoint, convert_encoder_checkpoint
from ecgbyte_hf.hub.reference_checkpoint import read_checkpoint
from ecgbyte_hf.hub.reference_tokenizer import make_processor, read_reference_vocabulary
from ecgbyte_hf.models.errors_ecg_byte import (
    BudgetError,
    EcgError,
    EcgFileError,
    EcgHubError,
    EncoderError,
    VocabularyError,
)
from ecgbyte_hf.models.feature_extraction_ecg_byte import PROFILES
from ecgbyte_hf.training.extend_llm import extend_llm
from ecgbyte_hf.training.start_encoder import load_parts
from ecgbyte_hf.training.tiny_llm import make_tiny_llm

# Of PEFT 0.21 with transformers 5.23.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

NUM_MERGES = 40
SIGNAL = 20 * torch.randn(3, 12, 64, generator=torch.Generator().manual_seed(3))


def scaled(signal: torch.Tensor) -> torch.Tensor:
    """As the paper's loader scales for the ResNet."""
    low, high = signal.amin(dim=(1, 2), keepdim=True), signal.amax(dim=(1, 2), keepdim=True)
    return (signal - low) / (high - low + 1e-6) * 1000


# ---- files -------------------------------------------------------------------------------------------------------


class TestFiles:
    def test_state_dictionaries_by_every_name(self, tmp_path):
        state = {"llm.a": torch.ones(2), "llm.b": torch.zeros(2)}
        path = tmp_path / "best_model.pth"
        for content in (
            {"model": state, "epoch": 3},
            {"model_state_dict": state},
            {"state_dict": state},
            state,
            {"model": prefixed("module.", state)},
        ):
            torch.save(content, path)
            checkpoint = read_checkpoint(path)
            assert {key: value.tolist() for key, value in checkpoint.tensors.items()} == {
                "llm.a": [1, 1],
                "llm.b": [0, 0],
            }
            assert checkpoint.epoch == (3 if "epoch" in content else None) and len(checkpoint.sha256) == 64

    def test_harmless_keys_are_noted(self, tmp_path):
        harmless = {
            "clip.text_model.embeddings.position_ids": torch.arange(3),
            "resnet.linear.weight": torch.ones(2, 2),
            "llm.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2),
        }
        checkpoint = read_checkpoint(save(tmp_path / "m.pth", harmless | {"llm.linear.weight": torch.ones(1)}))
        assert sorted(checkpoint.dropped) == sorted(harmless) and list(checkpoint.tensors) == ["llm.linear.weight"]
        with pytest.raises(EcgFileError, match=r"1 keys do not belong to this: llm.linear.weight\. Check --kind"):
            checkpoint.check_empty("this")

    @pytest.mark.parametrize(
        ("content", "match"),
        [
            ([torch.ones(1)], "got a list"),
            ({}, "an empty dictionary"),
            ({"model": {}}, "an empty dictionary"),
            ({"model": {"a": 1}}, "a int under 'a'"),
            ({"model": {1: torch.ones(1)}}, "a Tensor under '1'"),
            ({"epoch": 1}, "a int under 'epoch'"),
            ({"model": {"a": torch.tensor([1.0, float("nan")])}}, "a has NaN or infinity"),
            ({"model": {"a": torch.tensor(float("inf"), dtype=torch.bfloat16)}}, "a has NaN or infinity"),
            ({"model": {"a": torch.ones(1).expand(2**40)}}, "a is no dense tensor of its own size"),
            ({"model": {"a": torch.ones(3, 3).to_sparse()}}, r"asks for torch\._utils\._rebuild_sparse_tensor"),
        ],
    )
    @pytest.mark.filterwarnings("ignore::UserWarning")
    def test_other_contents(self, tmp_path, content, match):
        torch.save(content, tmp_path / "m.pth")
        with pytest.raises(EcgFileError, match=match):
            read_checkpoint(tmp_path / "m.pth")

    def test_hostile_pickles(self, tmp_path):
        mark = tmp_path / "mark"
        for name, (content, wanted) in hostile_pickles.running(mark, 2).items():
            path = self.archive(tmp_path / "m.pth", content)
            with pytest.raises(
                EcgFileError, match=r"not a checkpoint of tensors only.*Nothing of it was run"
            ) as caught:
                read_checkpoint(path)
            assert wanted in str(caught.value) or "UnpicklingError" in str(caught.value), name
        # The same through `torch.save`.
        torch.save({"model": hostile_pickles.Asks(eval, hostile_pickles.code(mark))}, tmp_path / "m.pth")
        with pytest.raises(EcgFileError, match="asks for .*eval"):
            read_checkpoint(tmp_path / "m.pth")
        assert not mark.exists()

    def archive(self, path: Path, content: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
        """An archive as `torch.save` makes it, around any pickle."""
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("archive/data.pkl", content)
            archive.writestr("archive/byteorder", b"little")
            archive.writestr("archive/version", b"3\n")
        return path

    @pytest.mark.parametrize("name", ["deep lists", "deep tuples", "claims a text", "doubled by DUP"])
    def test_bombs(self, tmp_path, name):
        path = self.archive(tmp_path / "m.pth", hostile_pickles.bombs()[name][0])
        with pytest.raises(EcgFileError):
            read_checkpoint(path)

    def test_what_torch_would_make_bytes_of(self, tmp_path):
        """`bytearray(10 ** 11)`, which torch's own reader of weights admits."""
        for module in (b"builtins", b"__builtin__"):
            content = b"\x80\x02c" + module + b"\nbytearray\n\x8a\x05" + (10**11).to_bytes(5, "little") + b"\x85R."
            with pytest.raises(EcgFileError, match=rf"asks for {module.decode()}.bytearray\)\. Nothing of it was run"):
                read_checkpoint(self.archive(tmp_path / "m.pth", content))

    def test_archives(self, tmp_path):
        path = tmp_path / "m.pth"
        with pytest.raises(EcgFileError, match="no such file"):
            read_checkpoint(path)
        for content in (b"", b"PK\x03\x04", pickle.dumps({"a": 1})):
            path.write_bytes(content)
            with pytest.raises(EcgFileError, match="not a checkpoint as torch.save has written"):
                read_checkpoint(path)
        with pytest.raises(EcgFileError, match="compressed"):
            read_checkpoint(self.archive(path, pickle.dumps({}) + bytes(10_000_000), zipfile.ZIP_DEFLATED))
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/other", b"")
        with pytest.raises(EcgFileError, match="expected one data.pkl"):
            read_checkpoint(path)

    def test_truncated(self, tmp_path):
        whole = io.BytesIO()
        torch.save({"model": {"a": torch.ones(1_000)}}, whole)
        path = tmp_path / "m.pth"
        for length in range(0, len(whole.getvalue()), 97):
            path.write_bytes(whole.getvalue()[:length])
            with pytest.raises(EcgFileError):
                read_checkpoint(path)


# ---- the language model ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pickled(tmp_path_factory) -> Path:
    """A tokenizer file whose dictionary is in the order of a hash table."""
    folder = tmp_path_factory.mktemp("tokenizer")
    return write(folder / "tokenizer.pkl", reference_data(trained_merges(NUM_MERGES), "bytes"))


def make_base(folder: Path, **options) -> Path:
    texts = ["Is the rhythm regular? yes", "Does this ECG show atrial fibrillation? no"]
    return make_tiny_llm(folder, texts, hidden_size=32, num_layers=2, num_heads=2, text_vocab_size=300, **options)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "tiny")


class Trained:
    """A language model as the paper's code trains it, with its checkpoint."""

    def __init__(self, folder: Path, base: Path, id_order: tuple[int, ...] | None, *, lora: bool) -> None:
        self.base = base
        self.model, self.tokenizer = extended_as_the_reference(base, id_order, lora=lora)
        state = {f"llm.{key}": value for key, value in self.model.state_dict().items()}
        self.path = save(folder / "best_model.pth", state)

    def logits(self, ecg: list[int], text: str) -> torch.Tensor:
        """Of the paper's prompt: bos, start, ECG, end, question."""
        tokens = ["<sig_start>", *(f"signal_{index}" for index in ecg), "<sig_end>"]
        ids = self.tokenizer.convert_tokens_to_ids(tokens)
        assert None not in ids
        words = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            return self.model(torch.tensor([[self.tokenizer.bos_token_id, *ids, *words]])).logits[0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, base, pickled) -> Trained:
    order = read_reference_vocabulary(pickled).id_order
    return Trained(tmp_path_factory.mktemp("trained"), base, order, lora=True)


@pytest.fixture(scope="module")
def converted(tmp_path_factory, trained, base, pickled) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "out"
    arguments = ["--kind", "ecg-byte", "--base", str(base), "--tokenizer", str(pickled), "--max-length", "512"]
    assert main(["convert", "checkpoint", str(trained.path), "--output", str(folder), *arguments]) == 0
    return folder


ECG = [97, 122, 256, 97 + 13, 256 + NUM_MERGES - 1, 260]
QUESTION = "Is the rhythm regular?"


class TestLanguageModel:
    def test_answers_as_the_trained_one(self, trained, converted):
        """The likelihood of every text token behind an ECG, through the project's own loader and prompt."""
        from ecgbyte_hf import EcgLanguageModel

        loaded = EcgLanguageModel.load(converted / "adapter", device="cpu")
        ids = loaded.processor.tokenizer.from_reference_ids(ECG)
        prompt = loaded.prompt.render(loaded.processor.tokenizer.ecg_text(ids), QUESTION)
        with torch.no_grad():
            got = loaded.model(**loaded.lm_tokenizer(prompt, return_tensors="pt")).logits[0]
        expected = trained.logits(ECG, QUESTION)
        num_text = len(AutoTokenizer.from_pretrained(converted / "base")) - 26 - NUM_MERGES - 3
        torch.testing.assert_close(got[:, :num_text], expected[:, :num_text])
        # Of the ECG tokens too: the output is tied to the rows, in our order.
        ours = loaded.lm_tokenizer.convert_tokens_to_ids([f"<|ecg_{index}|>" for index in ids.tolist()])
        theirs = trained.tokenizer.convert_tokens_to_ids([f"signal_{index}" for index in ECG])
        torch.testing.assert_close(got[:, ours], expected[:, theirs])
        # The adapter matters, and so does the order of the rows.
        with torch.no_grad(), loaded.model.disable_adapter():
            bare = loaded.model(**loaded.lm_tokenizer(prompt, return_tensors="pt")).logits[0]
        assert not torch.allclose(bare[:, :num_text], expected[:, :num_text], atol=1e-3)
        swapped = trained.logits([122, 97, *ECG[2:]], QUESTION)
        assert not torch.allclose(swapped[:, :num_text], expected[:, :num_text], atol=1e-3)

    def test_the_base_is_what_extend_llm_makes(self, converted, base, pickled, tmp_path):
        processor = make_processor(read_reference_vocabulary(pickled))
        extend_llm(str(base), processor, tmp_path / "extended", prompt=EcgPrompt(max_length=512))
        ours, theirs = (AutoTokenizer.from_pretrained(path) for path in (converted / "base", tmp_path / "extended"))
        assert ours.get_vocab() == theirs.get_vocab() and ours.pad_token == theirs.pad_token
        text = "".join(f"<|ecg_{index}|>" for index in range(26 + NUM_MERGES)) + QUESTION
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]
        configs = [
            json.loads((path / "config.json").read_text()) for path in (converted / "base", tmp_path / "extended")
        ]
        assert configs[0] == configs[1]
        files = [
            sorted(p.name for p in (path / "ecg_byte").iterdir())
            for path in (converted / "base", tmp_path / "extended")
        ]
        assert files[0] == files[1]

    def test_adapter_and_report(self, converted, trained, base):
        adapter = json.loads((converted / "adapter" / "adapter_config.json").read_text())
        assert adapter["base_model_name_or_path"] == str((converted / "base").resolve())
        assert (adapter["r"], adapter["lora_alpha"], adapter["lora_dropout"]) == (4, 32, 0.05)
        assert sorted(adapter["target_modules"]) == sorted(
            ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        )
        report = json.loads((converted / "conversion.json").read_text())
        assert report["kind"] == "ecg-byte" and report["epoch"] == 3 and report["keys_left_out"] == []
        assert report["keys"] == len(trained.model.state_dict())
        assert report["language_model"]["rows_left_out"] == 230 + 1  # the tiny base has padding of its own
        assert report["language_model"]["tokens_taken_over"] == 26 + NUM_MERGES + 2
        assert report["tokenizer"]["merges"] == NUM_MERGES
        assert report["provenance"]["arguments"]["base"] == base.name
        prompt = EcgPrompt.load(converted / "base" / "ecg_byte")
        assert prompt.template == "{ecg}{question}" and prompt.max_length == 512

    @pytest.mark.parametrize(
        ("family", "lora", "tied"), [("llama", False, True), ("llama", True, False), ("gpt2", True, True)]
    )
    def test_other_models(self, tmp_path, pickled, family, lora, tied):
        base = make_base(tmp_path / "base", family=family, tie_word_embeddings=tied)
        if not tied:  # as Llama, whose tokenizer has no padding
            tokenizer = AutoTokenizer.from_pretrained(base)
            tokenizer.pad_token = None
            tokenizer.save_pretrained(base)
        trained = Trained(tmp_path, base, read_reference_vocabulary(pickled).id_order, lora=lora)
        report = convert_ecg_byte_checkpoint(
            trained.path, tmp_path / "out", base=str(base), tokenizer=pickled, max_length=512
        )
        assert report["language_model"]["tied"] is tied
        place = tmp_path / "out" / ("base" if lora else "model")
        model = AutoModelForCausalLM.from_pretrained(place)
        if lora:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, tmp_path / "out" / "adapter")
        tokenizer = AutoTokenizer.from_pretrained(place)
        ids = [index - 97 if index < 256 else index - 256 + 26 for index in ECG]
        prompt = "<|ecg_start|>" + "".join(f"<|ecg_{index}|>" for index in ids) + "<|ecg_end|>" + QUESTION
        with torch.no_grad():
            got = model.eval()(**tokenizer(prompt, return_tensors="pt")).logits[0]
        torch.testing.assert_close(got[:, :200], trained.logits(ECG, QUESTION)[:, :200])
        if not tied:
            assert tokenizer.pad_token == "<|ecg_pad|>"
            row = trained.model.get_input_embeddings().weight[trained.tokenizer.convert_tokens_to_ids("<pad>")]
            assert torch.equal(model.get_input_embeddings().weight[tokenizer.pad_token_id], row)

    @pytest.mark.parametrize("tied", [False, True])
    def test_an_output_layer_with_a_bias(self, tied):
        """As Phi and GPT-J have one: the bias of a token moves with its row."""
        from transformers import GPTJConfig, GPTJForCausalLM

        from ecgbyte_hf.hub.reference_llm import _set_rows, _tables

        sizes = {"n_embd": 8, "n_layer": 1, "n_head": 1, "rotary_dim": 4, "n_positions": 16}
        config = GPTJConfig(vocab_size=7, bos_token_id=0, eos_token_id=1, tie_word_embeddings=tied, **sizes)
        model = GPTJForCausalLM(config).eval()
        with torch.no_grad():
            model.lm_head.bias.copy_(torch.arange(7.0))
            rows = [2, 0, 6, 5, 3]
            expected = model(torch.tensor([[6, 3, 2]])).logits[0][:, rows]
            _set_rows(model, [table.detach().clone() for table in _tables(model)], rows)
            got = model(torch.tensor([[2, 4, 0]])).logits[0]
        torch.testing.assert_close(got, expected)

    def convert(self, tmp_path, state, base, pickled, **options):
        path = save(tmp_path / "best_model.pth", state)
        options = {"base": str(base), "tokenizer": pickled, "max_length": 512} | options
        try:
            return convert_ecg_byte_checkpoint(path, tmp_path / "out", **options)
        finally:
            assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*partial"))

    @pytest.mark.parametrize(
        ("change", "error", "match"),
        [
            (lambda s, k: s.pop(k("norm.weight")), EncoderError, r"1 keys are missing \(model.norm.weight\)"),
            (lambda s, k: s.update({k("other"): torch.ones(1)}), EncoderError, r"1 unknown \(model.other\)"),
            (lambda s, k: s.update({"clip.x": torch.ones(1)}), EcgFileError, "1 keys do not belong .*: clip.x"),
            (lambda s, k: s.update({"llm.x": torch.ones(1)}), EcgFileError, "llm.x lies beside"),
            (lambda s, k: s.update({k("norm.weight"): torch.ones(5)}), EncoderError, r"has the shape \(5,\)"),
            (lambda s, k: s.pop(k("layers.0.mlp.up_proj.lora_A.default.weight")), EcgFileError, "without one another"),
            (
                lambda s, k: [s.pop(k(f"layers.1.mlp.up_proj.lora_{x}.default.weight")) for x in "AB"],
                EcgFileError,
                "layers.1.mlp.up_proj has no LoRA weights, others of its name have",
            ),
            (
                lambda s, k: s.update({k("layers.0.mlp.up_proj.lora_A.default.weight"): torch.ones(4, 5)}),
                EcgFileError,
                "have the shapes",
            ),
            (
                lambda s, k: s.update({k("layers.0.mlp.up_proj.lora_magnitude_vector.default"): torch.ones(4)}),
                EncoderError,
                "lora_magnitude_vector",
            ),
            (
                lambda s, k: s.update({"llm.base_model.model.lm_head.weight": s[k("embed_tokens.weight")] + 1}),
                EcgFileError,
                "ties them",
            ),
            (
                lambda s, k: s.update({k("embed_tokens.weight"): torch.ones(99, 32)}),
                VocabularyError,
                "model.embed_tokens.weight has 99 rows",
            ),
            (
                lambda s, k: s.pop(k("embed_tokens.weight")),
                EcgFileError,
                "no embeddings llm.model.embed_tokens.weight",
            ),
            (lambda s, k: s.clear() or s.update({"clip.x": torch.ones(1)}), EcgFileError, r"no keys llm\.\*"),
        ],
    )
    def test_every_key_counts(self, tmp_path, trained, base, pickled, change, error, match):
        state = dict(read_checkpoint(trained.path).tensors)
        change(state, lambda rest: f"llm.base_model.model.model.{rest}")
        with pytest.raises(error, match=match):
            self.convert(tmp_path, state, base, pickled)

    def test_lora_of_two_trainings(self, tmp_path, trained, base, pickled):
        state = dict(read_checkpoint(trained.path).tensors)
        key = "llm.base_model.model.model.layers.1.mlp.up_proj.lora_{}.default.weight"
        state[key.format("A")] = torch.ones(8, 32)
        shape = tuple(state[key.format("B")].shape)
        with pytest.raises(EcgFileError, match=rf"have the shapes B \({shape[0]}, 4\) and A \(8, 32\), expected"):
            self.convert(tmp_path, state, base, pickled)
        state[key.format("B")] = torch.ones(shape[0], 8)
        with pytest.raises(EcgFileError, match=r"ranks 4 \(.*\) and 8 \(model.layers.1.mlp.up_proj\), exp"):
            self.convert(tmp_path, state, base, pickled)

    def test_another_base(self, tmp_path, trained, pickled, monkeypatch):
        state = dict(read_checkpoint(trained.path).tensors)
        with pytest.raises(EcgFileError, match=r"--base, the language .* trained: /nowhere/x is not"):
            self.convert(tmp_path, state, "/nowhere/x", pickled)
        with pytest.raises(EcgFileError, match="no configuration and tokenizer of a language model"):
            (tmp_path / "empty").mkdir()
            self.convert(tmp_path, state, tmp_path / "empty", pickled)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(EcgHubError, match="trained: someone/nothing is not in the cache"):
            self.convert(tmp_path, state, "someone/nothing", pickled)

    def test_another_tokenizer_or_length(self, tmp_path, trained, base, pickled):
        state = dict(read_checkpoint(trained.path).tensors)
        other = write(tmp_path / "other.pkl", reference_data(trained_merges(NUM_MERGES + 1), "bytes"))
        with pytest.raises(VocabularyError, match=r"give the base model \(--base\) and the tokenizer file"):
            self.convert(tmp_path, state, base, other)
        with pytest.raises(BudgetError, match="reads at most 2048 tokens, the prompt's max_length is 4096"):
            self.convert(tmp_path, state, base, pickled, max_length=4096)

    def test_choices_of_the_command(self):
        assert cli_convert.KINDS == KINDS and cli_convert.PROFILES == PROFILES

    def test_options(self, tmp_path, capsys):
        start = ["convert", "checkpoint", "x.pth", "--output", str(tmp_path / "o")]
        for arguments, said in (
            ([], "needs --kind, --stage"),
            (["--kind", "resnet"], "needs --stage"),
            (["--kind", "ecg-byte"], "needs --base, --tokenizer"),
            (["--kind", "ecg-byte", "--stage", "1"], "--stage does not apply"),
            (["--kind", "clip", "--stage", "1", "--tokenizer", "x"], "--tokenizer does not apply"),
            (["--kind", "clip", "--stage", "2"], "--base is the language model of stage 2"),
            (["--kind", "clip", "--stage", "1", "--base", "x"], "--base is the language model of stage 2"),
        ):
            assert main([*start, *arguments]) == 1
            assert said in capsys.readouterr().err


# ---- encoders ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip() -> CLIPModel:
    return shake(seeded(CLIPModel, CLIPConfig(**CLIP)), 1)


@pytest.fixture(scope="module")
def vit() -> ViTForMaskedImageModeling:
    return shake(seeded(ViTForMaskedImageModeling, ViTConfig(**VIT)), 2)


@pytest.fixture(scope="module")
def states(clip, vit, tmp_path_factory) -> dict[str, dict[str, torch.Tensor]]:
    """Stage 1 of the picture encoders, by kind."""
    folder = tmp_path_factory.mktemp("states")
    of_clip = as_transformers_4_names(clip, folder / "clip")
    of_vit = as_transformers_4_names(vit, folder / "vit")
    assert "vit.encoder.layer.0.attention.attention.query.weight" in of_vit
    return {
        "clip": prefixed("clip.", of_clip),
        "vit": prefixed("vit.", of_vit),
        "clip-vit": prefixed("clip.clip.", of_clip) | prefixed("vit.vit.", of_vit),
    }


def resnet_pretrain(kind: str = "basic") -> ResNetPretrain:
    torch.manual_seed(4)
    tokens = resnet_config().num_tokens(64)
    return shake(ResNetPretrain(ResNet(kind), BertModel(BertConfig(**BERT)), tokens), 3)


CONFIGS = {
    "clip": EcgClipConfig(clip_config=CLIP),
    "vit": EcgVitConfig(vit_config=VIT),
    "clip-vit": EcgClipVitConfig(clip_config=CLIP, vit_config=VIT),
    "resnet": resnet_config(),
}


def given(kind: str) -> dict:
    """Arguments of a conversion that looks for no text tokenizer."""
    return {"kind": kind, "config": CONFIGS[kind], "text_tokenizer": None if kind == "vit" else "none"}


def check_clip(model, clip: CLIPModel, inputs) -> None:
    with torch.no_grad():
        expected, got = clip(**inputs, return_loss=True), model(**inputs)
    torch.testing.assert_close(got.ecg_embeds, expected.image_embeds)
    torch.testing.assert_close(got.text_embeds, expected.text_embeds)
    torch.testing.assert_close(got.cross_modal_loss, expected.loss)


def check_vit(model, vit: ViTForMaskedImageModeling, pixels: torch.Tensor, mask: torch.Tensor, got) -> None:
    with torch.no_grad():
        expected = vit(pixels, bool_masked_pos=mask, output_hidden_states=True)
    torch.testing.assert_close(got.reconstruction, expected.reconstruction)


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> str:
    """The folder of the tiny text towers' tokenizer."""
    folder = tmp_path_factory.mktemp("texts") / "tokenizer"
    text_tokenizer().save_pretrained(folder)
    return str(folder)


class TestEncoders:
    def test_clip(self, tmp_path, clip, states, texts):
        config = tmp_path / "config"
        CONFIGS["clip"].save_pretrained(config)
        path = save(
            tmp_path / "m.pth", states["clip"] | {"clip.vision_model.embeddings.position_ids": torch.arange(17)}
        )
        arguments = ["--kind", "clip", "--stage", "1", "--encoder-config", str(config / "config.json")]
        arguments += ["--text-tokenizer", texts]
        assert main(["convert", "checkpoint", str(path), "--output", str(tmp_path / "out"), *arguments]) == 0
        check_clip(EcgClipForPreTraining.from_pretrained(tmp_path / "out").eval(), clip, make_inputs("EcgClip"))
        assert EcgImageProcessor.from_pretrained(tmp_path / "out").mode == "reference"
        assert EcgByteFeatureExtractor.from_pretrained(tmp_path / "out" / "signal").profile == "reference"
        report = json.loads((tmp_path / "out" / "conversion.json").read_text())
        assert report["keys_left_out"] == ["clip.vision_model.embeddings.position_ids"]
        assert report["keys"] == len(states["clip"]) + 1 and report["max_text_length"] == 16
        assert report["provenance"]["arguments"]["text_tokenizer"] == Path(texts).name

    def test_vit(self, tmp_path, vit, states):
        path = save(tmp_path / "m.pth", states["vit"], config_file="config")
        convert_encoder_checkpoint(path, tmp_path / "out", kind="vit", stage=1, config=CONFIGS["vit"])
        model = EcgVitForPreTraining.from_pretrained(tmp_path / "out").eval()
        pixels, mask = make_inputs("EcgVit")["pixel_values"], torch.arange(64).repeat(4, 1) % 4 > 0
        with torch.no_grad():
            check_vit(model, vit, pixels, mask, model(pixels, bool_masked_pos=mask))
            hidden = vit.vit(pixels, output_hidden_states=True).hidden_states
            # What the second stage uses: the mean over layers, then over tokens.
            torch.testing.assert_close(model.encoder(pixels).pooler_output, torch.stack(hidden).mean(0).mean(1))
        processor = EcgImageProcessor.from_pretrained(tmp_path / "out")
        assert (processor.mode, processor.image_mean) == ("resize", [0.5, 0.5, 0.5])

    def test_clip_vit(self, tmp_path, clip, vit, states):
        path = save(tmp_path / "m.pth", states["clip-vit"])
        report = convert_encoder_checkpoint(path, tmp_path / "out", stage=1, **given("clip-vit"))
        assert "two pictures" in report["notes"][0]
        model = EcgClipVitForPreTraining.from_pretrained(tmp_path / "out").eval()
        inputs, mask = make_inputs("EcgClipVit"), torch.arange(64).repeat(4, 1) % 4 > 0
        check_clip(model, clip, inputs)
        with torch.no_grad():
            check_vit(model, vit, inputs["pixel_values"], mask, model(**inputs, bool_masked_pos=mask))

    @pytest.mark.parametrize("kind", ["basic", "bottleneck"])
    def test_resnet(self, tmp_path, kind, texts):
        reference = resnet_pretrain(kind)
        path = save(tmp_path / "m.pth", reference.state_dict())
        report = convert_encoder_checkpoint(
            path, tmp_path / "out", kind="resnet", stage=1, config=resnet_config(block=kind), text_tokenizer=texts
        )
        assert report["keys_left_out"] == ["resnet.linear.bias", "resnet.linear.weight"]
        model = EcgResNetForPreTraining.from_pretrained(tmp_path / "out").eval()
        texts = {name: value[:3] for name, value in make_inputs("EcgResNet").items() if name != "input_values"}
        with torch.no_grad():
            expected = reference(scaled(SIGNAL), texts["input_ids"], texts["attention_mask"])
            torch.testing.assert_close(model.get_ecg_features(SIGNAL), expected.ecg)
            torch.testing.assert_close(model.get_text_features(**texts), expected.text)
            features = model._features(model.encoder(SIGNAL).last_hidden_state).mean(dim=1)
            for project, view in zip(model.view_projections, expected.views, strict=True):
                torch.testing.assert_close(project(features), view)
        assert EcgByteFeatureExtractor.from_pretrained(tmp_path / "out").sampling_rate == 250

    @pytest.mark.parametrize(
        ("kind", "other", "error", "match"),
        [
            ("clip", "vit", EncoderError, r"no keys clip.vision_model.\*, where CLIPVision"),
            ("vit", "clip", EncoderError, r"no keys vit.vit.\*, where ViTModel"),
            ("vit", "clip-vit", EncoderError, "of ViTModel .* transformers 4 and 5"),
            ("clip", "clip-vit", EncoderError, r"no keys clip.vision_model.\*, where CLIPVision"),
            ("clip-vit", "clip", EncoderError, r"no keys clip.clip.vision_model.\*, where CLIPVision"),
            ("resnet", "clip", EncoderError, r"no keys resnet.\*, where EcgResNetModel"),
        ],
    )
    def test_another_kind(self, tmp_path, states, kind, other, error, match):
        path = save(tmp_path / "m.pth", states[other])
        with pytest.raises(error, match=match):
            convert_encoder_checkpoint(path, tmp_path / "out", stage=1, **given(kind))
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("kind", "change", "error", "match"),
        [
            ("clip", lambda s: s.update({"clip.x": torch.ones(1)}), EcgFileError, "1 keys do not belong .*: clip.x"),
            ("clip", lambda s: s.pop("clip.logit_scale"), EncoderError, "clip.logit_scale is missing"),
            ("vit", lambda s: s.update({"vit.decoder.1.x": torch.ones(1)}), EcgFileError, "vit.decoder.1.x"),
            ("vit", lambda s: s.pop("vit.vit.layernorm.bias"), EncoderError, r"missing \(layernorm.bias\)"),
            ("vit", lambda s: s.update({"vit.decoder.0.bias": torch.ones(3)}), EncoderError, "--encoder-config"),
        ],
    )
    def test_every_key_counts(self, tmp_path, states, kind, change, error, match):
        state = dict(states[kind])
        change(state)
        with pytest.raises(error, match=match):
            convert_encoder_checkpoint(save(tmp_path / "m.pth", state), tmp_path / "out", stage=1, **given(kind))

    @pytest.mark.parametrize(
        "key", ["att_pool_head.cls_token", "att_pool_head.mhsa.in_proj_bias", "downconv.bias", "lm.pooler.dense.bias"]
    )
    def test_every_key_of_the_resnet_counts(self, tmp_path, key):
        state = resnet_pretrain().state_dict()
        del state[key]
        with pytest.raises(EncoderError, match=key.rsplit(".", 1)[-1]):
            convert_encoder_checkpoint(save(tmp_path / "m.pth", state), tmp_path / "out", stage=1, **given("resnet"))

    def test_wrong_arguments(self, tmp_path, states):
        path = save(tmp_path / "m.pth", states["clip"])
        for options, match in (
            ({"kind": "dino", "stage": 1}, "got the kind 'dino'"),
            ({"kind": "clip", "stage": 3}, "got stage 3"),
            (given("clip") | {"stage": 1, "config": CONFIGS["vit"]}, "expected EcgClipConfig"),
            ({"kind": "vit", "stage": 1, "text_tokenizer": "x"}, "vit reads no texts; leave --text-tokenizer out"),
            ({"kind": "clip", "stage": 2, "base": "x", "text_tokenizer": "x"}, "--text-tokenizer is that of stage 1"),
        ):
            with pytest.raises(EcgError, match=match):
                convert_encoder_checkpoint(path, tmp_path / "out", **options)


@pytest.fixture(scope="module")
def converted_clip(tmp_path_factory, states, texts) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    CONFIGS["clip"].save_pretrained(folder / "config")
    path = save(folder / "m.pth", states["clip"])
    arguments = ["--kind", "clip", "--stage", "1", "--encoder-config", str(folder / "config")]
    arguments += ["--leads", *LEADS, "--sampling-rate", "100", "--profile", "none", "--text-tokenizer", texts]
    assert main(["convert", "checkpoint", str(path), "--output", str(folder / "out"), *arguments]) == 0
    return folder / "out"


class TestTextTokenizers:
    """A converted encoder of stage 1 is what `ecgbyte pretrain-encoder` writes: it can be compared with texts."""

    def test_it_compares_texts(self, converted_clip, clip):
        parts = load_parts(converted_clip)
        assert parts.max_text_length == 16  # the tower's positions, of the paper's 77
        given = parts.tokenizer(["w5 w9", "w7 nothing"], padding=True, return_tensors="pt")
        assert given["input_ids"].tolist() == [[38, 5, 9, 39], [38, 7, 1, 39]]
        with torch.no_grad():
            expected = clip.get_text_features(**given).pooler_output
            got = parts.model.get_text_features(given["input_ids"], given["attention_mask"])
        torch.testing.assert_close(got, F.normalize(expected, dim=-1))

    def test_it_is_probed_and_pretrained_on(self, converted_clip, small_prepared, tmp_path, capsys):
        data = ["--data", str(small_prepared.folder)]
        report = tmp_path / "probe.json"
        asked = ["--fractions", "--zero-shot", "--retrieval", "--texts", "labels", "--resamples", "20"]
        asked += ["--device", "cpu", "--output", str(report)]
        assert (
            main(
                [
                    "probe-encoder",
                    "--encoder",
                    str(converted_clip),
                    *data,
                    "--output",
                    str(report),
                    *asked,
                    "--device",
                    "cpu",
                ]
            )
            == 0
        )
        measured = json.loads(report.read_text())["systems"]["encoder"]
        assert measured["retrieval"]["ecg_to_text"]["queries"] == 2 and "macro_auc" in measured["zero_shot"]
        start = ["--encoder", "clip", "--init-from", str(converted_clip), "--output", str(tmp_path / "on")]
        steps = ["--max-steps", "1", "--batch-size", "4", "--texts", "labels", "--cpu"]
        steps += ["--lr-scheduler", "constant", "--learning-rate", "1e-3"]
        assert main(["pretrain-encoder", *start, *data, *steps]) == 0
        before, after = (load_file(folder / "model.safetensors") for folder in (converted_clip, tmp_path / "on"))
        key = "encoder.vision.visual_projection.weight"
        assert 0 < (before[key] - after[key]).abs().max() < 0.01

    def test_what_is_refused(self, tmp_path, states, texts, monkeypatch):
        path = save(tmp_path / "m.pth", states["clip"])

        def convert(name, config=CONFIGS["clip"]):
            chosen = given("clip") | {"config": config, "text_tokenizer": name}
            return convert_encoder_checkpoint(path, tmp_path / "out", stage=1, **chosen)

        with pytest.raises(EcgFileError, match=r"text tower ./nowhere is not there.*--text-tokenizer none"):
            convert("/nowhere")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(EcgFileError, match=r"text tower .openai/clip-vit-base-patch32 is not in the cache"):
            convert(None)
        (tmp_path / "empty").mkdir()
        with pytest.raises(EcgFileError, match="no tokenizer for the text tower"):
            convert(str(tmp_path / "empty"))
        larger = text_tokenizer()
        larger.add_tokens(["another"])
        larger.save_pretrained(tmp_path / "larger")
        with pytest.raises(EncoderError, match="the text tower has 40 rows, its tokenizer 41 tokens"):
            convert(str(tmp_path / "larger"))
        ends = EcgClipConfig(clip_config=CLIP | {"text_config": CLIP["text_config"] | {"eos_token_id": 30}})
        with pytest.raises(EncoderError, match="reads a text at the token 30, and the tokenizer ends texts with 39"):
            convert(texts, ends)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(("kind", "name"), [("clip-vit", "openai/clip-vit-base"), ("resnet", "ncbi/MedCPT")])
    def test_the_paper_s_by_default(self, tmp_path, kind, name, monkeypatch):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(EcgFileError, match=f"text tower .{name}"):
            convert_encoder_checkpoint(tmp_path / "m.pth", tmp_path / "out", kind=kind, stage=1)


@pytest.fixture(scope="module")
def llm(tmp_path_factory, base) -> Trained:
    """A second stage's language model, with one placeholder."""
    return Trained(tmp_path_factory.mktemp("llm"), base, None, lora=True)


SECOND_STAGES = ("clip", "vit", "clip-vit", "resnet")


def second_stage_state(kind: str, llm: Trained, states) -> dict[str, torch.Tensor]:
    encoder = prefixed("resnet.resnet.", resnet_pretrain().resnet.state_dict()) if kind == "resnet" else states[kind]
    width = llm.model.get_input_embeddings().weight.shape[1]
    return dict(read_checkpoint(llm.path).tensors) | encoder | projections(kind, width)


@pytest.fixture(scope="module")
def outs(tmp_path_factory, llm, base, states) -> dict[str, Path]:
    """What the command makes of a checkpoint of each kind."""
    made = {}
    for kind in SECOND_STAGES:
        folder = tmp_path_factory.mktemp(kind)
        path = save(folder / "m.pth", second_stage_state(kind, llm, states))
        CONFIGS[kind].save_pretrained(folder / "config")
        arguments = ["--kind", kind, "--stage", "2", "--base", str(base), "--max-length", "256"]
        arguments += ["--encoder-config", str(folder / "config"), "--output", str(folder / "out")]
        assert main(["convert", "checkpoint", str(path), *arguments]) == 0
        made[kind] = folder / "out"
    return made


def adapt_the_output_layer(state: dict[str, torch.Tensor]) -> None:
    name = "llm.base_model.model.lm_head"
    weight = state[f"{name}.base_layer.weight"] = state.pop(f"{name}.weight")
    state[f"{name}.lora_A.default.weight"] = torch.ones(4, weight.shape[1])
    state[f"{name}.lora_B.default.weight"] = torch.ones(weight.shape[0], 4)


class TestSecondStage:
    def expected(self, kind: str, llm: Trained, states, clip, vit, alpha: int = 32) -> tuple[torch.Tensor, ...]:
        """What the encoder reads, and the logits of the paper's prompt by the twin."""
        towers = {"clip": [clip], "vit": [vit], "clip-vit": [clip, vit], "resnet": [resnet_pretrain().resnet]}[kind]
        config = AutoConfig.from_pretrained(llm.base)
        config.vocab_size = len(llm.tokenizer)
        twin = SecondStage(kind, towers, second_stage_state(kind, llm, states), config, alpha)
        values = SIGNAL if kind == "resnet" else make_inputs("EcgVit", batch=3)["pixel_values"]
        start, signal, end = llm.tokenizer.convert_tokens_to_ids(["<sig_start>", "<signal>", "<sig_end>"])
        words = llm.tokenizer(QUESTION, add_special_tokens=False)["input_ids"]
        ids = [llm.tokenizer.bos_token_id, start, signal, end, *words]
        return values, twin.logits(scaled(values) if kind == "resnet" else values, ids, signal)

    def logits(self, model, processor, prompt: EcgPrompt, values: torch.Tensor) -> torch.Tensor:
        text = prompt.render(processor.ecg_text, QUESTION)
        ids = processor.tokenizer([text] * len(values), return_tensors="pt")
        with torch.no_grad():
            return model.eval()(**ids, ecg_values=values).logits

    def columns(self, llm: Trained, tokenizer) -> tuple[list[int], list[int]]:
        """The same tokens here and there: those of the base, start, end and placeholder."""
        num_old = len(AutoTokenizer.from_pretrained(llm.base))
        ours, theirs = ["<|ecg_start|>", "<|ecg|>", "<|ecg_end|>"], ["<sig_start>", "<signal>", "<sig_end>"]
        old = list(range(num_old))
        return (
            old + tokenizer.convert_tokens_to_ids(ours),
            old + llm.tokenizer.convert_tokens_to_ids(theirs),
        )

    def check_folder(self, place: Path, expected: torch.Tensor, values: torch.Tensor, llm: Trained) -> None:
        """Its logits, by the Auto classes, are the twin's."""
        model, processor = AutoModelForCausalLM.from_pretrained(place), AutoProcessor.from_pretrained(place)
        got = self.logits(model, processor, EcgPrompt.load(place), values)
        ours, theirs = self.columns(llm, processor.tokenizer)
        torch.testing.assert_close(got[..., ours], expected[..., theirs], rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("kind", SECOND_STAGES)
    def test_logits_are_those_of_the_checkpoint(self, outs, llm, states, clip, vit, kind):
        from ecgbyte_hf import EcgLanguageModel

        values, expected = self.expected(kind, llm, states, clip, vit)
        loaded = EcgLanguageModel.load(outs[kind] / "adapter", device="cpu")
        got = self.logits(loaded.model, loaded.processor, loaded.prompt, values)
        ours, theirs = self.columns(llm, loaded.lm_tokenizer)
        torch.testing.assert_close(got[..., ours], expected[..., theirs], rtol=1e-4, atol=1e-4)
        # An ECG matters behind its place only, and so do the adapter and its scale.
        assert torch.equal(expected[0, :2], expected[1, :2])
        assert (expected[0, 2:] - expected[1, 2:]).abs().amax(dim=-1).min() > 0.01
        _, doubled = self.expected(kind, llm, states, clip, vit, alpha=64)
        assert (doubled - expected).abs().max() > 0.01

    @pytest.mark.parametrize("kind", SECOND_STAGES)
    def test_auto_classes_load_it(self, outs, kind):
        """The adapter with its base by one call, and the base alone."""
        whole = AutoModelForCausalLM.from_pretrained(outs[kind] / "adapter").eval()
        processor = AutoProcessor.from_pretrained(outs[kind] / "adapter")
        assert type(whole).__name__ == "EcgLlmForConditionalGeneration"
        assert (processor.picture is None) == (kind == "resnet")
        prompt = EcgPrompt.load(outs[kind] / "adapter")
        assert (prompt.template, prompt.max_length) == ("{ecg}{question}", 256)
        from ecgbyte_hf import EcgLanguageModel

        values = SIGNAL if kind == "resnet" else make_inputs("EcgVit", batch=3)["pixel_values"]
        loaded = EcgLanguageModel.load(outs[kind] / "adapter", device="cpu")
        expected = self.logits(loaded.model, loaded.processor, prompt, values)
        torch.testing.assert_close(self.logits(whole, processor, prompt, values), expected)
        base = AutoModelForCausalLM.from_pretrained(outs[kind] / "base")
        assert not torch.allclose(self.logits(base, processor, prompt, values), expected, atol=1e-3)
        assert base.model.config.freeze_encoder and not any(p.requires_grad for p in base.model.encoder.parameters())
        body = AutoModel.from_pretrained(outs[kind] / "base")
        torch.testing.assert_close(body.get_ecg_features(values), base.get_ecg_features(values))

    def test_what_the_reports_say(self, outs, llm, base):
        reports = {kind: json.loads((out / "conversion.json").read_text()) for kind, out in outs.items()}
        for kind, report in reports.items():
            model = report["language_model"]
            assert (model["lora_rank"], model["merged"], model["tokens_taken_over"]) == (4, False, 3)
            assert json.loads((outs[kind] / "adapter" / "conversion.json").read_text()) == report
        assert {kind: report["parts_left_out"] for kind, report in reports.items()} == {
            "clip": ["text_head"],
            "vit": ["decoder"],
            "clip-vit": ["text_head", "decoder"],
            "resnet": [],
        }
        assert {kind: len(report["notes"]) for kind, report in reports.items()} == {
            "clip": 0,
            "vit": 1,
            "clip-vit": 2,
            "resnet": 0,
        }
        adapter = json.loads((outs["clip"] / "adapter" / "adapter_config.json").read_text())
        assert adapter["base_model_name_or_path"] == str((outs["clip"] / "base").resolve())
        # CLIP's layers have the same names; none of them is adapted.
        assert all("language_model" in key for key in load_file(outs["clip"] / "adapter/adapter_model.safetensors"))

    def test_merged(self, tmp_path, outs, llm, base, states, clip, vit):
        path = save(tmp_path / "m.pth", second_stage_state("clip", llm, states))
        report = convert_encoder_checkpoint(
            path, tmp_path / "out", kind="clip", stage=2, base=str(base), config=CONFIGS["clip"], merge=True
        )
        assert report["language_model"]["merged"] and not (tmp_path / "out" / "adapter").exists()
        values, expected = self.expected("clip", llm, states, clip, vit)
        self.check_folder(tmp_path / "out" / "model", expected, values, llm)

    def test_the_kind_of_layers_that_gpt2_has(self, tmp_path, states, clip, vit):
        base = make_base(tmp_path / "base", family="gpt2")
        trained = Trained(tmp_path, base, None, lora=True)
        path = save(tmp_path / "m.pth", second_stage_state("clip", trained, states))
        chosen = {"kind": "clip", "stage": 2, "base": str(base), "config": CONFIGS["clip"], "max_length": 128}
        values, expected = self.expected("clip", trained, states, clip, vit)
        for merge, place in ((False, "adapter"), (True, "model")):
            convert_encoder_checkpoint(path, tmp_path / place, **chosen, merge=merge)
            self.check_folder(tmp_path / place / place, expected, values, trained)

    def test_trained_as_a_whole(self, tmp_path, base, states, clip, vit):
        trained = Trained(tmp_path, base, None, lora=False)
        path = save(tmp_path / "m.pth", second_stage_state("resnet", trained, states))
        chosen = {"kind": "resnet", "stage": 2, "base": str(base), "config": CONFIGS["resnet"]}
        report = convert_encoder_checkpoint(path, tmp_path / "out", **chosen)
        assert report["language_model"]["lora_rank"] is None and not (tmp_path / "out" / "adapter").exists()
        values, expected = self.expected("resnet", trained, states, clip, vit)
        self.check_folder(tmp_path / "out" / "model", expected, values, trained)

    def test_a_projection_of_another_precision_is_told(self, tmp_path, llm, base, states):
        state = second_stage_state("resnet", llm, states)
        state |= {key: value.bfloat16() for key, value in state.items() if key.startswith("image_projection")}
        path = save(tmp_path / "m.pth", state)
        chosen = {"kind": "resnet", "stage": 2, "base": str(base), "config": CONFIGS["resnet"]}
        (note,) = convert_encoder_checkpoint(path, tmp_path / "out", **chosen)["notes"]
        assert note == "the projection is torch.bfloat16 in the checkpoint and torch.float32 here, like the rest"
        state |= {key: value.bfloat16() for key, value in state.items() if key.startswith("llm.")}
        path = save(tmp_path / "m.pth", state)
        assert convert_encoder_checkpoint(path, tmp_path / "half", **chosen)["notes"] == []
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "half" / "base").model
        parts = (model.encoder, model.projector.projections, model.language_model)
        dtypes = [{parameter.dtype for parameter in part.parameters()} for part in parts]
        assert dtypes == [{torch.float32}, {torch.bfloat16}, {torch.bfloat16}]

    def test_it_answers(self, tmp_path, llm, base, states, small_prepared, capsys):
        path = save(tmp_path / "m.pth", second_stage_state("vit", llm, states))
        CONFIGS["vit"].save_pretrained(tmp_path / "config")
        arguments = ["--kind", "vit", "--stage", "2", "--base", str(base)]
        arguments += ["--encoder-config", str(tmp_path / "config")]
        arguments += ["--leads", *LEADS, "--sampling-rate", "100", "--profile", "none", "--max-length", "256"]
        assert main(["convert", "checkpoint", str(path), "--output", str(tmp_path / "out"), *arguments]) == 0
        said = capsys.readouterr().out
        adapter = str(tmp_path / "out" / "adapter")
        assert f"next: ecgbyte generate --model {adapter}" in said and "ViT sees the whole picture" in said
        answers = tmp_path / "answers.jsonl"
        arguments = ["--data", str(small_prepared.folder), "--output", str(answers), "--max-new-tokens", "3"]
        assert main(["generate", "--model", adapter, *arguments, "--device", "cpu"]) == 0
        assert len(answers.read_text().splitlines()) == len(small_prepared.questions("test"))
        form = {"fs": 100, "units": ["mV", "mV"], "sig_name": LEADS, "fmt": ["16", "16"], "write_dir": str(tmp_path)}
        signal = small_prepared.signal(small_prepared.ecg_ids[0])
        wfdb.wrsamp("ecg", p_signal=signal.T.astype(np.float64), **form)
        capsys.readouterr()
        assert main(["ask", "--model", adapter, str(tmp_path / "ecg"), QUESTION, "--device", "cpu"]) == 0
        assert capsys.readouterr().out.strip()

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            (lambda s: s.pop("image_projection.bias"), "no key image_projection.bias"),
            (lambda s: s.update({"image_projection.weight": torch.ones(32, 9)}), r"has the shape \(32, 9\)"),
            (lambda s: s.update({"visual_fusion.0.weight": torch.ones(1)}), "belong to .* visual_fusion.0.weight"),
            (lambda s: s.update({"clip.x": torch.ones(1)}), "belong to .* clip.x"),
            (
                lambda s: [s.pop(key) for key in list(s) if key.startswith("clip.text_projection")],
                r"no keys clip.text_projection.\*, where Linear",
            ),
            (adapt_the_output_layer, r"LoRA weights of lm_head, which is not among the layers model\.\*"),
        ],
    )
    def test_every_key_counts(self, tmp_path, llm, base, states, change, match):
        state = second_stage_state("clip", llm, states)
        change(state)
        path = save(tmp_path / "m.pth", state)
        with pytest.raises(EcgError, match=match):
            convert_encoder_checkpoint(
                path, tmp_path / "out", kind="clip", stage=2, base=str(base), config=CONFIGS["clip"]
            )
        assert not (tmp_path / "out").exists()
