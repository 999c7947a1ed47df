"""A language model with everything it needs to read an ECG and to answer, greedily and in batches."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ecgbyte_hf.data.chat import EcgPrompter, RenderedPrompt
from ecgbyte_hf.data.ecg_parts import EcgParts, save_parts
from ecgbyte_hf.data.fingerprints import model_fingerprints
from ecgbyte_hf.data.hub_folder import hub_errors, is_repo_id, local_or_hub_folder
from ecgbyte_hf.data.prompts import ECG_SUBFOLDER, PROMPT_FILE, EcgPrompt
from ecgbyte_hf.evaluation.prompt_ids import PromptTokenizer, common_prefix
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.models.weights_ecg import refuse_damaged_weights

logger = logging.getLogger(__name__)

# What a model's own generation_config.json may hold and what would make its answers other than the likeliest tokens.
_GREEDY: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "temperature": None,
    "top_p": None,
    "top_k": None,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
}
# What `ecg_folder` may hold that answers depend on.
_ECG_FILES = (
    PROMPT_FILE,
    "ecg_byte.json",
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
)


@dataclass(frozen=True)
class Completion:
    """What a model wrote.

    Attributes:
        text: Without special tokens.
        reached_limit: It did not end by itself, so that the text may be half an answer.
        option_logprobs: The logarithm of the probability of each option that was scored, as the whole completion.
    """

    text: str
    reached_limit: bool
    option_logprobs: dict[str, float] | None = None


@dataclass(frozen=True)
class EcgLanguageModel:
    """A language model with everything it needs to read an ECG.

    Attributes:
        model: The causal language model, adapter included.
        lm_tokenizer: Its tokenizer.
        processor: The `EcgByteProcessor`.
        prompt: Wording and budget it was trained with.
        source: Its folder and the identity of its weights; a broken run goes on with the same model only.
        folders: Where it was loaded from; `None` for one that was made otherwise.
    """

    model: Any
    lm_tokenizer: Any
    processor: Any
    prompt: EcgPrompt
    source: str = ""
    folders: ModelFolder | None = None

    #: The back end's name in identities and reports.
    backend = "transformers"
    #: What writes its prompts.
    prompter_class = EcgPrompter

    @classmethod
    def load(
        cls,
        model_name_or_path: str | Path,
        *,
        ecg: str | Path | None = None,
        device: str | None = None,
        dtype: Any = "auto",
        revision: str | None = None,
        token: str | bool | None = None,
    ) -> EcgLanguageModel:
        """Load a model: a whole one, or a PEFT adapter whose base was extended by `ecgbyte extend-llm`.

        Args:
            model_name_or_path: What `trl sft` wrote, or the name of such a model on the Hub. The base of an adapter
                may be there too.
            ecg: The folder with the ECG tokenizer and the prompt; by default `ecg_byte/` in the model's folder, or
                in that of its adapter's base model. Of a model with an encoder: with its processor and the prompt.
            device: Such as `"cuda"`; the best one there is by default.
            dtype: Of the weights in memory; as they were saved by default.
            revision: Of a model on the Hub: branch, tag or commit.
            token: For a private one; by default the one that is logged in, or `HF_TOKEN`.

        Raises:
            EcgDataError: no model or no ECG tokenizer is found; the message says where it was looked for.
            EcgFileError: the weights are truncated or damaged.
            EcgHubError: the Hub does not have or give the model.
        """
        parts = ModelFolder.find(model_name_or_path, ecg, revision=revision, token=token)

        import torch
        from transformers import AutoModelForCausalLM

        with refuse_damaged_weights(parts.base or parts.folder):
            model: Any = AutoModelForCausalLM.from_pretrained(parts.base or parts.folder, dtype=dtype)
        if parts.base is not None:
            from peft import PeftModel

            with refuse_damaged_weights(parts.folder):
                model = PeftModel.from_pretrained(model, parts.folder)
        target = device or ("cuda" if torch.cuda.is_available() else "cpu")
        kind = parts.language_model_class()
        return (cls if issubclass(cls, kind) else kind)(model.to(target).eval(), *parts.load_texts(), parts)

    @property
    def ecg_tokenizer(self) -> Any:
        """What a prompter asks about ECGs."""
        return self.processor.tokenizer

    def fingerprints(self) -> dict[str, str]:
        """Hashes of what the answers depend on, of the files it was loaded from; empty for a model of no folder."""
        return {} if self.folders is None else self.folders.fingerprints()

    def save_pretrained(self, save_directory: str | Path) -> Path:
        """Write everything that `load` needs: weights, tokenizer, and the ECG's parts.

        Args:
            save_directory: Folder to write.

        Returns:
            The folder.
        """
        folder = Path(save_directory)
        self.model.save_pretrained(folder)
        self.lm_tokenizer.save_pretrained(folder)
        save_parts(folder, self.processor, self.prompt)
        return folder

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
    ) -> str:
        """Upload everything that `load` needs; `ecgbyte push` checks it first, and adds a card.

        Args:
            repo_id: `USER/NAME`; made where it is not there.
            private: Make a new repository private.
            revision: Branch, which must be there.
            token: By default the one that is logged in, or `HF_TOKEN`.

        Returns:
            The URL of the commit.

        Raises:
            EcgHubError: the Hub refuses it.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        with tempfile.TemporaryDirectory() as folder, hub_errors(repo_id, revision=revision):
            self.save_pretrained(folder)
            api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.upload_folder(repo_id=repo_id, folder_path=folder, revision=revision)
        return str(commit.commit_url)

    @cached_property
    def prompt_tokenizer(self) -> PromptTokenizer:
        """Text to ids, the ECG of several questions once."""
        return PromptTokenizer(self.lm_tokenizer, str(self.ecg_tokenizer.eos_token))

    def shared_head(self, prompt: RenderedPrompt) -> str:
        """What prompts about the same ECG have in common, and can be computed once; empty where there is nothing."""
        return self.prompt_tokenizer.head(prompt.text)

    def shared_prefix_obstacle(self) -> str | None:
        """Why this model cannot compute an ECG once for all its questions; `None` where it can."""
        from ecgbyte_hf.evaluation.shared_prefix import shared_prefix_obstacle

        return shared_prefix_obstacle(self.model)

    def complete(
        self,
        prompts: Sequence[str | RenderedPrompt],
        *,
        max_new_tokens: int,
        shared_prefix: bool = False,
        options: Sequence[Sequence[str] | None] | None = None,
        options_only: bool = False,
        streamer: Any = None,
    ) -> list[Completion]:
        """Greedy completions of a batch of prompts.

        Args:
            prompts: As a prompter writes them, or their texts.
            max_new_tokens: Longest answer.
            shared_prefix: Compute the keys and values of an ECG once for all prompts that begin with it. In float32
                the answers are those of separate prompts.
            options: The answers whose probability is asked for, or `None`, for each prompt.
            options_only: Write nothing: the answer is the likeliest option.
            streamer: A transformers streamer: the prompts are completed one after another, and it gets each one's
                tokens, those of the prompt first.

        Raises:
            EcgDataError: `options_only` for a prompt without options.
        """
        texts = [text_of(prompt) for prompt in prompts]
        wanted = [list(each or ()) for each in options] if options is not None else [[] for _ in prompts]
        if options_only and not all(wanted):
            raise EcgDataError("options_only needs options for every prompt")
        ids = [self.prompt_tokenizer.ids(text) for text in texts]
        answers = [[self._option_ids(option) for option in each] for each in wanted]
        limit = 0 if options_only else max_new_tokens
        if shared_prefix:
            new, scores = self._complete_shared(texts, ids, answers, limit, streamer)
        else:
            ecgs = self._ecgs(prompts)
            scores = self._score_separately(ids, answers, ecgs)
            new = self._generate_in_turns(ids, limit, streamer, ecgs) if limit else [[] for _ in ids]
        return [
            self._completion(tokens, dict(zip(names, logprobs, strict=True)), options_only)
            for tokens, names, logprobs in zip(new, wanted, scores, strict=True)
        ]

    def _completion(self, tokens: list[int], scores: dict[str, float], options_only: bool) -> Completion:
        if options_only:
            return Completion(max(scores, key=lambda option: scores[option]), False, scores)
        text = self.lm_tokenizer.decode(tokens, skip_special_tokens=True).strip()
        return Completion(text, self.lm_tokenizer.eos_token_id not in tokens, scores or None)

    def _option_ids(self, option: str) -> list[int]:
        """An option as the completion that training would have made of it."""
        completion = self.prompt.render_answer([option])
        ids = self.lm_tokenizer(completion, add_special_tokens=False)["input_ids"]
        return [*ids, self.lm_tokenizer.eos_token_id]

    @property
    def _pad_token_id(self) -> int:
        pad = self.lm_tokenizer.pad_token_id
        return int(self.lm_tokenizer.eos_token_id if pad is None else pad)

    def _ecgs(self, prompts: Sequence[str | RenderedPrompt]) -> list[Any]:
        """What of each prompt's ECGs is no text; `_ecg_inputs` gives it to the model."""
        return [None] * len(prompts)

    def _ecg_inputs(self, ecgs: Sequence[Any]) -> dict[str, Any]:
        """Inputs of the model, besides the ids, for a batch of such prompts."""
        return {}

    def _generate_in_turns(
        self, ids: list[list[int]], max_new_tokens: int, streamer: Any, ecgs: list[Any]
    ) -> list[list[int]]:
        """New tokens of a batch, or of one prompt after another where they are streamed."""
        step = len(ids) if streamer is None else 1
        starts = range(0, len(ids), step or 1)
        turns = [(ids[start : start + step], ecgs[start : start + step]) for start in starts]
        return [new for turn in turns for new in self._generate(turn[0], max_new_tokens, streamer, turn[1])]

    def _generate(
        self, ids: list[list[int]], max_new_tokens: int, streamer: Any, ecgs: Sequence[Any] = ()
    ) -> list[list[int]]:
        """New tokens of each prompt by transformers' own `generate`."""
        import torch

        from ecgbyte_hf.evaluation.prompt_ids import padded

        # Generation goes on at the right end, so padding must be on the left, whatever a tokenizer was saved with.
        input_ids, mask = padded(ids, self._pad_token_id, side="left", device=self.model.device)
        with torch.inference_mode():
            output = self.model.generate(
                input_ids=input_ids,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                eos_token_id=self.lm_tokenizer.eos_token_id,
                pad_token_id=self._pad_token_id,
                streamer=streamer,
                **self._ecg_inputs(ecgs),
                **_GREEDY,
            )
        new: list[list[int]] = output[:, input_ids.shape[1] :].tolist()
        return new

    def _score_separately(
        self, ids: list[list[int]], answers: list[list[list[int]]], ecgs: Sequence[Any]
    ) -> list[list[float]]:
        from ecgbyte_hf.evaluation.option_scores import score_separately

        return score_separately(
            self.model,
            ids,
            answers,
            pad_token_id=self._pad_token_id,
            batch_size=len(ids),
            inputs_of=lambda rows: self._ecg_inputs([ecgs[row] for row in rows]),
        )

    def _complete_shared(
        self,
        prompts: Sequence[str],
        ids: list[list[int]],
        answers: list[list[list[int]]],
        max_new_tokens: int,
        streamer: Any,
    ) -> tuple[list[list[int]], list[list[float]]]:
        """New tokens and option scores of prompts, those with the same ECG in one row."""
        from ecgbyte_hf.evaluation.shared_prefix import PrefixedQuestions, complete_and_score

        by_head: dict[object, list[int]] = {}
        for number, text in enumerate(prompts):
            # Prompts without an ECG have nothing worth sharing: each is a row of its own.
            by_head.setdefault(self.prompt_tokenizer.head(text) or number, []).append(number)
        rows = []
        for members in by_head.values():
            length = common_prefix([ids[number] for number in members])
            rows.append(
                PrefixedQuestions(
                    ids[members[0]][:length],
                    [ids[number][length:] for number in members],
                    [answers[number] for number in members],
                )
            )
        made = complete_and_score(
            self.model,
            rows,
            max_new_tokens=max_new_tokens,
            eos_token_id=self.lm_tokenizer.eos_token_id,
            pad_token_id=self._pad_token_id,
            streamer=streamer,
        )
        new: list[list[int]] = [[] for _ in prompts]
        scores: list[list[float]] = [[] for _ in prompts]
        for members, row in zip(by_head.values(), made, strict=True):
            for number, tokens, logprobs in zip(members, *row, strict=True):
                new[number], scores[number] = tokens, logprobs
        return new, scores

    def prompter_for(self, signals: Sequence[np.ndarray], contexts: Sequence[Mapping[str, Any]]) -> EcgPrompter:
        """What writes prompts about signals that are no part of a prepared folder; their numbers are their places.

        Of signals longer than the windows that the model was trained on, the first window is shown, with a warning.

        Args:
            signals: Cleaned, each (leads, samples) in mV.
            contexts: What is known of each patient: `age` in years, `sex`. Only prompts with a `context` tell it.
        """
        window = self.prompt.window_seconds
        if window:
            width = round(window * self.ecg_tokenizer.sampling_rate)
            if any(signal.shape[1] > width for signal in signals):
                logger.warning("the model was trained on windows of %g s: it is shown the first one", window)
            signals = [signal[:, :width] for signal in signals]
        wanted = self.prompt.context or []
        if any(facts.get(name) is not None for facts in contexts for name in {"age", "sex"} - {*wanted}):
            logger.warning("this model's prompts do not tell all that was given of the patient: the rest is not used")
        if any(facts.get(name) is None for facts in contexts for name in wanted):
            logger.warning("the model was trained with %s of the patient, which is not given", " and ".join(wanted))
        return self.prompter_class(
            self.ecg_tokenizer,
            self.lm_tokenizer,
            self.prompt,
            signals.__getitem__,
            context_of=contexts.__getitem__ if self.prompt.context else None,
        )

    def answer(self, record: Any, question: str, *, max_new_tokens: int = 64) -> str:
        """The answer to one question about one recording.

        A warning is logged where the ECG was cut in time to fit, and where the answer was cut off.

        Args:
            record: An `EcgRecord`, as `read_ecg` returns it.
            question: Plain text.
            max_new_tokens: Longest answer.
        """
        return self.answer_all(record, [question], max_new_tokens=max_new_tokens)[0].text

    def answer_all(
        self,
        record: Any,
        questions: Sequence[str],
        *,
        max_new_tokens: int = 64,
        streamer: Any = None,
        context: Mapping[str, Any] | None = None,
    ) -> list[Completion]:
        """The answers to several questions about one recording, which is read once; warnings as `answer` has them.

        Args:
            record: An `EcgRecord`.
            questions: Plain texts.
            max_new_tokens: Longest answer.
            streamer: A transformers streamer; it gets the answers one after another.
            context: `age` in years and `sex`, for a model whose prompts tell them.
        """
        signal = self.processor.feature_extractor.clean(record)
        prompter = self.prompter_for([signal], [context or {}])
        prompts = [
            prompter.prompt_for({"sample_id": number, "question": question, "ecg_id": [0]})
            for number, question in enumerate(questions)
        ]
        shown = min((prompt.seconds or 0.0 for prompt in prompts if prompt.was_cut), default=None)
        if shown is not None:
            seconds = signal.shape[1] / self.ecg_tokenizer.sampling_rate
            logger.warning("the model was shown the first %.2f s of %.2f: more do not fit", shown, seconds)
        completions = self.complete(
            prompts,
            max_new_tokens=max_new_tokens,
            shared_prefix=len(prompts) > 1 and self.shared_prefix_obstacle() is None,
            streamer=streamer,
        )
        if any(completion.reached_limit for completion in completions):
            logger.warning("the answer was cut off after %d tokens; raise max_new_tokens", max_new_tokens)
        return completions


def text_of(prompt: str | RenderedPrompt) -> str:
    """The text of a prompt."""
    return prompt if isinstance(prompt, str) else prompt.text


@dataclass(frozen=True)
class ModelFolder:
    """Where the parts of a language model are.

    Attributes:
        folder: The model or the adapter.
        base: The base model of an adapter.
        ecg_folder: The ECG tokenizer, the feature extractor and the prompt.
        state: Names, sizes and times of their files when they were found; "" where nobody looked.
    """

    folder: Path
    base: Path | None
    ecg_folder: Path
    state: str = field(default="", compare=False)

    @classmethod
    def find(
        cls,
        folder: str | Path,
        ecg: str | Path | None = None,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
    ) -> ModelFolder:
        """Look for all parts, here or on the Hub; see `EcgLanguageModel.load` for the arguments.

        Raises:
            EcgDataError: no model or no ECG tokenizer is found.
            EcgHubError: the Hub does not have or give a part.
        """
        if not Path(folder).is_dir() and not is_repo_id(str(folder)):
            raise EcgDataError(f"{folder} is not a folder with a language model, and no USER/NAME on the Hub")
        folder = local_or_hub_folder(folder, made_by="trl sft", revision=revision, token=token)
        base = _adapter_base(folder, token)
        found = cls(folder, base, _ecg_folder(folder, base, ecg))
        return replace(found, state=found._state())

    @cached_property
    def parts(self) -> EcgParts:
        """The ECG's parts, and of which kind they are."""
        return EcgParts.at(self.ecg_folder)

    def language_model_class(self) -> type[EcgLanguageModel]:
        """What makes such a model complete prompts."""
        if not self.parts.has_encoder:
            return EcgLanguageModel
        from ecgbyte_hf.evaluation.encoder_language_model import EncoderLanguageModel

        return EncoderLanguageModel

    def load_texts(self) -> tuple[Any, Any, EcgPrompt, str]:
        """Everything but the weights: tokenizer, processor, prompt, and the identity of the weights."""
        from transformers import AutoTokenizer

        has_own = (self.folder / "tokenizer.json").exists()
        return (
            AutoTokenizer.from_pretrained(self.folder if has_own else self.base or self.folder),
            self.parts.load_processor(),
            self.parts.load_prompt(),
            _identity(self.folder),
        )

    def fingerprints(self) -> dict[str, str]:
        """See `ecgbyte_hf.data.fingerprints.model_fingerprints`; empty if the files are others than those found."""
        if self.state and self._state() != self.state:
            logger.warning(
                "files in %s were changed since the model was loaded from there, so it is not noted which model "
                "answered, and no card can quote it; load it and ask anew",
                self.folder,
            )
            return {}
        return model_fingerprints(self.folder, base=self.base, parts=self.parts)

    def _state(self) -> str:
        """What changes where somebody writes a part anew while the model is in memory."""
        from ecgbyte_hf.data.questions import files_fingerprint

        models = [self.folder, *([self.base] if self.base else [])]
        watched = [path for one in models for path in (*one.glob("*.safetensors"), one / "tokenizer.json")]
        watched += [self.ecg_folder / name for name in _ECG_FILES]
        return files_fingerprint(watched)


def _identity(folder: Path) -> str:
    """A folder and a hash of its weight files' names, sizes and times."""
    from ecgbyte_hf.data.questions import files_fingerprint

    weights = [path for path in folder.resolve().glob("*.safetensors") if path.is_file()]
    return f"{folder} {files_fingerprint(weights)}"


def _adapter_base(folder: Path, token: str | bool | None) -> Path | None:
    """The base model of an adapter, fetched where it is on the Hub; `None` for a whole model."""
    config = folder / "adapter_config.json"
    if not config.is_file():
        return None
    try:
        stored = json.loads(config.read_text(encoding="utf-8"))
        base, revision = Path(stored["base_model_name_or_path"]), stored.get("revision")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EcgDataError(f"{config}: expected JSON with base_model_name_or_path") from error
    return local_or_hub_folder(base, made_by="ecgbyte extend-llm", revision=revision, token=token)


def _ecg_folder(folder: Path, base: Path | None, ecg: str | Path | None) -> Path:
    models = [folder, *([base] if base else [])]
    candidates = [Path(ecg)] if ecg else [place for one in models for place in (one, one / ECG_SUBFOLDER)]
    for candidate in candidates:
        if (candidate / PROMPT_FILE).is_file():
            return candidate
    looked = ", ".join(map(str, candidates))
    raise EcgDataError(
        f"no ECG tokenizer for {folder}: looked for {PROMPT_FILE} in {looked}; copy `{ECG_SUBFOLDER}/` from the "
        "extended base model or name it with --ecg"
    )
