"""What `ecgbyte sft` does otherwise for a model with an encoder: signals in the batches, LoRA beside the encoder."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.row_signals import open_row_signals
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgError
from ecgbyte_hf.models.processing_ecg_llm import ECG_END, ECG_START, ECG_TOKEN

logger = logging.getLogger(__name__)

#: Bytes of encodings that are kept. One of a ResNet-101 takes 8 kB: those of 260,000 ECGs.
MAX_KEPT = 2 * 2**30


class EcgEncodings:
    """What a frozen encoder makes of ECGs, each encoded once, whatever the questions and epochs.

    Args:
        model: An `EcgLlmForConditionalGeneration`, with an adapter or not.
        signals: Gives what the encoder takes for some ECGs, in their order.
        max_bytes: Kept; of more ECGs each is encoded as often as it is shown.
    """

    def __init__(self, model: Any, signals: Any, *, max_bytes: int = MAX_KEPT) -> None:
        self._model = _without_adapter(model).model
        self._signals = signals
        self._left = max_bytes
        self._is_full = False
        self._kept: dict[int, Any] = {}

    def __call__(self, ecg_ids: Sequence[int]) -> Any:
        """Encodings (ECGs, tokens, size), float32, on the CPU."""
        import torch

        unknown = list(dict.fromkeys(ecg_id for ecg_id in ecg_ids if ecg_id not in self._kept))
        new = self._encode(unknown) if unknown else {}
        return torch.stack([new[ecg_id] if ecg_id in new else self._kept[ecg_id] for ecg_id in ecg_ids])

    def _encode(self, ecg_ids: Sequence[int]) -> Mapping[int, Any]:
        import torch

        values = self._signals(ecg_ids)
        with torch.no_grad():
            if isinstance(values, torch.Tensor):
                encodings = self._model.encode(values).cpu()
            else:
                encodings = torch.cat([self._model.encode(value[None]).cpu() for value in values])
        found = {ecg_id: encoding.clone() for ecg_id, encoding in zip(ecg_ids, encodings, strict=True)}
        for ecg_id, encoding in found.items():
            if encoding.nbytes > self._left:
                self._say_full()
                break
            self._kept[ecg_id] = encoding
            self._left -= encoding.nbytes
        return found

    def _say_full(self) -> None:
        if not self._is_full:
            self._is_full = True
            logger.warning(
                "the encodings of %d ECGs fill their memory; other ECGs are encoded whenever they are shown",
                len(self._kept),
            )


class EcgSignalCollator:
    """Pads tokenised rows on the right and reads the signals of their ECGs.

    Args:
        processor: The `EcgLlmProcessor`.
        prepared: The signals that rows name by `ecg_id`; None for rows that show no ECG.
        pad_to_multiple_of: As in TRL.

    A batch has `input_ids`, `attention_mask`, `labels` (-100 without loss) and, where it shows ECGs, `ecg_values`, or
    `ecg_encodings` where `encodings` was set: one for each ECG, in the order of the placeholders.
    """

    def __init__(
        self, processor: Any, prepared: PreparedData | None = None, *, pad_to_multiple_of: int | None = None
    ) -> None:
        self.processor = processor
        self.prepared = prepared
        self.pad_to_multiple_of = pad_to_multiple_of
        self.encodings: EcgEncodings | None = None
        self._ecg_token_id = processor.tokenizer.convert_tokens_to_ids(ECG_TOKEN)

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Make a batch of rows with `input_ids`, `labels` and `ecg_id`.

        Raises:
            EcgDataError: a row whose placeholders are not those of its ECGs, or ECGs and nothing to read them from.
        """
        from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

        collator = DataCollatorForLanguageModeling(
            pad_token_id=self.processor.tokenizer.pad_token_id, pad_to_multiple_of=self.pad_to_multiple_of
        )
        batch: dict[str, Any] = collator([{name: row[name] for name in ("input_ids", "labels")} for row in rows])
        shown = [ecg_id for row in rows for ecg_id in self._shown(row)]
        if not shown:
            return batch
        if self.prepared is None:
            raise EcgDataError(
                "got rows with ECGs and no prepared folder, expected the one that they were written from"
            )
        if self.encodings is not None:
            batch["ecg_encodings"] = self.encodings(shown)
        else:
            batch["ecg_values"] = self.ecg_values(shown)
        return batch

    def ecg_values(self, ecg_ids: Sequence[int]) -> Any:
        """What the encoder takes for some ECGs."""
        prepared: Any = self.prepared
        return self.processor.ecg_values([prepared.signal(ecg_id) for ecg_id in ecg_ids])

    def _shown(self, row: dict[str, Any]) -> list[int]:
        """The ECGs of a row that its text has a place for: all or none."""
        places = list(row["input_ids"]).count(self._ecg_token_id)
        ecg_ids: list[int] = row.get("ecg_id") or []
        if places not in (0, len(ecg_ids) * self.processor.num_ecg_tokens):
            raise EcgDataError(
                f"got a row with {places} placeholders for the ECGs {ecg_ids}, expected "
                f"{self.processor.num_ecg_tokens} for each; write the rows with `ecgbyte encode` for this model"
            )
        return ecg_ids if places else []


def make_collator(
    processor: Any, rows_folder: str | None, rows: Any, data: str | None, *, pad_to_multiple_of: int | None
) -> EcgSignalCollator:
    """The collator of a folder of rows.

    Args:
        processor: The `EcgLlmProcessor`.
        rows_folder: What `ecgbyte encode` wrote.
        rows: The rows that are trained on, loaded from it.
        data: The prepared folder, where it is not where it was.
        pad_to_multiple_of: As in TRL.

    Raises:
        EcgDataError: rows that name no ECGs, or another prepared folder than theirs.
    """
    if rows_folder is None or "ecg_id" not in rows.column_names:
        raise EcgDataError(
            "a model with an encoder needs rows that name their ECGs, in one folder that `ecgbyte encode` wrote for "
            "it; give it as --dataset_name"
        )
    prepared = open_row_signals(rows_folder, data)
    prepared.check_processor(processor)
    return EcgSignalCollator(processor, prepared, pad_to_multiple_of=pad_to_multiple_of)


def encode_once(trainer: Any, collator: EcgSignalCollator) -> bool:
    """Have a collator encode each ECG once, by the trainer's frozen encoder.

    Returns:
        Whether it does: not for an encoder that is trained, one that is shared out to several devices, or batches that
        are made in other processes than the model's.
    """
    is_possible = (
        _without_adapter(trainer.model).config.freeze_encoder
        and not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)
        and trainer.args.dataloader_num_workers == 0
    )
    if is_possible:
        collator.encodings = EcgEncodings(trainer.model, collator.ecg_values)
    return bool(is_possible)


def _without_adapter(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def adapt_lora(peft_config: Any, config: Any, *, train_encoder: bool) -> None:
    """Keep LoRA to the language model, and train the projector whole.

    Args:
        peft_config: Of `trl.get_peft_config`; `target_modules` become a regular expression.
        config: `EcgLlmConfig`.
        train_encoder: Train the encoder whole too.

    Raises:
        EcgError: no layers are named and none are known for this language model; or PEFT cannot name the encoder.
    """
    given = peft_config.target_modules
    if given is None:
        from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN

        given = KNOWN.get(config.text_config.model_type)
        if given is None:
            raise EcgError(
                f"PEFT knows no layers of {config.text_config.model_type}; give --lora_target_modules all-linear"
            )
    names = [given] if isinstance(given, str) else sorted(given)
    if names == ["all-linear"]:
        names = _linear_layers(config.text_config)
    peft_config.target_modules = language_model_layers(names)
    encoder = _encoder_modules(config.encoder_config) if train_encoder else []
    peft_config.modules_to_save = list(dict.fromkeys([*(peft_config.modules_to_save or []), "projector", *encoder]))


def language_model_layers(names: Sequence[str]) -> str:
    """The regular expression by which PEFT finds these layers in the language model, and none of the encoder."""
    return r".*\.language_model\.(?:.*\.)?(?:" + "|".join(names) + ")"


def _encoder_modules(encoder_config: Any) -> list[str]:
    """What PEFT is to call an encoder: its name, or its parts' where the name says more than one module.

    PEFT takes every module whose name ends so: of CLIP the inner `vision_model.encoder` too, wrapped once again in the
    copy that is trained, and a merged model would have neither.

    Raises:
        EcgError: its parts have no names of their own either.
    """
    import torch

    from ecgbyte_hf.models.encoder_ecg_llm import encoder_model

    with torch.device("meta"):
        encoder = encoder_model(encoder_config)
    inner = [f"encoder.{name}" for name, _ in encoder.named_modules() if name]
    if not any(name.endswith("encoder") for name in inner):
        return ["encoder"]
    parts = [f"encoder.{name}" for name, _ in encoder.named_children()]
    own = [*encoder.parameters(recurse=False), *encoder.buffers(recurse=False)]
    lists = [part for part in encoder.children() if isinstance(part, (torch.nn.ModuleList, torch.nn.ModuleDict))]
    if own or lists or any(sum(name.endswith(part) for name in inner) > 1 for part in parts):
        raise EcgError(
            f"PEFT cannot tell the encoder {type(encoder).__name__} from the modules in it whose names end with "
            "encoder too; train without --use_peft, or leave --train_encoder out"
        )
    return parts


def _linear_layers(text_config: Any) -> list[str]:
    """Last parts of the names of a language model's linear layers."""
    import torch
    from transformers import AutoModel
    from transformers.pytorch_utils import Conv1D

    with torch.device("meta"):
        model = AutoModel.from_config(text_config)
    kinds = (torch.nn.Linear, Conv1D)
    names = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, kinds)}
    return sorted(re.escape(name) for name in names)


def block_token_ids(tokenizer: Any) -> list[int]:
    """Ids of the start and the end of an ECG; the placeholder's row is never read."""
    ids: Any = tokenizer.convert_tokens_to_ids([ECG_START, ECG_END])
    return list(ids)


def check_training(training: Any, rows_folder: str | Path | None) -> None:
    """Refuse options that would part rows from their ECGs, and let processes differ in what they train.

    A batch without ECGs gives the projector no gradient, nor does any batch a mask's token: DDP would wait for them.

    Raises:
        EcgError: packing.
    """
    if training.packing or training.padding_free:
        raise EcgError(
            "--packing and --padding_free put rows behind one another, without the ECGs of a model with an encoder, "
            f"whose rows are short anyway; leave them out for {rows_folder}"
        )
    # Rows keep the column that names their ECGs.
    training.remove_unused_columns = False
    options = training.gradient_checkpointing_kwargs = {
        "use_reentrant": False,
        **(training.gradient_checkpointing_kwargs or {}),
    }
    # Reentrant checkpointing fails with it.
    if training.ddp_find_unused_parameters is None and not options["use_reentrant"]:
        training.ddp_find_unused_parameters = True
