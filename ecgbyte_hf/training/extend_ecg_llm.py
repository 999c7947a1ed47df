"""Put a pretrained encoder of ECGs in front of a causal language model: the second stage, before any training."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ecgbyte_hf.data.ecg_parts import note_base, save_parts
from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.prompts import PROMPT_FILE, SIGNAL_SUBFOLDER, EcgPrompt
from ecgbyte_hf.models.errors_ecg_byte import BudgetError, EcgDataError, EcgError, EcgFileError
from ecgbyte_hf.models.processing_ecg_llm import ECG_END, ECG_START, ECG_TOKEN, EcgLlmProcessor
from ecgbyte_hf.training.extend_llm import ExtendableModel

logger = logging.getLogger(__name__)

#: In this order they are added to a language model's tokenizer.
ECG_TOKENS = (ECG_START, ECG_END, ECG_TOKEN)
# Training records that features are measured on: their mean and deviation hardly change beyond.
_MEASURED_RECORDS = 256
# Seconds that a record is taken to have where nothing says it: those of PTB-XL and MIMIC-IV-ECG.
_RECORD_SECONDS = 10.0


@dataclass(frozen=True)
class EcgLlmFolder:
    """What `extend_ecg_llm` made.

    Attributes:
        folder: Where model, processor and prompt were saved.
        num_ecg_tokens: Placeholders of an ECG.
        encoder_parameters: Of the encoder, frozen.
        projector_parameters: Of the projector.
        measured_records: Records that its features were standardised on.
    """

    folder: Path
    num_ecg_tokens: int
    encoder_parameters: int
    projector_parameters: int
    measured_records: int


def extend_ecg_llm(
    encoder_dir: str | Path,
    model_name_or_path: str,
    output_dir: str | Path,
    *,
    prompt: EcgPrompt | None = None,
    prompt_format: str = "plain",
    system_prompt: str | None = None,
    ecg_features: str = "pooled",
    projector_type: str = "linear",
    num_ecg_tokens: int | None = None,
    standardize_on: PreparedData | None = None,
    seed: int = 0,
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> EcgLlmFolder:
    """Join an encoder and a language model, and save them with their processor.

    Args:
        encoder_dir: What `ecgbyte pretrain-encoder` wrote, or another folder for `AutoModel` with the feature
            extractor's `preprocessor_config.json`; with an image processor's, and the feature extractor in `signal/`,
            for an encoder that reads pictures.
        model_name_or_path: Any `AutoModelForCausalLM` with a fast tokenizer.
        output_dir: A new folder, or one this function may overwrite.
        prompt: As of `extend_llm`, as are `prompt_format` and `system_prompt`.
        prompt_format: `"plain"` or `"chat"`.
        system_prompt: In a chat, the system's message.
        ecg_features: `"pooled"`, one token for each ECG as in the paper, or `"sequence"`.
        projector_type: `"linear"` or `"mlp"`.
        num_ecg_tokens: Tokens of a sequence; by default as many as the encoder gives for the prompt's windows, else
            for a record of `standardize_on`, else for 10 s.
        standardize_on: Prepared folder; the features are standardised by their mean and standard deviation over at
            most 256 of its training records. The projection remains as linear as it was.
        seed: Of the projector and the new rows.
        dtype: The language model's, as in `from_pretrained`; the encoder is kept in float32.
        revision: The language model's on the Hub.
        trust_remote_code: Passed to `from_pretrained`.

    Raises:
        EcgFileError: no encoder in the folder.
        EncoderError: encoder, cleaning and language model do not go together.
        EcgDataError: records that were cleaned otherwise than the encoder's.
        BudgetError: the ECG's placeholders leave no room for a question.
        VocabularyError, EcgDataError: as of `extend_llm`.
    """
    import torch

    prompt = prompt or EcgPrompt()
    encoder, extractor, picture = load_encoder(encoder_dir)
    samples = _shown_samples(encoder, extractor, picture, prompt, standardize_on)
    seen = _encoded_length(encoder, extractor, picture, samples)
    count = 1 if ecg_features == "pooled" else (seen if num_ecg_tokens is None else num_ecg_tokens)
    if ecg_features == "pooled" and num_ecg_tokens not in (None, 1):
        raise EcgError(f"got --num-ecg-tokens {num_ecg_tokens} with pooled features, which are one: leave it out")
    prompt_room = prompt.max_length - prompt.reserve
    if count + 2 >= prompt_room:
        raise BudgetError(
            f"an ECG of {count} placeholders, a start and an end leaves no room for a question in {prompt.max_length} "
            f"tokens with {prompt.reserve} for the answer; raise --max-length or give fewer --num-ecg-tokens"
        )
    base = ExtendableModel.load(
        model_name_or_path,
        prompt,
        prompt_format=prompt_format,
        system_prompt=system_prompt,
        dtype=dtype,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    base.add_tokens(list(ECG_TOKENS), None, init="spread", seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = join(
            encoder,
            base.model,
            base.tokenizer,
            ecg_features=ecg_features,
            projector_type=projector_type,
            num_ecg_tokens=count,
        )
    processor = EcgLlmProcessor(extractor, base.tokenizer, picture=picture, num_ecg_tokens=count)
    measured = 0 if standardize_on is None else standardize_features(model, processor, standardize_on)

    folder = Path(output_dir)
    # The prompt is written last, so that the next command refuses the folder of a killed job.
    (folder / PROMPT_FILE).unlink(missing_ok=True)
    model.save_pretrained(folder)
    note_base(folder, model_name_or_path, revision)
    save_parts(folder, processor, base.prompt)
    return EcgLlmFolder(folder, count, _num_parameters(encoder), _num_parameters(model.model.projector), measured)


def join(encoder: Any, language_model: Any, tokenizer: Any, **settings: Any) -> Any:
    """Join an encoder and a language model whose tokenizer has the tokens of an ECG; they become parts of the result.

    Args:
        encoder: Base model of an encoder.
        language_model: Any `AutoModelForCausalLM`.
        tokenizer: Its tokenizer.
        settings: Of `EcgLlmConfig`.

    Returns:
        `EcgLlmForConditionalGeneration` with a random projector.

    Raises:
        EncoderError: as of `from_parts`.
    """
    from ecgbyte_hf.models.modeling_ecg_llm import EcgLlmForConditionalGeneration

    # Read and never written; at a placeholder of its own the model would look for an ECG that is not there.
    language_model.generation_config.suppress_tokens = tokenizer.convert_tokens_to_ids(list(ECG_TOKENS))
    return EcgLlmForConditionalGeneration.from_parts(
        encoder,
        language_model,
        ecg_token_id=tokenizer.convert_tokens_to_ids(ECG_TOKEN),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=language_model.config.eos_token_id,
        bos_token_id=language_model.config.bos_token_id,
        **settings,
    )


def load_encoder(folder: str | Path) -> tuple[Any, Any, Any]:
    """Load an encoder, the feature extractor that cleans its signals, and its image processor, where it has one.

    Raises:
        EcgFileError: one of them is not there.
    """
    from transformers import AutoModel

    import ecgbyte_hf.models.auto  # noqa: F401  (registers the ECG classes)
    from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor
    from ecgbyte_hf.models.image_processing_ecg import EcgImageProcessor

    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise EcgFileError(f"{folder} holds no config.json; expected an encoder that `ecgbyte pretrain-encoder` wrote")
    encoder = AutoModel.from_pretrained(folder)
    reads_pictures = encoder.main_input_name == "pixel_values"
    cleaning = folder / SIGNAL_SUBFOLDER if reads_pictures else folder
    for place in {folder, cleaning}:
        if not (place / "preprocessor_config.json").is_file():
            raise EcgFileError(
                f"{place} holds no preprocessor_config.json, which says how the encoder's "
                f"{'pictures are drawn' if reads_pictures and place == folder else 'signals are cleaned'}; save it "
                "there with save_pretrained"
            )
    picture = EcgImageProcessor.from_pretrained(folder) if reads_pictures else None
    return encoder.eval(), EcgByteFeatureExtractor.from_pretrained(cleaning), picture


def standardize_features(model: Any, processor: Any, prepared: PreparedData) -> int:
    """Set the mean and the scale of a projector's features by a prepared folder's training records.

    Returns:
        The number of records that they were measured on.

    Raises:
        EcgDataError: the records were cleaned otherwise, or there are none.
    """
    import torch

    prepared.check_processor(processor)
    chosen = prepared.train_ecg_ids()
    if not chosen:
        raise EcgDataError(f"{prepared.folder} has no training records to measure the encoder's features on")
    chosen = chosen[:: -(-len(chosen) // _MEASURED_RECORDS)]
    with torch.inference_mode():
        features = torch.cat(
            [model.model.encode(processor.ecg_values([signal])) for _, signal in prepared.iter_signals(chosen)]
        )
    deviation, mean = torch.std_mean(features.flatten(0, 1).double(), dim=0, correction=0)
    projector = model.model.projector
    # A feature that hardly moves is noise: raised to the others' size it would be all that is seen.
    floor = 1e-3 * deviation.max().clamp(min=torch.finfo(torch.float32).tiny)
    projector.feature_mean.copy_(mean)
    projector.feature_scale.copy_(deviation.clamp(min=floor))
    return len(chosen)


def _shown_samples(
    encoder: Any, extractor: Any, picture: Any, prompt: EcgPrompt, standardize_on: PreparedData | None
) -> int:
    """Samples of what the encoder will be shown; where nothing says it, those of the whole patches in 10 s."""
    if prompt.window_seconds is not None:
        return max(round(prompt.window_seconds * extractor.sampling_rate), 1)
    if standardize_on is not None and (known := standardize_on.train_ecg_ids()):
        return int(standardize_on.signal(known[0]).shape[1])
    samples = round(_RECORD_SECONDS * extractor.sampling_rate)
    patch = 1 if picture is not None else getattr(encoder.config, "patch_size", 1)
    return max(samples // patch, 1) * int(patch)


def _encoded_length(encoder: Any, extractor: Any, picture: Any, samples: int) -> int:
    """Tokens of the encoder's sequence for a record of so many samples; looks whether it takes these signals."""
    import torch

    from ecgbyte_hf.models.errors_ecg_byte import EncoderError, LeadError

    signal = np.zeros((len(extractor.leads), samples), np.float32)
    try:
        values = torch.tensor(signal[None])
        if picture is not None:
            values = picture.preprocess([signal], return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            return int(encoder(**{encoder.main_input_name: values}).last_hidden_state.shape[1])
    except (EncoderError, LeadError) as error:
        raise EncoderError(
            f"the encoder does not take what its feature extractor gives: {error} Keep the preprocessor_config.json "
            "that the encoder was pretrained with"
        ) from error


def _num_parameters(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
