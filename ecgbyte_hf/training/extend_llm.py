"""Give a causal language model rows for the ECG tokens, before any training.

TRL never resizes embeddings, so the extended model is saved first; after that the unmodified `trl sft` trains it like
any other model.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecgbyte_hf.data.chat import EcgPrompter
from ecgbyte_hf.data.chat_template import added_bos, check_prompt_format, read_chat_format
from ecgbyte_hf.data.ecg_parts import EcgParts, note_base, save_parts
from ecgbyte_hf.data.hub_folder import is_repo_id, local_or_hub_folder
from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.prompts import ECG_SUBFOLDER, PROMPT_FILE, EcgPrompt
from ecgbyte_hf.models.errors_ecg_byte import BudgetError, EcgDataError, VocabularyError
from ecgbyte_hf.models.weights_ecg import refuse_damaged_weights
from ecgbyte_hf.training.token_waveforms import waveform_features

logger = logging.getLogger(__name__)


ROW_INITS = ("waveform", "spread", "mean", "resize")
# Old rows that the draw combines; their covariance hardly changes beyond this many, memory and time do.
_SPREAD_SAMPLE = 8192


@dataclass(frozen=True)
class ExtendedModel:
    """What `extend_llm` made.

    Attributes:
        folder: Where the model, its tokenizer and the ECG processor were saved.
        num_added: New tokens, and embedding rows.
        vocab_size: Tokens of the extended tokenizer.
        tied: Whether input and output embeddings share their weights.
    """

    folder: Path
    num_added: int
    vocab_size: int
    tied: bool


def ecg_token_strings(ecg_tokenizer: Any) -> list[str]:
    """The texts a language model's tokenizer must know: start, end and one per symbol and merge."""
    tokens = [f"<|ecg_{index}|>" for index in range(ecg_tokenizer.num_ecg_tokens)]
    return [str(ecg_tokenizer.bos_token), str(ecg_tokenizer.eos_token), *tokens]


def extend_llm(
    model_name_or_path: str,
    ecg_processor: Any,
    output_dir: str | Path,
    *,
    prompt: EcgPrompt | None = None,
    prompt_format: str = "plain",
    system_prompt: str | None = None,
    init: str = "waveform",
    seed: int = 0,
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> ExtendedModel:
    """Add the ECG tokens to a model and its tokenizer and save both.

    Args:
        model_name_or_path: Any `AutoModelForCausalLM` with a fast tokenizer.
        ecg_processor: The `EcgByteProcessor`, saved in the subfolder `ecg_byte/`.
        output_dir: A new folder, or one this function may overwrite.
        prompt: How an ECG and a question become a prompt, with the length budget; saved beside the ECG tokenizer.
        prompt_format: `"plain"`, or `"chat"`: the turns of the model's chat template around what `prompt` says. The
            token that ends a turn becomes the tokenizer's end of sequence, where answers end in training and in
            generation, and the saved chat template writes these turns as text, without tools or the day's date.
        system_prompt: In a chat, the system's message.
        init: How the new rows begin. `"spread"` draws them with the mean and covariance of the old rows, so that any
            two ECG tokens differ as two words do. `"waveform"` does too, but tokens that look alike get rows that are
            near each other (see `init_rows`). `"mean"` sets all to the mean of the old rows, and `"resize"` leaves
            them to transformers: this mean and 1e-9 of the covariance. Both make all ECG tokens alike until training
            moves their rows; where they stay frozen, as under LoRA, the model cannot see the ECG.
            Of a small model with LoRA and frozen rows, exact match was 95.5 % from `"waveform"`, 75.1 % from
            `"spread"` and 47.7 % from the other two, 46.2 % without the ECG; with trained rows all were alike
            (`scripts/benchmark/new_rows.py`).
        seed: Of the draw.
        dtype: Weights' dtype, as in `from_pretrained`.
        revision: Revision on the Hub.
        trust_remote_code: Passed to `from_pretrained`.

    Raises:
        BudgetError: the prompt's `max_length` is more than the model has positions for.
        VocabularyError: the tokenizer splits an ECG token, already had some of them, or has no end of sequence; or an
            unknown `init`; or a chat template that is absent or cannot be read.
        EcgDataError: an unknown `prompt_format`, or a system prompt that is no part of it.
        EcgFileError: the model's weights are truncated or damaged.
    """
    if init not in ROW_INITS:
        raise VocabularyError(f"unknown init {init!r}; known: {', '.join(ROW_INITS)}")

    output_dir = Path(output_dir)
    base = ExtendableModel.load(
        model_name_or_path,
        prompt or EcgPrompt(),
        prompt_format=prompt_format,
        system_prompt=system_prompt,
        dtype=dtype,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    base.add_tokens(ecg_token_strings(ecg_processor.tokenizer), ecg_processor.tokenizer, init=init, seed=seed)
    model, tokenizer = base.model, base.tokenizer

    # The prompt is written last, so that the next command refuses the folder of a killed job.
    (output_dir / ECG_SUBFOLDER / PROMPT_FILE).unlink(missing_ok=True)
    model.save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
    note_base(output_dir, model_name_or_path, revision)
    save_ecg_parts(output_dir, ecg_processor, base.prompt)
    return ExtendedModel(output_dir, base.num_added, len(tokenizer), base.is_tied)


@dataclass
class ExtendableModel:
    """A language model and its tokenizer, on the way to knowing tokens of ECGs.

    Attributes:
        name: Where they are from.
        model: The causal language model.
        tokenizer: Its tokenizer.
        prompt: The wording; of a chat after `add_tokens`, where it is one.
        prompt_format: `"plain"` or `"chat"`.
        system_prompt: In a chat, the system's message.
        num_added: Tokens added so far, without padding.
    """

    name: str
    model: Any
    tokenizer: Any
    prompt: EcgPrompt
    prompt_format: str
    system_prompt: str | None
    num_added: int = 0

    @classmethod
    def load(
        cls,
        name: str,
        prompt: EcgPrompt,
        *,
        prompt_format: str,
        system_prompt: str | None,
        dtype: str,
        revision: str | None,
        trust_remote_code: bool,
    ) -> ExtendableModel:
        """Load both; the arguments are those of `extend_llm`.

        Raises:
            BudgetError: the prompt's `max_length` is more than the model has positions for.
            EcgDataError: an unknown `prompt_format`, or a system prompt that is no part of it.
            EcgFileError: the model's weights are truncated or damaged.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        check_prompt_format(prompt_format, system_prompt)
        options = {"revision": revision, "trust_remote_code": trust_remote_code}
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        with refuse_damaged_weights(name):
            model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, **options)
        check_positions(name, model.config, prompt)
        return cls(name, model, tokenizer, prompt, prompt_format, system_prompt)

    @property
    def is_tied(self) -> bool:
        """Whether the output layer is the embedding."""
        output = self.model.get_output_embeddings()
        return output is not None and output.weight is self.model.get_input_embeddings().weight

    def add_tokens(self, texts: list[str], ecg_tokenizer: Any, *, init: str, seed: int) -> None:
        """Give tokenizer and model the ECG's tokens, padding of its own, and a chat's end of answers.

        Args:
            texts: The tokens.
            ecg_tokenizer: As of `init_rows`.
            init: As of `extend_llm`; with "resize" the rows that the model already has are left alone.
            seed: Of the rows.

        Raises:
            VocabularyError: the tokenizer splits an ECG token, already had some of them, or has no end of sequence; or
                a chat template that is absent or cannot be read.
        """
        import torch
        from transformers.tokenization_utils_base import AddedToken

        model, tokenizer = self.model, self.tokenizer
        known = [text for text in texts if text in tokenizer.get_vocab()]
        if known:
            raise VocabularyError(
                f"{self.name} already has {len(known)} ECG tokens (first: {known[0]}); start from a model that was "
                "not extended, or remove them from its tokenizer"
            )
        if tokenizer.eos_token_id is None:
            raise VocabularyError(f"{self.name} has no end-of-sequence token; its answers could not end")
        if self.prompt_format == "chat":
            self.prompt = _take_over_chat(tokenizer, model, self.prompt, self.system_prompt)
        num_old = len(tokenizer)
        # special=False keeps them in decoded text; normalized=False keeps normalisers from rewriting them.
        self.num_added = tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in texts])
        if tokenizer.pad_token is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
            # Padding with eos would let a trainer mask the real end of an answer.
            tokenizer.add_special_tokens({"pad_token": "<|ecg_pad|>"})
        _check_one_id_each(tokenizer, texts)
        embeddings: Any = model.get_input_embeddings()
        if len(tokenizer) > embeddings.weight.shape[0]:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)  # transformers draws from torch's own generator
                model.resize_token_embeddings(len(tokenizer), mean_resizing=init == "resize")
        if init != "resize":
            init_rows(model, ecg_tokenizer, num_old, len(tokenizer), init=init, seed=seed)
        model.config.pad_token_id = tokenizer.pad_token_id
        if model.generation_config is not None:
            model.generation_config.pad_token_id = tokenizer.pad_token_id


def check_positions(name: str, config: Any, prompt: EcgPrompt) -> None:
    """Refuse a prompt that may be longer than a language model reads.

    Args:
        name: The model's, for the message.
        config: Its configuration.
        prompt: The wording, with its `max_length`.

    Raises:
        BudgetError: it may be.
    """
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and prompt.max_length > positions:
        raise BudgetError(
            f"{name} reads at most {positions} tokens, the prompt's max_length is {prompt.max_length}; give a lower "
            "--max-length"
        )


def init_rows(model: Any, ecg_tokenizer: Any, num_old: int, num_all: int, *, init: str, seed: int) -> None:
    """Set the rows from `num_old` to `num_all`: start, end, the ECG tokens, and what else was added.

    `"mean"`: the mean of the old rows.
    `"spread"`: that mean and a sum of centred old rows with normal weights, which has exactly their covariance; no
    matrix is factorised.
    `"waveform"`: the same for start and end. The weights of an ECG token are its `waveform_features` times one
    matrix of normal numbers, the same for all tokens: a random linear map from waveforms to embeddings. Over maps, a
    row has the old rows' covariance, and the distance of two rows is proportional to that of the two feature vectors.
    All are scaled together, so that their mean square distance from the mean is that of the old rows.

    An output layer of its own gets the mean alone in every case: ECG tokens are read, never written, and should all
    be as unlikely. Where it is tied to the input embeddings, it has the rows of these.

    Args:
        model: A causal language model, already resized.
        ecg_tokenizer: The `EcgByteTokenizer` whose tokens were added; only `"waveform"` asks for it.
        num_old: Rows that were there before.
        num_all: Rows with the new ones. Models may have more: padding rows stay as they are.
        init: `"spread"`, `"waveform"` or `"mean"`.
        seed: Of the draw.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        mean, old = _centred_rows(table[:num_old], generator)
        rows = torch.zeros(num_all - num_old, old.shape[1])
        if init != "mean":
            rows = torch.randn(len(rows), len(old), generator=generator) @ old
        if init == "waveform":
            rows[2 : 2 + ecg_tokenizer.num_ecg_tokens] = _waveform_rows(ecg_tokenizer, old, generator)
        table[num_old:num_all] = (mean + rows).to(table)
        output = model.get_output_embeddings()
        if output is not None and output.weight is not table:
            output.weight[num_old:num_all] = output.weight[:num_old].float().mean(dim=0).to(output.weight)


def _centred_rows(table: Any, generator: Any) -> tuple[Any, Any]:
    """The mean of the old rows, and a sample of them around it, scaled so that their Gram matrix is the covariance."""
    import torch

    old = table.float().cpu()
    if len(old) > _SPREAD_SAMPLE:
        old = old[torch.randperm(len(old), generator=generator)[:_SPREAD_SAMPLE]]
    mean = old.mean(dim=0)
    return mean, (old - mean) / len(old) ** 0.5


def _waveform_rows(ecg_tokenizer: Any, old: Any, generator: Any) -> Any:
    """Rows of the ECG tokens around the mean; `old` is scaled, so the squares of all its numbers sum to a row's."""
    import torch

    features = torch.from_numpy(waveform_features(ecg_tokenizer)).float()
    rows = features @ (torch.randn(features.shape[1], len(old), generator=generator) @ old)
    return rows * (old.square().sum() / rows.square().sum(dim=1).mean()).sqrt()


def save_ecg_parts(folder: str | Path, ecg_processor: Any, prompt: EcgPrompt) -> Path:
    """Write the ECG tokenizer, the feature extractor and the prompt into `folder/ecg_byte`; see `save_parts`."""
    return save_parts(folder, ecg_processor, prompt)


def load_prompter(
    model_dir: str | Path, prepared: PreparedData, *, view: str = "true", context: Sequence[str] | None = None
) -> EcgPrompter:
    """The prompter of an extended model's folder, without loading its weights.

    Args:
        model_dir: What `extend_llm` wrote, here or on the Hub.
        prepared: Where the signals are.
        view: `"true"` or `"question_only"`.
        context: What the rows tell about the patient; by default what the model was extended for, or nothing.

    Raises:
        EcgDataError: the model is for another context or for windows of another length; see `EcgPrompt.settle`.
    """
    from transformers import AutoTokenizer

    folder = _extended_folder(model_dir)
    parts = EcgParts.find(folder)
    noted = parts.load_prompt()
    prompt = noted.settle(window_seconds=prepared.window_seconds, context=context)
    if folder != Path(model_dir) and prompt != noted and (prompt.context or prompt.window_seconds):
        raise EcgDataError(
            f"{model_dir} is on the Hub and was not extended for these rows, which tell {prompt.context or 'nothing'} "
            f"of windows of {prompt.window_seconds or 0:g} s (0: whole records); download it and name the folder, so "
            "that this can be noted there"
        )
    processor = parts.load_processor()
    prepared.check_processor(processor)
    lm_tokenizer = AutoTokenizer.from_pretrained(folder)
    return parts.prompter_class.for_prepared(parts.ecg_tokenizer(processor), lm_tokenizer, prompt, prepared, view=view)


def keep_settings(model_dir: str | Path, prompt: EcgPrompt) -> None:
    """Note in an extended model's folder what rows were written for it, so that generation shows ECGs like them.

    On the Hub nothing can be noted, and `load_prompter` has refused rows that would need it.
    """
    folder = _extended_folder(model_dir)
    parts = EcgParts.find(folder)
    if folder == Path(model_dir) and parts.load_prompt() != prompt:
        prompt.save(parts.folder)


def _extended_folder(model_dir: str | Path) -> Path:
    return (
        local_or_hub_folder(model_dir, made_by="ecgbyte extend-llm") if is_repo_id(str(model_dir)) else Path(model_dir)
    )


def _take_over_chat(tokenizer: Any, model: Any, prompt: EcgPrompt, system_prompt: str | None) -> EcgPrompt:
    """Make tokenizer and model end answers as their chat template does; returns the prompt in its wording."""
    turns = read_chat_format(tokenizer)
    tokenizer.add_special_tokens({"eos_token": turns.end})
    tokenizer.chat_template = turns.jinja(added_bos(tokenizer))
    model.config.eos_token_id = tokenizer.eos_token_id
    if model.generation_config is not None:
        others = model.generation_config.eos_token_id
        others = others if isinstance(others, list) else [] if others is None else [others]
        ends = dict.fromkeys([tokenizer.eos_token_id, *others])
        model.generation_config.eos_token_id = list(ends) if len(ends) > 1 else tokenizer.eos_token_id
    if system_prompt and turns.system is None:
        logger.warning(
            "the chat template takes no system message; the system prompt begins the first question instead"
        )
    return turns.prompt(prompt, system=system_prompt)


def _check_one_id_each(tokenizer: Any, texts: list[str]) -> None:
    """Several ECG tokens in a row must come out as exactly their ids, without spaces in between."""
    ids = tokenizer("".join(texts), add_special_tokens=False)["input_ids"]
    wanted = tokenizer.convert_tokens_to_ids(texts)
    if ids != wanted:
        first = next((text for text, got, want in zip(texts, ids, wanted, strict=False) if got != want), texts[-1])
        raise VocabularyError(
            f"the tokenizer does not keep {first} as one token between other ECG tokens; only fast tokenizers with "
            "ordinary added tokens work"
        )
