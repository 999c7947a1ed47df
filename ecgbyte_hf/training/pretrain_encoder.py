"""`ecgbyte pretrain-encoder`: the first stage of the two-stage baselines, an encoder trained on ECGs and texts.

The trainer is transformers'; what is added are the Noam schedule of the ECG-Byte paper, the parts of the loss in the
log, and a validation loss that is of all ECGs whatever the number of processes.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from ecgbyte_hf.data.fingerprints import weights_fingerprint
from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.models.auto import Encoder
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgError
from ecgbyte_hf.provenance import provenance, read_object, write_json
from ecgbyte_hf.training.checkpoints import load_saved_weights, newest_checkpoint
from ecgbyte_hf.training.encoder_data import EcgSignals, EcgTextCollator, EcgTextDataset
from ecgbyte_hf.training.encoder_texts import EcgTexts, LabelNames, default_text_kind, texts_of_split
from ecgbyte_hf.training.start_encoder import (
    EncoderParts,
    EncoderStart,
    pretraining_class,
    start_encoder,
    takes_texts,
)
from ecgbyte_hf.training.training_log import FIGURE_FILE, LOG_FILE, losses, plot_loss

logger = logging.getLogger(__name__)

#: What a training that is broken off was asked to do, so that nothing else goes on from its checkpoints.
JOB_FILE = "job.json"
PRECISIONS = ("no", "bf16", "fp16")
NOAM = "noam"
#: Noam, and those of transformers that need nothing but the learning rate and the steps of warm-up.
SCHEDULES = (NOAM, "linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt", "polynomial")
#: What may differ between a training and the one that goes on from it.
_MAY_DIFFER = {"resume", "epochs", "max_steps", "num_workers", "report_to", "early_stopping_patience", "in_memory"}


@dataclass(frozen=True)
class PretrainOptions:
    """How an encoder is trained; the defaults are the ECG-Byte paper's where it says any.

    Attributes:
        epochs: Times that all ECGs are seen.
        max_steps: Ends earlier or later, after so many steps; -1 for none.
        batch_size: ECGs in a step of each process.
        gradient_accumulation: Batches in a step; each is compared with itself alone.
        schedule: One of `SCHEDULES`.
        learning_rate: Of all but Noam, whose rate follows from the width.
        noam_factor: Multiplies Noam's rate.
        noam_width: Noam's `d_model`; by default 256 for the ResNet and 768 for the others in the paper's sizes: the
            size of the compared embeddings, or of the hidden states.
        warmup_steps: Until the highest rate.
        weight_decay: Of AdamW.
        max_grad_norm: The gradient is cut at this length.
        precision: "no" for float32, "bf16" or "fp16" for mixed precision.
        eval_steps: Steps between two evaluations, and checkpoints; an epoch by default.
        logging_steps: Steps between two lines of the log.
        early_stopping_patience: Ends after so many evaluations without a lower validation loss; None for never.
        seed: Of weights, order, texts and dropout.
        num_workers: Processes that make batches; by default this one does.
        in_memory: Hold all signals in memory, else read them when they are needed.
        report_to: Such as "wandb".
        resume: Go on from the newest checkpoint in the output folder.
        use_cpu: Train on the CPU where there is a GPU too.
    """

    epochs: float = 20.0
    max_steps: int = -1
    batch_size: int = 64
    gradient_accumulation: int = 1
    schedule: str = NOAM
    learning_rate: float | None = None
    noam_factor: float = 1.0
    noam_width: int | None = None
    warmup_steps: int = 500
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    precision: str = "no"
    eval_steps: int | None = None
    logging_steps: int = 10
    early_stopping_patience: int | None = 5
    seed: int = 0
    num_workers: int = 0
    in_memory: bool = True
    report_to: str = "none"
    resume: bool = False
    use_cpu: bool = False


def noam_rate(step: int, *, width: int, warmup_steps: int, factor: float = 1.0) -> float:
    """The learning rate of a step, from 1 (Vaswani et al., arXiv 1706.03762, section 5.3).

    Example:
        >>> round(noam_rate(500, width=768, warmup_steps=500), 7)
        0.0016137
    """
    return factor * width**-0.5 * min(step**-0.5, step * warmup_steps**-1.5)


def noam_width(config: Any) -> int:
    """`d_model` of a model where none is given: the size of the compared embeddings, or of the hidden states."""
    return int(getattr(config, "embedding_size", config.hidden_size))


class EcgEncoderTrainer(Trainer):
    """Trains the class ForPreTraining of an encoder.

    Args:
        model: The model.
        args: transformers' arguments. Their learning rate is Noam's highest where there are `noam_steps`.
        noam_steps: Steps of warm-up of the Noam schedule; None for the schedule of `args`.
        kwargs: As of `transformers.Trainer`; datasets are `EcgTextDataset`.

    Raises:
        EcgError: several GPUs in one process, which would compare parts of a batch only.
    """

    def __init__(self, model: Any, args: TrainingArguments, *, noam_steps: int | None = None, **kwargs: Any) -> None:
        if args.n_gpu > 1:
            raise EcgError(
                f"one process sees {args.n_gpu} GPUs; start one for each: `torchrun --nproc-per-node {args.n_gpu} -m "
                "ecgbyte_hf.cli pretrain-encoder ...`, or choose one with CUDA_VISIBLE_DEVICES=0"
            )
        model = with_synchronised_batch_norm(model, args.world_size, args.device)
        super().__init__(model=model, args=args, **kwargs)
        self._noam_steps = noam_steps
        self._parts: dict[str, torch.Tensor] = {}
        self._num_batches = 0
        self.add_callback(_EpochOfTexts(self.train_dataset))

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """As transformers', or Noam's."""
        if self._noam_steps is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        warmup = self._noam_steps
        # In units of the highest rate, which the optimizer has; the width does not matter then.
        highest = noam_rate(warmup, width=1, warmup_steps=warmup)
        given: Any = self.optimizer if optimizer is None else optimizer
        self.lr_scheduler = LambdaLR(
            given,
            lambda done: noam_rate(done + 1, width=1, warmup_steps=warmup) / highest,
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The model's loss; its parts are kept for the log."""
        outputs = model(**inputs)
        for name, value in _loss_parts(outputs).items():
            self._parts[name] = self._parts.get(name, 0.0) + value.detach()
        self._num_batches += 1
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As transformers', with the parts of the training loss, each the mean since the last line."""
        if "loss" in logs and self._num_batches:
            for name, total in sorted(self._parts.items()):
                mean = self.accelerator.reduce(total / self._num_batches, "mean")
                logs[name] = float(mean)
            self._parts, self._num_batches = {}, 0
        super().log(logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Mean loss, and of each part, over all ECGs of a data set.

        They are put into batches of nearly the same size: in a small last batch an ECG would be compared with few
        others. Every process has a share of each batch, and no ECG is in two, as it would be where batches are filled
        up for equal shares. `eval_runtime` is in seconds.
        """
        started = time.perf_counter()
        dataset: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        world, rank = self.args.world_size, self.args.process_index
        batches = even_batches(len(dataset), self.args.eval_batch_size * world)
        mine = [list(np.array_split(batch, world)[rank]) for batch in batches]
        loader = DataLoader(
            dataset,
            batch_sampler=mine,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )
        model: Any = self.model
        model.eval()
        totals: dict[str, float] = {}
        for indices, inputs in zip(mine, loader, strict=True):
            with torch.no_grad(), self.compute_loss_context_manager():
                outputs = model(**self._prepare_inputs(inputs))
            for name, value in {"loss": outputs.loss, **_loss_parts(outputs)}.items():
                totals[name] = totals.get(name, 0.0) + float(value) * len(indices)
        sums = torch.tensor(list(totals.values()), dtype=torch.float64, device=self.args.device)
        means = (self.accelerator.reduce(sums, "sum") / len(dataset)).tolist()
        metrics = {f"{metric_key_prefix}_{name}": mean for name, mean in zip(totals, means, strict=True)}
        metrics[f"{metric_key_prefix}_runtime"] = time.perf_counter() - started
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _load_best_model(self) -> None:
        self._load_weights(str(self.state.best_model_checkpoint))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._load_weights(resume_from_checkpoint)

    def _load_weights(self, folder: str) -> None:
        load_saved_weights(self.model, folder)


class _EpochOfTexts(TrainerCallback):
    """Tells the data set which epoch's texts to draw, before the batches of the epoch are made."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._dataset.set_epoch(int(state.epoch or 0))


def with_synchronised_batch_norm(model: nn.Module, num_processes: int, device: torch.device) -> nn.Module:
    """Batch normalisation over the batch of all processes, where they are several on GPUs; same names of weights.

    A process that normalises by its own ECGs would be told apart by that: the others' are its negatives.
    """
    if num_processes == 1 or device.type != "cuda":
        return model
    synchronised: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return synchronised


def even_batches(num_items: int, largest: int) -> list[np.ndarray]:
    """Numbers of the items, in as few batches as possible, whose sizes differ by one at most.

    Example:
        >>> [len(batch) for batch in even_batches(10, 4)]
        [4, 3, 3]
    """
    return np.array_split(np.arange(num_items), math.ceil(num_items / largest))


def _loss_parts(outputs: Any) -> dict[str, torch.Tensor]:
    return {name: value for name, value in outputs.items() if name.endswith("_loss")}


@dataclass(frozen=True)
class _Split:
    """The ECGs of a split that are used, with their texts."""

    ecg_ids: list[int]
    texts: EcgTexts | None


def pretrain_encoder(
    prepared: PreparedData,
    output_dir: str | Path,
    encoder: Encoder,
    *,
    texts: str | None = None,
    start: EncoderStart | None = None,
    options: PretrainOptions | None = None,
) -> dict[str, Any]:
    """Pretrain an encoder on the training split of a prepared folder; validate on its split `validation`.

    ECGs that any other split refers to are never trained on, whatever the questions say.

    Args:
        prepared: The prepared folder, whole or in windows.
        output_dir: Folder of the encoder, for `AutoModel.from_pretrained`. `training_log.json`, written last, and
            `loss.png` show how the losses went.
        encoder: Which one.
        texts: What ECGs are paired with, one of `TEXT_KINDS`; by default what the folder has, reports first.
        start: Where the weights come from.
        options: How it is trained.

    Returns:
        `encoder`, `texts`, `ecgs` (of each split `used`, `without_text`, and of training `in_other_splits`),
        `texts_cut`, `steps`, `warmup_steps`, `best_step`, `best_loss`, `parameters`, `trained_parameters`,
        `seconds_per_step` (evaluations and checkpoints among them).

    Raises:
        EcgError: options, data and weights that do not go together.
        OSError: there are no such weights.
    """
    start, options = start or EncoderStart(), options or PretrainOptions()
    _check_options(options)
    output = Path(output_dir)
    has_texts = takes_texts(pretraining_class(encoder))
    if texts is not None and not has_texts:
        raise EcgDataError(f"{encoder.command_name} learns from ECGs alone; leave --texts out")
    splits, counts, kind = _splits(prepared, texts, has_texts)
    arguments = _arguments(prepared, encoder, kind, start, options)
    checkpoint = _begin(output, arguments, options)
    torch.manual_seed(options.seed)
    parts = start_encoder(encoder, prepared, lambda: _plain_texts(splits["train"]), start)
    trainer = _trainer(prepared, output, parts, splits, options)
    model: Any = trainer.model  # whose batch normalisation may have been exchanged
    counts_of_texts = _texts_cut(parts, splits["train"])
    trained = trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model(str(output))
    steps = trainer.state.global_step
    done_here = steps - (int(checkpoint.rsplit("-", 1)[1]) if checkpoint else 0)
    report = {
        "encoder": encoder.command_name,
        "texts": kind,
        "ecgs": counts,
        **counts_of_texts,
        "steps": steps,
        "warmup_steps": options.warmup_steps,
        "best_step": trainer.state.best_global_step,
        "best_loss": trainer.state.best_metric,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trained_parameters": sum(one.numel() for one in model.parameters() if one.requires_grad),
        "seconds_per_step": trained.metrics["train_runtime"] / max(done_here, 1),
    }
    if trainer.is_world_process_zero():
        _write_log(output, trainer.state.log_history, report, prepared, arguments)
    trainer.accelerator.wait_for_everyone()
    return report


def _check_options(options: PretrainOptions) -> None:
    if options.schedule not in SCHEDULES or options.precision not in PRECISIONS:
        raise EcgError(
            f"got the schedule {options.schedule!r} and precision {options.precision!r}, expected one of "
            f"{', '.join(SCHEDULES)} and of {', '.join(PRECISIONS)}"
        )
    if (options.schedule == NOAM) != (options.learning_rate is None):
        raise EcgError(
            "--learning-rate belongs to the other schedules: Noam's follows from the width (--noam-factor, "
            "--noam-width)"
            if options.schedule == NOAM
            else f"--lr-scheduler {options.schedule} needs --learning-rate"
        )
    if options.schedule == NOAM and options.warmup_steps < 1:
        raise EcgError(f"got --warmup-steps {options.warmup_steps}, expected at least 1 for Noam")
    for name in ("batch_size", "gradient_accumulation", "logging_steps", "eval_steps", "early_stopping_patience"):
        value = getattr(options, name)
        if value is not None and value < (2 if name == "batch_size" else 1):
            raise EcgError(f"got --{name.replace('_', '-')} {value}, expected at least {2 if 'batch' in name else 1}")
    if options.precision == "fp16" and (options.use_cpu or not torch.cuda.is_available()):
        raise EcgError("--precision fp16 needs a GPU; bf16 works on CPUs too")


def _splits(
    prepared: PreparedData, texts: str | None, has_texts: bool
) -> tuple[dict[str, _Split], dict[str, dict[str, int]], str | None]:
    """The ECGs of training, and of validation where there are some; how many are left out, and the kind of texts."""
    if "train" not in prepared.splits:
        raise EcgDataError(f"{prepared.folder} has no training split; it has {', '.join(prepared.splits)}")
    held_out: set[int] = set()
    for split in prepared.splits:
        if split != "train":
            held_out.update(ecg_id for row in prepared.questions(split) for ecg_id in row["ecg_id"])
    rows = prepared.questions("train") if has_texts else []
    names, kind = LabelNames(rows), (texts or default_text_kind(rows)) if has_texts else None
    del rows
    splits: dict[str, _Split] = {}
    counts: dict[str, dict[str, int]] = {}
    for name in ("train", "validation"):
        if name not in prepared.splits:
            continue
        told = texts_of_split(prepared, name, kind or "answers", names)
        asked = list(told.parts if has_texts else told.ecg_ids)
        used = [ecg_id for ecg_id in asked if name != "train" or ecg_id not in held_out]
        counts[name] = {"used": len(used), "without_text": told.num_without if has_texts else 0}
        if name == "train":
            counts[name]["in_other_splits"] = len(asked) - len(used)
        if used:
            splits[name] = _Split(used, told if has_texts else None)
    if "train" not in splits:
        raise EcgDataError(
            f"{prepared.folder} has no training ECG with a text of the kind {kind!r}; see `ecgbyte pretrain-encoder "
            "--help` for the kinds"
        )
    return splits, counts, kind


def _plain_texts(split: _Split) -> Iterator[str]:
    if split.texts is not None:
        for ecg_id in split.ecg_ids:
            yield split.texts.text(ecg_id)


def _arguments(
    prepared: PreparedData, encoder: Encoder, kind: str | None, start: EncoderStart, options: PretrainOptions
) -> dict[str, Any]:
    return {
        "encoder": encoder.command_name,
        "data": prepared.fingerprint,
        "data_folder": str(prepared.folder),
        "window_seconds": prepared.window_seconds,
        "window_stride": prepared.window_stride,
        "texts": kind,
        **asdict(start),
        **asdict(options),
    }


def _begin(output: Path, arguments: dict[str, Any], options: PretrainOptions) -> str | None:
    """Refuse a folder of another training; the checkpoint to go on from, if it is to."""
    job = provenance("pretrain-encoder", arguments)
    newest = newest_checkpoint(output)
    if not options.resume:
        if newest is not None or (output / LOG_FILE).is_file():
            raise EcgDataError(
                f"{output} holds an encoder, or checkpoints of one; go on from the newest with --resume, or choose "
                "another folder"
            )
        if os.environ.get("RANK", "0") == "0":
            write_json(output / JOB_FILE, job)
        return None
    if newest is None:
        raise EcgDataError(f"{output} has no checkpoint to go on from; leave --resume out")
    before = (read_object(output / JOB_FILE) or {}).get("arguments", {})
    now = job["arguments"]
    differing = sorted(
        name for name in now if name not in _MAY_DIFFER | {"data_folder"} and before.get(name) != now[name]
    )
    if differing:
        listed = ", ".join(f"{name} {before.get(name)!r} there and {now[name]!r} here" for name in differing)
        raise EcgDataError(f"{output} was begun otherwise: {listed}; give the same options, or another folder")
    (output / LOG_FILE).unlink(missing_ok=True)
    return newest


def _trainer(
    prepared: PreparedData, output: Path, parts: EncoderParts, splits: dict[str, _Split], options: PretrainOptions
) -> EcgEncoderTrainer:
    args = _training_arguments(output, parts, "validation" in splits, options)
    train = splits["train"]
    needed = args.train_batch_size * args.world_size
    if len(train.ecg_ids) < needed:
        raise EcgDataError(
            f"there are {len(train.ecg_ids)} ECGs to train on, fewer than the {needed} of a batch; give a smaller "
            "--batch-size"
        )
    if "validation" in splits and len(splits["validation"].ecg_ids) < args.world_size:
        raise EcgDataError(
            f"there are {len(splits['validation'].ecg_ids)} ECGs to validate on, fewer than the {args.world_size} "
            "processes, of which each needs one; start fewer processes, or prepare more validation records"
        )
    signals = EcgSignals(
        prepared, [ecg_id for split in splits.values() for ecg_id in split.ecg_ids], in_memory=options.in_memory
    )
    datasets = {
        name: EcgTextDataset(signals, split.ecg_ids, split.texts, seed=options.seed if name == "train" else None)
        for name, split in splits.items()
    }
    callbacks: list[TrainerCallback] = []
    if options.early_stopping_patience is not None and "validation" in splits:
        callbacks.append(EarlyStoppingCallback(options.early_stopping_patience))
    return EcgEncoderTrainer(
        model=parts.model,
        args=args,
        noam_steps=options.warmup_steps if options.schedule == NOAM else None,
        train_dataset=datasets["train"],
        eval_dataset=datasets.get("validation"),
        data_collator=EcgTextCollator(
            parts.model.main_input_name,
            image_processor=parts.image_processor,
            tokenizer=parts.tokenizer,
            max_length=parts.max_text_length,
        ),
        processing_class=parts,
        callbacks=callbacks,
    )


def _training_arguments(
    output: Path, parts: EncoderParts, has_validation: bool, options: PretrainOptions
) -> TrainingArguments:
    when = "epoch" if options.eval_steps is None else "steps"
    rate = options.learning_rate
    if rate is None:
        width = options.noam_width or noam_width(parts.model.config)
        rate = noam_rate(
            options.warmup_steps, width=width, warmup_steps=options.warmup_steps, factor=options.noam_factor
        )
    has_gpu = torch.cuda.is_available() and not options.use_cpu
    return TrainingArguments(
        output_dir=str(output),
        num_train_epochs=options.epochs,
        max_steps=options.max_steps,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        gradient_accumulation_steps=options.gradient_accumulation,
        learning_rate=rate,
        lr_scheduler_type="constant" if options.schedule == NOAM else options.schedule,
        warmup_steps=0 if options.schedule == NOAM else options.warmup_steps,
        # The betas of the paper's training of the language model; of the encoders it says nothing else.
        adam_beta1=0.9,
        adam_beta2=0.99,
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        bf16=options.precision == "bf16",
        fp16=options.precision == "fp16",
        use_cpu=not has_gpu,
        seed=options.seed,
        eval_strategy=when if has_validation else "no",
        save_strategy=when,
        eval_steps=options.eval_steps,
        save_steps=options.eval_steps or 500,
        logging_steps=options.logging_steps,
        load_best_model_at_end=has_validation,
        metric_for_best_model="eval_loss" if has_validation else None,
        greater_is_better=False if has_validation else None,
        save_total_limit=2,
        # A smaller last batch is easier, and one of a single ECG teaches nothing. The order is another in each epoch,
        # so that all ECGs are seen.
        dataloader_drop_last=True,
        dataloader_num_workers=options.num_workers,
        dataloader_pin_memory=has_gpu,
        remove_unused_columns=False,
        label_names=[],
        report_to=options.report_to,
    )


def _texts_cut(parts: EncoderParts, split: _Split) -> dict[str, int]:
    """How many training texts are longer than the tower takes."""
    if parts.tokenizer is None:
        return {"texts_cut": 0}
    lengths = [
        len(ids) for batch in _batched(list(_plain_texts(split))) for ids in parts.tokenizer(batch)["input_ids"]
    ]
    cut = sum(length > (parts.max_text_length or length) for length in lengths)
    if cut:
        logger.warning(
            "%d of %d training texts are longer than the %s tokens that the text tower is given, the longest has %d: "
            "their ends are cut off",
            cut,
            len(lengths),
            parts.max_text_length,
            max(lengths),
        )
    return {"texts_cut": cut}


def _batched(items: Sequence[str], size: int = 1000) -> Iterator[list[str]]:
    for first in range(0, len(items), size):
        yield list(items[first : first + size])


def _write_log(
    output: Path, history: list[dict[str, Any]], report: dict[str, Any], prepared: PreparedData, arguments: Any
) -> None:
    block = provenance(
        "pretrain-encoder",
        arguments,
        data_hash=prepared.report.get("data_hash"),
        data_source=prepared.report.get("source"),
        weights=weights_fingerprint(output),
    )
    if losses(history, "loss"):
        _draw(history, output / FIGURE_FILE)
    write_json(output / LOG_FILE, {"history": history, "report": report, "provenance": block})


def _draw(history: list[dict[str, Any]], path: Path) -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        logger.warning("%s was not drawn: it needs matplotlib, `pip install 'ecgbyte-hf[plot]'`", path)
        return
    from ecgbyte_hf.interpretation.figures import save_figure

    figure = plot_loss(history)
    axis = figure.axes[0]
    axis.set_ylabel("loss")
    names = sorted({name for entry in history for name in entry if name.endswith("_loss") and "loss" in entry})
    if len(names) > 1:
        for name, style in zip(names, ("--", ":", "-."), strict=False):
            label = name.removesuffix("_loss").replace("_", " ")
            axis.plot(*zip(*losses(history, name), strict=True), style, color="0.4", label=label)
        axis.legend(frameon=False)
    save_figure(figure, path)
