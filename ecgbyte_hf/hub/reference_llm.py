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

from ecgbyte_hf.data.prompts import EcgPrompt
from ecgbyte_hf.hub.reference_checkpoint import Checkpoint, load_exactly
from ecgbyte_hf.hub.reference_tokenizer import NUM_BYTES, ReferenceVocabulary
from ecgbyte_hf.models.errors_ecg_byte import BudgetError, EcgFileError, VocabularyError
from ecgbyte_hf.models.vocabulary_ecg_byte import ALPHABET

if TYPE_CHECKING:
    import torch

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
        hidden_size: Width of the embeddings.
    """

    tokens_taken_over: int
    rows_left_out: int
    vocab_size: int
    tied: bool
    lora_rank: int | None
    lora_modules: tuple[str, ...]
    hidden_size: int


def paper_prompt(max_length: int = 1024) -> EcgPrompt:
    """The wording and the length that the paper's code trains with."""
    return EcgPrompt(template="{ecg}{question}", completion="{answer}", answer_separator=" ", max_length=max_length)


def convert_language_model(
    checkpoint: Checkpoint,
    base: str,
    folder: Path,
    *,
    vocabulary: ReferenceVocabulary | None,
    processor: Any = None,
    prompt: EcgPrompt | None = None,
    final_folder: Path | None = None,
    lora_alpha: int = LORA_ALPHA,
    revision: str | None = None,
) -> ConvertedModel:
    """Write the language model in a checkpoint, whose tensors are taken out of it.

    Args:
        checkpoint: What `read_checkpoint` returned.
        base: The model that was trained, a folder or a name on the Hub: its configuration and tokenizer are read.
        folder: Where `base/` and `adapter/` are written, or `model/` where there is no LoRA.
        vocabulary: Of the ECG tokens; `None` for the second stage, which has one placeholder.
        processor: The `EcgByteProcessor` of that vocabulary, saved beside the model.
        prompt: Wording and budget, saved with it; by default the paper's.
        final_folder: Where `folder` will lie; the adapter names its base there.
        lora_alpha: The adapter's scale times its rank.
        revision: Of the base on the Hub.

    Raises:
        EcgFileError: keys that belong to no such model, or LoRA weights that do not fit.
        EncoderError: the weights are not those of the base model.
        VocabularyError: the embeddings have other rows than the tokenizers give.
        BudgetError: the model has fewer positions than the prompt may take.
    """
    from transformers import AutoConfig, AutoTokenizer

    weights, lora = _parts(checkpoint)
    config = AutoConfig.from_pretrained(base, revision=revision)
    prompt = prompt or paper_prompt()
    positions = getattr(config, "max_position_embeddings", None)
    if processor is not None and positions is not None and prompt.max_length > positions:
        raise BudgetError(
            f"{base} reads at most {positions} tokens, the prompt's max_length is {prompt.max_length}; give a lower "
            "--max-length"
        )
    tokenizer = AutoTokenizer.from_pretrained(base, revision=revision)
    num_old = len(tokenizer)
    reference = AutoTokenizer.from_pretrained(base, revision=revision)
    _extend_reference(reference, vocabulary)
    renamed = _renamed_tokens(vocabulary)
    _extend(tokenizer, renamed)
    model = _filled_model(config, weights, len(reference), checkpoint.where)
    rows = _rows(tokenizer, reference, renamed, num_old)
    tied = _permute_rows(model, rows)
    _take_generation_config(model, base, revision)
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id

    place = folder / ("base" if lora else "model")
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    if processor is not None:
        from ecgbyte_hf.training.extend_llm import save_ecg_parts

        save_ecg_parts(place, processor, prompt)
    rank: int | None = None
    modules: tuple[str, ...] = ()
    if lora:
        base_place = str(((final_folder or folder) / "base").resolve())
        rank, modules = _save_adapter(folder / "adapter", lora, model, base_place, lora_alpha, checkpoint.where)
    return ConvertedModel(
        tokens_taken_over=len(rows) - num_old,
        rows_left_out=len(reference) - len(set(rows)),
        vocab_size=len(tokenizer),
        tied=tied,
        lora_rank=rank,
        lora_modules=modules,
        hidden_size=model.get_input_embeddings().weight.shape[1],
    )


# ---- the checkpoint ----------------------------------------------------------------------------------------------


def _parts(checkpoint: Checkpoint) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, torch.Tensor]]]:
    """The model's own weights by key, and those of LoRA by layer and then "A" or "B"."""
    tensors = checkpoint.take("llm.")
    if not tensors:
        raise EcgFileError(f"{checkpoint.where}: no keys llm.*, so no language model; check --kind and --stage")
    is_peft = any(key.startswith(_PEFT_PREFIX) for key in tensors)
    weights: dict[str, torch.Tensor] = {}
    lora: dict[str, dict[str, torch.Tensor]] = {}
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
    is_tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    if is_tied and "lm_head.weight" in weights and not torch.equal(weights["lm_head.weight"], weights[key]):
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


def _extend(tokenizer: Any, renamed: dict[str, str]) -> None:
    """Add our tokens as `extend_llm` does."""
    from transformers.tokenization_utils_base import AddedToken

    known = [text for text in renamed if text in tokenizer.get_vocab()]
    if known:
        raise VocabularyError(f"the base model already has ECG tokens (first: {known[0]}); give the one before that")
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in renamed])
    if tokenizer.pad_token is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"pad_token": "<|ecg_pad|>"})
        renamed["<|ecg_pad|>"] = _PAD


def _rows(tokenizer: Any, reference: Any, renamed: Mapping[str, str], num_old: int) -> list[int]:
    """The reference's row of each of our tokens."""
    theirs, ours = reference.get_vocab(), tokenizer.get_vocab()
    rows = list(range(num_old)) + [-1] * (len(tokenizer) - num_old)
    for text, reference_text in renamed.items():
        rows[ours[text]] = theirs[reference_text]
    if -1 in rows:
        raise VocabularyError("the base model's tokenizer leaves gaps between its ids; such are not converted")
    return rows


def _permute_rows(model: Any, rows: Sequence[int]) -> bool:
    """Give the embeddings, and an output layer of its own, these of their rows; whether the two are tied."""
    import torch

    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    tied = layers[0].weight is layers[1].weight
    index = torch.tensor(rows)
    chosen = [layer.weight.detach()[index].clone() for layer in layers[: 1 if tied else 2]]
    model.resize_token_embeddings(len(rows), mean_resizing=False)
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    with torch.no_grad():
        for layer, weight in zip(layers, chosen, strict=False):
            layer.weight.copy_(weight)
    return tied


def _take_generation_config(model: Any, base: str, revision: str | None) -> None:
    """How the base model generates; without a file of its own it is as its configuration says."""
    from transformers import GenerationConfig

    try:
        model.generation_config = GenerationConfig.from_pretrained(base, revision=revision or "main")
    except OSError:
        return


# ---- the adapter -------------------------------------------------------------------------------------------------


def _save_adapter(
    folder: Path, lora: dict[str, dict[str, torch.Tensor]], model: Any, base: str, alpha: int, where: str
) -> tuple[int, tuple[str, ...]]:
    """Write a PEFT adapter; its rank, and the names of the adapted layers."""
    from peft import LoraConfig
    from safetensors.torch import save_file

    rank = _checked_rank(lora, model, where)
    modules = tuple(sorted({layer.rsplit(".", 1)[-1] for layer in lora}))
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=LORA_DROPOUT,
        target_modules=list(modules),
        fan_in_fan_out=model.config.model_type == "gpt2",  # its layers are transposed
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    tensors = {
        f"{_PEFT_PREFIX}{layer}.lora_{side}.weight": tensor.contiguous()
        for layer, sides in lora.items()
        for side, tensor in sides.items()
    }
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return rank, modules


def _checked_rank(lora: Mapping[str, Mapping[str, torch.Tensor]], model: Any, where: str) -> int:
    """The rank of an adapter whose weights fit the model's layers, all of those with the same names."""
    layers = dict(model.named_modules())
    names = {layer.rsplit(".", 1)[-1] for layer in lora}
    bare = [name for name in layers if name.rsplit(".", 1)[-1] in names and name not in lora]
    if bare:
        raise EcgFileError(f"{where}: {bare[0]} has no LoRA weights, others of its name have; the file is incomplete")
    ranks = set()
    for layer, sides in lora.items():
        if layer not in layers or sides.keys() != {"A", "B"}:
            raise EcgFileError(f"{where}: LoRA weights of {layer[:100]} without their layer, or without one another")
        shape = tuple(layers[layer].weight.shape)
        wide = shape if model.config.model_type != "gpt2" else shape[::-1]
        got = (tuple(sides["B"].shape), tuple(sides["A"].shape))
        if len(got[0]) != 2 or len(got[1]) != 2 or (got[0][0], got[1][1]) != wide or got[0][1] != got[1][0]:
            raise EcgFileError(f"{where}: LoRA weights of {layer[:100]} have the shapes {got}, its layer {wide}")
        ranks.add(got[1][0])
    if len(ranks) != 1:
        raise EcgFileError(f"{where}: LoRA weights of the ranks {sorted(ranks)}, expected one rank")
    return int(ranks.pop())
