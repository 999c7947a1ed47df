"""`ecgbyte sft`: supervised fine-tuning by TRL, with the few things that the command `trl sft` cannot do.

TRL's parser and dataclasses read the options, so that everything `trl sft` takes works the same; TRL's trainer trains.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from ecgbyte_hf.models.errors_ecg_byte import BudgetError, EcgDataError, EcgError


@dataclass
class EcgArguments:
    """The options of `ecgbyte sft` that are not TRL's; the names are the flags."""

    train_ecg_rows: bool = field(
        default=False,
        metadata={"help": "with --use_peft: train the embedding rows of the ECG tokens too (default: frozen)"},
    )
    merge: bool = field(
        default=False,
        metadata={"help": "with --use_peft: also write the merged model to OUTPUT_DIR/merged, such as for vLLM"},
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "stop after so many evaluations without a better one; needs --load_best_model_at_end"},
    )
    pack_shared_rows: bool = field(
        default=False,
        metadata={"help": "put the shared-prefix rows of a batch into one sequence, for flex_attention"},
    )
    train_encoder: bool = field(
        default=False,
        metadata={"help": "of a model with an encoder: train that too (default: frozen, as in the paper)"},
    )
    ecg_data: str | None = field(
        default=None,
        metadata={"help": "of a model with an encoder: the prepared folder, if it is not where it was"},
    )
    keep_encodings: bool = field(
        default=True,
        metadata={
            "help": "of a model with a frozen encoder: encode each ECG once and keep the result, up to 2 GiB in each "
            "process; not with FSDP, DeepSpeed or --dataloader_num_workers"
        },
    )


@dataclass(frozen=True)
class _Options:
    """What was given, by the class that it belongs to."""

    script: Any
    training: Any
    model: Any
    mixture: Any
    ecg: EcgArguments


def run_sft(arguments: Sequence[str]) -> int:
    """Train as `trl sft` does: through `accelerate launch`, on as many devices as it is told or finds.

    Inside a launch (of this function, `accelerate launch` or `torchrun`) the training itself runs.

    Args:
        arguments: The command line behind `ecgbyte sft`.

    Returns:
        Exit code.

    Raises:
        EcgError: options, rows or a model that do not go together.
    """
    if {"ACCELERATE_MIXED_PRECISION", "LOCAL_RANK"} & set(os.environ):
        train(arguments)
        return 0
    return _launch(arguments)


def train(arguments: Sequence[str]) -> Path:
    """Train in this process; `output_dir` is then a folder for `ecgbyte generate --model`.

    `training_log.json` and `loss.png` there show how the loss went.

    Args:
        arguments: Options as on the command line, `--config FILE` among them.

    Returns:
        `output_dir`.

    Raises:
        EcgError: options, rows or a model that do not go together.
    """
    options, _, unknown = parse_options(arguments)
    if unknown:
        raise EcgError(f"unknown: {' '.join(unknown)}; try `ecgbyte sft --help`")
    parts = ecg_parts(options.model.model_name_or_path, revision=options.model.model_revision)
    return _train(options, parts)


def parse_options(arguments: Sequence[str]) -> tuple[_Options, list[str], list[str]]:
    """Read a command line by TRL's parser.

    Returns:
        The options, and what is no option of training: from the YAML file, and from the command line. `accelerate
        launch` may know it.

    Raises:
        EcgError: a value that TRL refuses, or a YAML file that is none.
    """
    import yaml
    from trl import DatasetMixtureConfig, ModelConfig, ScriptArguments, SFTConfig, TrlParser

    class Parser(TrlParser):
        def error(self, message: str) -> NoReturn:
            # TRL's usage is a hundred lines.
            self.exit(2, f"{self.prog}: {message}\nTry `ecgbyte sft --help`.\n")

    classes: Any = (ScriptArguments, SFTConfig, ModelConfig, DatasetMixtureConfig, EcgArguments)
    parser = Parser(classes, prog="ecgbyte sft", allow_abbrev=False)
    try:
        *made, from_file, from_line = parser.parse_args_and_config(
            list(arguments), return_remaining_strings=True, separate_remaining_strings=True
        )
    except (ValueError, yaml.YAMLError) as error:
        raise EcgError(" ".join(str(error).split())) from error
    options = _Options(*made)
    _check_options(options)
    return options, from_file, from_line


def ecg_parts(model_name_or_path: str, *, revision: str | None = None) -> Path:
    """The folder with ECG tokenizer, feature extractor and prompt of an extended model, here or on the Hub.

    Raises:
        EcgFileError: no such folder, and no name on the Hub.
        EcgHubError: the Hub does not have or give the model.
    """
    from ecgbyte_hf.data.ecg_parts import EcgParts
    from ecgbyte_hf.data.hub_folder import local_or_hub_folder
    from ecgbyte_hf.data.prompts import ECG_SUBFOLDER

    folder = local_or_hub_folder(
        model_name_or_path,
        made_by="ecgbyte extend-llm",
        revision=revision,
        # Of a model with an encoder, processor and tokenizer are files of the root.
        allow_patterns=[f"{ECG_SUBFOLDER}/*", "*.json", "*.jinja", "tokenizer.model"],
    )
    return EcgParts.find(folder).folder


def merge_adapter(base: str, adapter: Path, output_dir: Path, **load_options: Any) -> Path:
    """Write the base model with an adapter's weights worked in, and its tokenizer.

    The base is loaded anew: in training it may be quantised or shared out to several devices.

    Args:
        base: The model that was trained on.
        adapter: The adapter's folder, with the tokenizer.
        output_dir: Folder to write.
        load_options: Passed to `from_pretrained` of the base, such as `dtype`.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, **load_options)
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(output_dir)
    AutoTokenizer.from_pretrained(adapter).save_pretrained(output_dir)
    return output_dir


def _train(options: _Options, parts: Path) -> Path:
    from transformers import EarlyStoppingCallback
    from trl import get_peft_config, get_quantization_config

    from ecgbyte_hf.data.ecg_parts import EcgParts, note_base, save_parts
    from ecgbyte_hf.training import encoder_sft, shared_prefix
    from ecgbyte_hf.training.row_origin import origin_of_rows
    from ecgbyte_hf.training.training_log import LOG_FILE, write_training_log
    from ecgbyte_hf.training.trl_on_cpu import labelled_positions_only

    script, training, model, ecg = options.script, options.training, options.model, options.ecg
    ecg_parts_of_model = EcgParts.at(parts)
    has_encoder = ecg_parts_of_model.has_encoder
    prompt = ecg_parts_of_model.load_prompt()
    _check_length(training.max_length, prompt)
    _check_encoder_options(ecg, has_encoder)
    processor = ecg_parts_of_model.load_processor()
    load_options = {
        "revision": model.model_revision,
        "trust_remote_code": training.trust_remote_code,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        **(training.model_init_kwargs or {}),
    }
    training.model_init_kwargs = load_options
    _check_distribution(options)
    peft_config: Any = get_peft_config(model)
    if has_encoder:
        encoder_sft.check_training(training, script.dataset_name)
        load_options["freeze_encoder"] = not ecg.train_encoder
        if peft_config is not None:
            encoder_sft.adapt_lora(peft_config, _config_of(model), train_encoder=ecg.train_encoder)
    if ecg.train_ecg_rows:
        peft_config.trainable_token_indices = _ecg_token_ids(model.model_name_or_path, processor, model.model_revision)
    checkpoint = _checkpoint(training)
    rows = _load_rows(options)
    train_rows = rows[script.dataset_train_split]
    eval_rows = rows[script.dataset_test_split] if training.eval_strategy != "no" else None
    collator = None
    if has_encoder:
        collator = encoder_sft.make_collator(
            processor,
            script.dataset_name,
            train_rows,
            ecg.ecg_data,
            pad_to_multiple_of=training.pad_to_multiple_of,
        )
    elif shared_prefix.has_shared_rows(train_rows) or shared_prefix.has_shared_rows(eval_rows):
        train_rows, eval_rows = (shared_prefix.rows_for_trl(training, part) for part in (train_rows, eval_rows))
        collator = _shared_prefix_collator(options)
    elif ecg.pack_shared_rows:
        raise EcgError("--pack_shared_rows needs rows of `ecgbyte encode --row-format shared`; for others --packing")
    trainer: Any = _make_trainer(
        has_encoder=has_encoder,
        model=model.model_name_or_path,
        args=training,
        train_dataset=train_rows,
        eval_dataset=eval_rows,
        data_collator=collator,
        # By its name TRL would take the processor, which makes it look for pictures in the rows.
        processing_class=processor.tokenizer if has_encoder else None,
        quantization_config=get_quantization_config(model),
        peft_config=peft_config,
        callbacks=[EarlyStoppingCallback(ecg.early_stopping_patience)] if ecg.early_stopping_patience else None,
    )
    output_layer = trainer.model.get_output_embeddings()
    if not hasattr(output_layer, "bias"):
        # PEFT's wrapper of a tied output layer has none, and TRL's fused loss asks for it.
        output_layer.bias = None
    if collator is not None and not has_encoder:
        shared_prefix.prepare_trainer(trainer)
    elif collator is not None and ecg.keep_encodings:
        encoder_sft.encode_once(trainer, collator)
    output_dir = Path(training.output_dir)
    origin: dict[str, Any] = {}
    if trainer.is_world_process_zero():
        # Before the training: afterwards the Hub may have gone away, and hours with it.
        origin = origin_of_rows(script.dataset_name, rows) if script.dataset_name else {}
        (output_dir / LOG_FILE).unlink(missing_ok=True)
    with labelled_positions_only():
        trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model(training.output_dir)
    if trainer.is_world_process_zero():
        save_parts(output_dir, processor, prompt)
        note_base(output_dir, model.model_name_or_path)
        merged = None
        if ecg.merge:
            if trainer.is_deepspeed_enabled:
                from transformers.integrations.deepspeed import unset_hf_deepspeed_config

                # With ZeRO-3, from_pretrained would share the base out to all processes, which are not here.
                unset_hf_deepspeed_config()
            merged = merge_adapter(model.model_name_or_path, output_dir, output_dir / "merged", **load_options)
            save_parts(merged, processor, prompt)
            note_base(merged, model.model_name_or_path)
        # Last: who finds it knows that all is there.
        write_training_log(
            output_dir,
            trainer.state.log_history,
            _arguments(options),
            origin=origin,
            model=trainer.model,
            merged=merged,
        )
    trainer.accelerator.wait_for_everyone()
    if training.push_to_hub:
        trainer.push_to_hub(dataset_name=script.dataset_name)
    trainer.end()
    return output_dir


def _make_trainer(*, has_encoder: bool, **given: Any) -> Any:
    from trl import SFTTrainer

    from ecgbyte_hf.training.checkpoints import load_saved_weights

    class EncoderTrainer(SFTTrainer):
        def _load_best_model(self) -> None:
            if self._loads_by_name():
                self._load_weights(str(self.state.best_model_checkpoint))
            else:
                super()._load_best_model()

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            if self._loads_by_name():
                self._load_weights(resume_from_checkpoint)
            else:
                super()._load_from_checkpoint(resume_from_checkpoint, model)

        def _loads_by_name(self) -> bool:
            return not (hasattr(self.model, "peft_config") or self.is_fsdp_enabled or self.is_deepspeed_enabled)

        def _load_weights(self, folder: str) -> None:
            load_saved_weights(self.model, folder)

    with _said_in_one_line():
        return (EncoderTrainer if has_encoder else SFTTrainer)(**given)


def _launch(arguments: Sequence[str]) -> int:
    """Start `ecgbyte sft` again under `accelerate launch`; what TRL's parser does not know is for the launch."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from trl.cli.accelerate_config import resolve_accelerate_config_argument

    options, from_file, from_line = parse_options(arguments)
    ecg_parts(options.model.model_name_or_path, revision=options.model.model_revision)
    with _said_in_one_line():
        for_launch = resolve_accelerate_config_argument([*from_file, *from_line])
    inner = _without(list(arguments), from_line)
    launch_arguments, unknown = launch_command_parser().parse_known_args(
        [*for_launch, "--quiet", "--module", "ecgbyte_hf.cli", "sft", *inner]
    )
    if unknown:
        raise EcgError(f"unknown: {' '.join(unknown)}; try `ecgbyte sft --help`")
    try:
        with _said_in_one_line():
            launch_command(launch_arguments)
    except SystemExit as ended:  # the inner process has said why
        return int(ended.code or 0)
    except ChildFailedError as ended:  # and so has one of several
        return int(ended.get_first_failure()[1].exitcode or 1)
    return 0


@contextmanager
def _said_in_one_line() -> Iterator[None]:
    """What TRL, PEFT and accelerate refuse as our error, with the option that helps where one is known."""
    try:
        with warnings.catch_warnings():
            # PEFT sets it right by itself, for the Conv1D of GPT-2.
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to", category=UserWarning)
            yield
    except ValueError as error:
        text = " ".join(str(error).split())
        if "target_modules" in text or "Target modules" in text:
            text += " `--lora_target_modules all-linear` takes all linear layers but the output's, in any model."
        raise EcgError(text) from error


def _without(items: list[str], removed: Sequence[str]) -> list[str]:
    """The list without those items, which stand in it in this order."""
    waiting = list(removed)
    return [item for item in items if not (waiting and item == waiting[0] and waiting.pop(0))]


def _check_options(options: _Options) -> None:
    training, ecg = options.training, options.ecg
    if not options.model.model_name_or_path:
        raise EcgError("--model_name_or_path is missing: a folder that `ecgbyte extend-llm` wrote")
    if not options.script.dataset_name and not options.mixture.datasets:
        raise EcgError("--dataset_name is missing: a folder that `ecgbyte encode` wrote")
    for name in ("train_ecg_rows", "merge"):
        if getattr(ecg, name) and not options.model.use_peft:
            raise EcgError(
                f"--{name} has a meaning with --use_peft only: without, all weights are trained; leave it out"
            )
    if ecg.early_stopping_patience is not None:
        if ecg.early_stopping_patience < 1:
            raise EcgError(f"got --early_stopping_patience {ecg.early_stopping_patience}, expected at least 1")
        if training.eval_strategy == "no" or not training.load_best_model_at_end:
            raise EcgError(
                "--early_stopping_patience needs --load_best_model_at_end true, and the same --eval_strategy and "
                "--save_strategy, steps or epoch: else the last model is kept and not the best"
            )


def _check_distribution(options: _Options) -> None:
    """What accelerate would pass over, or fail at in its depths."""
    from accelerate.utils import DistributedType
    from transformers import AutoConfig

    sharded = [
        name for name in ("FSDP", "DEEPSPEED") if os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true"
    ]
    if not sharded:
        return
    model = options.model
    found = options.training.distributed_state.distributed_type
    if found in (DistributedType.NO, DistributedType.MULTI_CPU):
        raise EcgError(
            f"{sharded[0]} shares a model out to GPUs, and there is none here; for CPUs take "
            "scripts/recipes/accelerate/ddp_cpu.yaml"
        )
    if options.ecg.train_ecg_rows and sharded[0] == "FSDP":
        config = AutoConfig.from_pretrained(model.model_name_or_path, revision=model.model_revision)
        if config.get_text_config().tie_word_embeddings:
            # accelerate 1.15 and PEFT 0.21: the trained rows, which both layers hold, would be shared out twice.
            raise EcgError(
                "--train_ecg_rows does not go with FSDP for a model whose input and output embeddings are tied; "
                "leave it out, or take scripts/recipes/accelerate/ddp.yaml"
            )


def _arguments(options: _Options) -> dict[str, Any]:
    """All options by name; the trainer's own leave the Hub's token out."""
    given = [asdict(part) for part in (options.script, options.model, options.mixture, options.ecg)]
    return {name: value for part in [*given, options.training.to_dict()] for name, value in part.items()}


def _check_length(max_length: int | None, prompt: Any) -> None:
    """TRL cuts the end of a longer row, which is its answer."""
    if max_length is not None and max_length < prompt.max_length:
        raise BudgetError(
            f"got --max_length {max_length}, and rows may have the {prompt.max_length} tokens that the model was "
            f"extended for: their answers would be cut off; give --max_length {prompt.max_length}"
        )


def _check_encoder_options(ecg: EcgArguments, has_encoder: bool) -> None:
    if has_encoder and ecg.pack_shared_rows:
        raise EcgError("--pack_shared_rows is for rows of ECG tokens, and this model has an encoder: leave it out")
    if not has_encoder and (ecg.train_encoder or ecg.ecg_data):
        raise EcgError(
            "--train_encoder and --ecg_data are for a model of `ecgbyte extend-llm --encoder`, and this one reads ECG "
            "tokens: leave them out"
        )


def _config_of(model: Any) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(model.model_name_or_path, revision=model.model_revision)


def _ecg_token_ids(model_name_or_path: str, processor: Any, revision: str | None) -> list[int]:
    from transformers import AutoTokenizer

    from ecgbyte_hf.models.processing_ecg_llm import EcgLlmProcessor
    from ecgbyte_hf.training.encoder_sft import block_token_ids
    from ecgbyte_hf.training.extend_llm import ecg_token_strings

    if isinstance(processor, EcgLlmProcessor):
        return block_token_ids(processor.tokenizer)
    tokenizer = AutoTokenizer.from_pretrained(model_name_or_path, revision=revision)
    ids: Any = tokenizer.convert_tokens_to_ids(ecg_token_strings(processor.tokenizer))
    return list(ids)


def _shared_prefix_collator(options: _Options) -> Any:
    from transformers import AutoTokenizer

    from ecgbyte_hf.training.shared_prefix import SharedPrefixCollator

    model = options.model
    tokenizer: Any = AutoTokenizer.from_pretrained(model.model_name_or_path, revision=model.model_revision)
    return SharedPrefixCollator(
        tokenizer.pad_token_id,
        attn_implementation=None,
        pad_to_multiple_of=options.training.pad_to_multiple_of,
        pack=options.ecg.pack_shared_rows,
    )


def _load_rows(options: _Options) -> Any:
    """The rows by split, as `trl sft` loads them.

    Raises:
        EcgDataError: a split that is asked for is not there.
    """
    from datasets import load_dataset
    from trl import get_dataset

    script = options.script
    if options.mixture.datasets:
        rows = get_dataset(options.mixture)
    else:
        rows = load_dataset(script.dataset_name, name=script.dataset_config, streaming=script.dataset_streaming)
    wanted = {"dataset_train_split": script.dataset_train_split}
    if options.training.eval_strategy != "no":
        wanted["dataset_test_split"] = script.dataset_test_split
    for name, split in wanted.items():
        if split not in rows:
            raise EcgDataError(f"there are no rows of --{name} {split}; there are: {', '.join(rows)}")
    return rows


def _checkpoint(training: Any) -> str | None:
    """The folder that training goes on from; `true` is the newest in `output_dir`.

    Raises:
        EcgDataError: there is none, or it was not written to its end.
    """
    from ecgbyte_hf.training.checkpoints import is_complete, newest_checkpoint

    given = training.resume_from_checkpoint
    if str(given).lower() != "true":
        if given is not None and not is_complete(given):
            raise EcgDataError(
                f"{given} is no checkpoint that was written to its end; give an earlier one as "
                "--resume_from_checkpoint, or true for the newest whole one"
            )
        return None if given is None else str(given)
    newest = newest_checkpoint(training.output_dir)
    if newest is None:
        raise EcgDataError(
            f"{training.output_dir} has no checkpoint to go on from; leave --resume_from_checkpoint out"
        )
    return newest
