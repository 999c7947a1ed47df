"""Other programs that run the language model, with the same prompts and the same answers' file.

vLLM was tested against a stand-in with its signature only (`LLM`, `SamplingParams`, `RequestOutput`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ecgbyte_hf.data.chat import RenderedPrompt
from ecgbyte_hf.evaluation.language_model import Completion, EcgLanguageModel, ModelFolder, text_of
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

#: Name -> questions at a time. vLLM makes its own batches, and keeps an ECG for as long as its questions follow one
#: another in a call.
BATCH_SIZES = {"transformers": 16, "vllm": 1024}


def load_language_model(
    backend: str,
    folder: str | Path,
    *,
    ecg: str | Path | None = None,
    device: str | None = None,
    max_new_tokens: int = 64,
    revision: str | None = None,
) -> EcgLanguageModel:
    """Load a model folder into a back end.

    Args:
        backend: One of `BATCH_SIZES`.
        folder: What `trl sft` wrote, here or on the Hub; for vLLM a whole model.
        ecg: The folder with the ECG tokenizer and the prompt.
        device: For transformers; vLLM takes the accelerator it was built for.
        max_new_tokens: Of the longest answer; vLLM keeps room for it.
        revision: Of a model on the Hub.

    Raises:
        EcgDataError: an unknown back end, or one that cannot run this model.
    """
    if backend == "transformers":
        return EcgLanguageModel.load(folder, ecg=ecg, device=device, revision=revision)
    if backend == "vllm":
        if device is not None:
            raise EcgDataError(f"got device={device!r} for vllm, which takes the accelerator it was built for")
        return VllmLanguageModel.load_vllm(folder, ecg=ecg, max_new_tokens=max_new_tokens, revision=revision)
    raise EcgDataError(f"unknown back end {backend!r}; known: {', '.join(BATCH_SIZES)}")


class VllmLanguageModel(EcgLanguageModel):
    """A language model that vLLM runs; `model` is a `vllm.LLM`."""

    backend = "vllm"

    @classmethod
    def load_vllm(
        cls,
        folder: str | Path,
        *,
        ecg: str | Path | None = None,
        max_new_tokens: int = 64,
        revision: str | None = None,
    ) -> VllmLanguageModel:
        """Start vLLM on a whole model.

        Args:
            folder: A model folder, such as `ecgbyte sft --merge` leaves, or its name on the Hub.
            ecg: The folder with the ECG tokenizer and the prompt.
            max_new_tokens: Of the longest answer.
            revision: Of a model on the Hub.

        Raises:
            EcgDataError: an adapter, or what `EcgLanguageModel.load` refuses.
            ImportError: vLLM is not installed.
        """
        parts = ModelFolder.find(folder, ecg, revision=revision)
        if parts.base is not None:
            raise EcgDataError(
                f"{folder} is an adapter, and vLLM takes none that trains rows of the vocabulary; write a whole model "
                "with `ecgbyte sft --merge` and give that"
            )
        if parts.parts.has_encoder:
            raise EcgDataError(f"{folder} reads ECGs through an encoder, which vllm does not have; use transformers")
        try:
            from vllm import LLM
        except ModuleNotFoundError as error:
            raise ImportError("the back end vllm needs vLLM: `pip install 'ecgbyte-hf[vllm]'`") from error
        from transformers import AutoConfig

        lm_tokenizer, processor, prompt, source = parts.load_texts()
        dtype = AutoConfig.from_pretrained(parts.folder).dtype
        model = LLM(
            model=str(parts.folder),
            # vLLM's "auto" makes float16 of float32.
            dtype="auto" if dtype is None else str(dtype).removeprefix("torch."),
            max_model_len=prompt.max_length - prompt.reserve + max_new_tokens,
            enable_prefix_caching=True,
            # The folder's generation_config.json may name other ends than the one that was trained.
            generation_config="vllm",
            seed=0,
        )
        return cls(model, lm_tokenizer, processor, prompt, source, parts)

    def shared_prefix_obstacle(self) -> str | None:
        """None: vLLM keeps prefixes by itself, and finds them where questions about an ECG follow one another."""
        return None

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
        """Greedy completions; the arguments are those of `EcgLanguageModel.complete`.

        Raises:
            EcgDataError: options or a streamer, which this back end does not have.
        """
        if options_only or any(options or ()):
            raise EcgDataError("the back end vllm scores no options; use the back end transformers for them")
        if streamer is not None:
            raise EcgDataError("the back end vllm does not stream; use the back end transformers")
        from vllm import SamplingParams

        eos = self.lm_tokenizer.eos_token_id
        sampling = SamplingParams(temperature=0.0, max_tokens=max_new_tokens, stop_token_ids=[eos], detokenize=False)
        requests = [{"prompt_token_ids": self.prompt_tokenizer.ids(text_of(prompt))} for prompt in prompts]
        outputs = self.model.generate(requests, sampling, use_tqdm=False)
        completions = []
        for output in outputs:
            made = output.outputs[0]
            text = self.lm_tokenizer.decode(list(made.token_ids), skip_special_tokens=True).strip()
            completions.append(Completion(text, made.finish_reason == "length"))
        return completions
