"""Makes a base model and a PEFT adapter from a language model that the paper's code trained.

The checkpoint holds the whole model, frozen weights and LoRA, so of the base model only configuration and tokenizer
are needed. The paper's code adds tokens to that tokenizer and resizes the embeddings to its length; the rows stay
frozen under LoRA and are taken over, in another order:

| the paper's code | here |
| --- | --- |
| `signal_ID`, in the order of the tokenizer file's dictionary | `<|ecg_i|>`, i = ID - 97 (a letter) or ID - 230 |
| `signal_ID` of the 230 bytes that never occur | left out |
| `<sig_start>`, `<sig_end>` | `<|ecg_start|>`, `<|ecg_end|>` |
| `<signal>` (two-stage models, instead of `signal_ID`) | `<|ecg|>` |
| `<pad>` | `<|ecg_pad|>`, where the tokenizer has no padding of its own |

A prompt is what the paper's code shows its model: ECG and question with nothing in between, then the answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgbyte_hf.data.ecg_parts import note_base, save_parts
from ecgbyte_hf.data.hub_folder import CONFIG_AND_TOKENIZER_FILES, local_or_hub_folder
from ecgbyte_hf.data.prompts import EcgPrompt
from ecgbyte_hf.hub.reference_checkpoint import Checkpoint, load_exactly
from ecgbyte_hf.hub.reference_tokenizer import NUM_BYTES, ReferenceVocabulary
from ecgbyte_hf.models.errors_ecg_byte import EcgFileError, EcgHubError, VocabularyError
from ecgbyte_hf.models.vocabulary_ecg_byte import ALPHABET
from ecgbyte_hf.training.extend_llm import ExtendableModel, check_positions

if TYPE_CHECKING:
    import torch

#: Of each adapted layer, its two matrices.
Lora = dict[str, dict[str, "torch.Tensor"]]

_START, _END, _SIGNAL, _PAD = "<sig_start>", "<sig_end>", "<signal>", "<pad>"
_PEFT_PREFIX = "base_model.model."
_LORA = re.compile(r"(.+)\.lora_([AB])\.default\.weight")
#: As the paper's code sets them; a checkpoint does not say.
LORA_ALPHA, LORA_DROPOUT = 32, 0.05


@dataclass(frozen=True)
class ConvertedModel:
    """What became of a language model.

    Attributes:
        tokens_taken_over: Rows of ECG tokens, start, end and padding.
        rows_left_out: Rows of the reference's tokens that never occur, and of padding where the base has its own.
        vocab_size: Tokens of the new tokenizer.
        tied: Whether input and output embeddings share their weights.
        lora_rank: Of the adapter; `None` for a model that was trained as a whole.
        lora_modules: Names of the adapted layers.
        merged: Whether the adapter was worked into the model.
        hidden_size: Width of the embeddings.
    """

    tokens_taken_over: int
    rows_left_out: int
    vocab_size: int
    tied: bool
    lora_rank: int | None
    lora_modules: tuple[str, ...]
    merged: bool
    hidden_size: int


@dataclass(frozen=True)
class ReferenceLanguageModel:
    """A language model of the paper's code that knows our tokens, and is not written yet.

    Attributes:
        base: The model that was trained.
        revision: Of it on the Hub.
        model: The model without its adapter; in the second stage the `EcgLlmForConditionalGeneration` it is part of.
        tokenizer: The extended tokenizer.
        prompt: Wording and budget.
        lora: Layer -> "A" or "B" -> weights that were not worked in.
        lora_alpha: The adapter's scale times its rank.
        report: What became of it.
        lora_targets: The regular expression that PEFT finds the layers by, where their names alone do not tell.
    """

    base: str
    revision: str | None
    model: Any
    tokenizer: Any
    prompt: EcgPrompt
    lora: Lora
    lora_alpha: int
    report: ConvertedModel
    lora_targets: str | None = None

    def save(self, folder: Path, final_folder: Path, processor: Any) -> None:
        """Write `base/` and `adapter/`, or `model/` where nothing is left to adapt.

        Args:
            folder: Where they are written.
            final_folder: Where `folder` will lie; the adapter names its base there.
            processor: The `EcgByteProcessor` or `EcgLlmProcessor`, saved with the prompt beside both.
        """
        model_folder = folder / ("base" if self.lora else "model")
        self.model.save_pretrained(model_folder)
        self._save_texts(model_folder, processor)
        if self.lora:
            self._save_adapter(folder / "adapter", str((final_folder / "base").resolve()))
            self._save_texts(folder / "adapter", processor)

    def _save_texts(self, folder: Path, processor: Any) -> None:
        self.tokenizer.save_pretrained(folder)
        note_base(folder, self.base, self.revision)
        save_parts(folder, processor, self.prompt)

    def _save_adapter(self, folder: Path, base: str) -> None:
        from peft import LoraConfig
        from safetensors.torch import save_file

        config = LoraConfig(
            r=self.report.lora_rank or 0,
            lora_alpha=self.lora_alpha,
            lora_dropout=LORA_DROPOUT,
            target_modules=self.lora_targets or list(self.report.lora_modules),
            fan_in_fan_out=_is_transposed(self.model),
            bias="none",
            task_type="CAUSAL_LM",
            base_model_name_or_path=base,
            inference_mode=True,
        )
        config.save_pretrained(str(folder))
        tensors = {
            f"{_PEFT_PREFIX}{layer}.lora_{side}.weight": tensor.contiguous()
            for layer, sides in self.lora.items()
            for side, tensor in sides.items()
        }
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def paper_prompt(max_length: int = 1024) -> EcgPrompt:
    """The wording and the length that the paper's code trains with."""
    return EcgPrompt(template="{ecg}{question}", completion="{answer}", answer_separator=" ", max_length=max_length)


def read_language_model(
    checkpoint: Checkpoint,
    base: str,
    *,
    vocabulary: ReferenceVocabulary | None,
    prompt: EcgPrompt | None = None,
    lora_alpha: int = LORA_ALPHA,
    merge: bool = False,
    revision: str | None = None,
) -> ReferenceLanguageModel:
    """The language model in a checkpoint, whose tensors are taken out of it.

    Args:
        checkpoint: What `read_checkpoint` returned.
        base: The model that was trained, a folder or a name on the Hub: its configuration and tokenizer are read.
        vocabulary: Of the ECG tokens; `None` for the second stage, which has one placeholder.
        prompt: Wording and budget; by default the paper's.
        lora_alpha: The adapter's scale times its rank.
        merge: Work the adapter into the model, whose weights are rounded to their dtype once more.
        revision: Of the base on the Hub.

    Raises:
        EcgFileError: keys that belong to no such model, LoRA weights that do not fit, or no such base.
        EcgHubError: the Hub does not have or give the base.
        EncoderError: the weights are not those of the base model.
        VocabularyError: the embeddings have other rows than the tokenizers give.
        BudgetError: the model has fewer positions than the prompt may take.
    """
    weights, lora = _parts(checkpoint)
    folder = _base_folder(base, revision)
    config, tokenizer, reference = _base_parts(base, folder)
    prompt = prompt or paper_prompt()
    check_positions(base, config, prompt)
    num_old = len(tokenizer)
    _extend_reference(reference, vocabulary)
    model = _filled_model(config, weights, len(reference), checkpoint.where)
    _take_generation_config(model, folder)
    rank = _checked_rank(lora, model, checkpoint.where) if lora else None
    modules = tuple(sorted({layer.rsplit(".", 1)[-1] for layer in lora}))
    if merge:
        _work_in(model, lora, lora_alpha)
        lora = {}
    rows = _take_our_tokens(model, tokenizer, reference, _renamed_tokens(vocabulary), base, prompt)
    report = ConvertedModel(
        tokens_taken_over=len(rows) - num_old,
        rows_left_out=len(reference) - len(set(rows)),
        vocab_size=len(tokenizer),
        tied=_is_tied(model),
        lora_rank=rank,
        lora_modules=modules,
        merged=merge and rank is not None,
        hidden_size=model.get_input_embeddings().weight.shape[1],
    )
    return ReferenceLanguageModel(base, revision, model, tokenizer, prompt, lora, lora_alpha, report)


def _base_folder(base: str, revision: str | None) -> Path:
    """Where the configuration and the tokenizer of the model that was trained are."""
    try:
        return local_or_hub_folder(
            base, made_by="save_pretrained", revision=revision, allow_patterns=CONFIG_AND_TOKENIZER_FILES
        )
    except (EcgFileError, EcgHubError) as error:
        raise type(error)(f"--base, the language model that was trained: {error}") from error


def _base_parts(base: str, folder: Path) -> tuple[Any, Any, Any]:
    """The configuration of the model that was trained, and its tokenizer twice."""
    from transformers import AutoConfig, AutoTokenizer

    try:
        return (
            AutoConfig.from_pretrained(folder),
            AutoTokenizer.from_pretrained(folder),
            AutoTokenizer.from_pretrained(folder),
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EcgFileError(
            f"--base {base}: no configuration and tokenizer of a language model ({reason}); give the one that was "
            "trained"
        ) from error


# ---- the checkpoint ----------------------------------------------------------------------------------------------


def _parts(checkpoint: Checkpoint) -> tuple[dict[str, torch.Tensor], Lora]:
    """The model's own weights by key, and those of LoRA by layer and then "A" or "B"."""
    tensors = checkpoint.take("llm.")
    if not tensors:
        raise EcgFileError(f"{checkpoint.where}: no keys llm.*, so no language model; check --kind and --stage")
    is_peft = any(key.startswith(_PEFT_PREFIX) for key in tensors)
    weights: dict[str, torch.Tensor] = {}
    lora: Lora = {}
    for key, tensor in tensors.items():
        if is_peft and not key.startswith(_PEFT_PREFIX):
            raise EcgFileError(
                f"{checkpoint.where}: llm.{key[:100]} lies beside llm.{_PEFT_PREFIX}*; not that of PEFT"
            )
        name = key.removeprefix(_PEFT_PREFIX)
        found = _LORA.fullmatch(name) if is_peft else None
        if found:
            lora.setdefault(found[1], {})[found[2]] = tensor
        else:
            weights[name.replace(".base_layer.", ".") if is_peft else name] = tensor
    return weights, lora


def _filled_model(config: Any, weights: dict[str, torch.Tensor], num_rows: int, where: str) -> Any:
    """The model of a configuration with as many rows as the reference's tokenizer has tokens, and the weights."""
    import torch
    from transformers import AutoModelForCausalLM

    key, got = _embedding_rows(config, weights, where)
    if got != num_rows:
        raise VocabularyError(
            f"{where}: {key} has {got} rows, and the base model's tokenizer with the reference's tokens has "
            f"{num_rows}; give the base model (--base) and the tokenizer file (--tokenizer) that it was trained with"
        )
    config.vocab_size = got
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(config, dtype=weights[key].dtype)
    if _is_tied(model) and "lm_head.weight" in weights and not torch.equal(weights["lm_head.weight"], weights[key]):
        raise EcgFileError(
            f"{where}: lm_head.weight is not {key}, and the base model's configuration ties them; give the base that "
            "was trained"
        )
    load_exactly(model, weights, where, "llm.")
    return model.eval()


def _embedding_rows(config: Any, weights: Mapping[str, torch.Tensor], where: str) -> tuple[str, int]:
    """The key of the input embeddings, and their rows."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    embeddings = model.get_input_embeddings()
    key = next(f"{name}.weight" for name, module in model.named_modules() if module is embeddings)
    if key not in weights or weights[key].dim() != 2:
        raise EcgFileError(
            f"{where}: no embeddings llm.{key}; it is not of a {config.model_type} model. Give the base that was "
            "trained"
        )
    return key, len(weights[key])


# ---- the tokens --------------------------------------------------------------------------------------------------


def _extend_reference(tokenizer: Any, vocabulary: ReferenceVocabulary | None) -> None:
    """Add the reference's tokens in its order, which is that of the rows."""
    if vocabulary is not None:
        tokenizer.add_tokens([f"signal_{index}" for index in vocabulary.id_order])
        tokenizer.add_tokens([_START], special_tokens=True)
        tokenizer.add_tokens([_END], special_tokens=True)
        tokenizer.add_special_tokens({"pad_token": _PAD})
    else:
        tokenizer.add_special_tokens({"pad_token": _PAD})
        for token in (_START, _END, _SIGNAL):
            tokenizer.add_tokens([token], special_tokens=True)


def _renamed_tokens(vocabulary: ReferenceVocabulary | None) -> dict[str, str]:
    """Our tokens, in the order of `extend_llm`, to the reference's."""
    renamed = {"<|ecg_start|>": _START, "<|ecg_end|>": _END}
    if vocabulary is None:
        return renamed | {"<|ecg|>": _SIGNAL}
    num_letters = len(ALPHABET)
    for index in range(num_letters + len(vocabulary.merges)):
        reference_id = ord(ALPHABET[0]) + index if index < num_letters else NUM_BYTES + index - num_letters
        renamed[f"<|ecg_{index}|>"] = f"signal_{reference_id}"
    return renamed


def _take_our_tokens(
    model: Any, tokenizer: Any, reference: Any, renamed: dict[str, str], base: str, prompt: EcgPrompt
) -> list[int]:
    """Give model and tokenizer our tokens, as `extend_llm` adds them, with the rows of the reference's.

    Returns:
        The reference's row of each token.
    """
    num_old = len(tokenizer)
    tables = [table.detach().clone() for table in _tables(model)]
    extended = ExtendableModel(base, model, tokenizer, prompt, "plain", None)
    extended.add_tokens(list(renamed), None, init="resize", seed=0)
    if len(tokenizer) > num_old + len(renamed):
        renamed = renamed | {tokenizer.pad_token: _PAD}
    rows = _rows(tokenizer, reference, renamed, num_old)
    _set_rows(model, tables, rows)
    return rows


def _rows(tokenizer: Any, reference: Any, renamed: Mapping[str, str], num_old: int) -> list[int]:
    """The reference's row of each of our tokens."""
    theirs, ours = reference.get_vocab(), tokenizer.get_vocab()
    rows = list(range(num_old)) + [-1] * (len(tokenizer) - num_old)
    for text, reference_text in renamed.items():
        rows[ours[text]] = theirs[reference_text]
    if -1 in rows:
        raise VocabularyError("the base model's tokenizer leaves gaps between its ids; such are not converted")
    return rows


def _is_tied(model: Any) -> bool:
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def _tables(model: Any) -> list[torch.Tensor]:
    """What has a row of each token: the embeddings, an output layer of its own, and the output layer's bias."""
    output = model.get_output_embeddings()
    weights = [model.get_input_embeddings().weight, output.weight][: 1 if _is_tied(model) else 2]
    bias = getattr(output, "bias", None)  # Phi and GPT-J have one
    return weights if bias is None else [*weights, bias]


def _set_rows(model: Any, tables: Sequence[torch.Tensor], rows: Sequence[int]) -> None:
    """Give the embeddings and the output layer these rows of their tables."""
    import torch

    index = torch.tensor(rows)
    model.resize_token_embeddings(len(rows), mean_resizing=False)
    with torch.no_grad():
        for new, table in zip(_tables(model), tables, strict=True):
            new.copy_(table[index])


def _take_generation_config(model: Any, folder: Path) -> None:
    """How the base model generates; without a file of its own it is as its configuration says."""
    from transformers import GenerationConfig

    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)


# ---- the adapter -------------------------------------------------------------------------------------------------


def _is_transposed(model: Any) -> bool:
    return bool(model.config.get_text_config().model_type == "gpt2")


def _work_in(model: Any, lora: Lora, alpha: int) -> None:
    """Add an adapter's products to the weights of its layers, computed in float32."""
    import torch

    layers = dict(model.named_modules())
    with torch.no_grad():
        for name, sides in lora.items():
            change = alpha / len(sides["A"]) * (sides["B"].float() @ sides["A"].float())
            weight = layers[name].weight
            weight.copy_(weight.float() + (change.T if _is_transposed(model) else change))


def _checked_rank(lora: Lora, model: Any, where: str) -> int:
    """The rank of an adapter whose weights fit the model's layers, all of those with the same names."""
    layers = dict(model.named_modules())
    names = {layer.rsplit(".", 1)[-1] for layer in lora}
    bare = [name for name in layers if name.rsplit(".", 1)[-1] in names and name not in lora]
    if bare:
        raise EcgFileError(f"{where}: {bare[0]} has no LoRA weights, others of its name have; the file is incomplete")
    ranks: dict[int, str] = {}
    for layer, sides in lora.items():
        if layer not in layers or sides.keys() != {"A", "B"}:
            raise EcgFileError(f"{where}: LoRA weights of {layer[:100]} without their layer, or without one another")
        shape = tuple(layers[layer].weight.shape)
        wide = shape[::-1] if _is_transposed(model) else shape
        got = (tuple(sides["B"].shape), tuple(sides["A"].shape))
        if len(got[0]) != 2 or len(got[1]) != 2 or (got[0][0], got[1][1]) != wide or got[0][1] != got[1][0]:
            raise EcgFileError(
                f"{where}: LoRA weights of {layer[:100]} have the shapes B {got[0]} and A {got[1]}, expected "
                f"({wide[0]}, rank) and (rank, {wide[1]}); give the base that was trained (--base)"
            )
        ranks.setdefault(int(got[1][0]), layer)
    if len(ranks) != 1:
        named = " and ".join(f"{rank} ({layer[:100]})" for rank, layer in sorted(ranks.items()))
        raise EcgFileError(f"{where}: LoRA weights of the ranks {named}, expected one rank, as one training has")
    return next(iter(ranks))
