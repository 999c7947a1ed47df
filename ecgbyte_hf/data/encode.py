"""Write a prepared folder as rows that trainers read: prompts and answers for a language model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecgbyte_hf.data.chat import BudgetReport, EcgPrompter, group_by_ecg
from ecgbyte_hf.data.ecg_chat import conversation_questions
from ecgbyte_hf.data.encode_ids import refuse_ids
from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.questions import rows_hash
from ecgbyte_hf.data.row_signals import signals_of
from ecgbyte_hf.data.shared_rows import MAX_ROW_TOKENS, SHARED_SCHEMA, shared_rows
from ecgbyte_hf.evaluation.scoring import question_options
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.provenance import provenance, write_json

TEXT_SCHEMA = pa.schema(
    [
        ("prompt", pa.string()),
        ("completion", pa.string()),
        ("sample_id", pa.int64()),
        ("ecg_id", pa.list_(pa.int64())),
        ("answer", pa.list_(pa.string())),
        ("options", pa.list_(pa.string())),
    ]
)
TOKEN_SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
MESSAGES_SCHEMA = pa.schema([("prompt", _MESSAGES), ("completion", _MESSAGES), *list(TEXT_SCHEMA)[2:]])
CONVERSATION_SCHEMA = pa.schema([("messages", _MESSAGES), ("sample_id", pa.int64()), ("ecg_id", pa.list_(pa.int64()))])
#: What a row is written as.
ROW_FORMATS = ("text", "grouped", "messages", "shared", "ecg")
_CHUNK = 1024


def encode_rows(
    prepared: PreparedData,
    output_dir: str | Path,
    prompter: EcgPrompter,
    *,
    splits: list[str],
    row_format: str | None = None,
    questions_per_row: int | None = None,
    max_row_tokens: int = MAX_ROW_TOKENS,
    turns: str = "first",
    question_types: list[str] | None = None,
    augmentation: Callable[[int, np.ndarray], np.ndarray] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Write training rows, one Parquet file for each split: a folder that `datasets.load_dataset` opens by itself.

    Args:
        prepared: The prepared folder.
        output_dir: Folder to write.
        prompter: Writes the rows.
        splits: Splits to write.
        row_format: `"text"` writes `prompt`/`completion`, with the right `answer` and the question's valid `options`
            for a reward (`ecgbyte_hf.training.rewards`). `"grouped"` writes `input_ids`/`labels`, several questions
            about the same ECG behind one another, each of which sees those before it, as many as fit without cutting
            the ECG further. `"messages"` writes the columns of text rows with lists of messages, for trainers that
            apply the model's chat template. `"shared"` writes rows for `ecgbyte sft` in which no question sees another
            (`ecgbyte_hf.data.shared_rows`). `"ecg"` writes `input_ids`/`labels` of each ECG once and of no question,
            for next-token training before the questions. Default: text, and grouped for more than one question per
            row.
        questions_per_row: Most questions in a row: 1 of text and messages, at least 2 of grouped; of shared by default
            all that fit.
        max_row_tokens: Most tokens of a shared row. Grouped rows keep the prompt's `max_length`.
        turns: What is taken of conversations: see `ecg_chat.conversation_questions`. `"all"` writes tokenised rows
            with loss on every answer, or the column `messages` for TRL with `assistant_only_loss`.
        question_types: Only these; all by default.
        augmentation: Changes the signals of the split `train`, such as an `Augmentation` of
            `ecgbyte_hf.training.augmentation`.
        seed: Of the order and grouping.

    Returns:
        Counts by split, the budget's cuts among them.

    Raises:
        EcgDataError: a split is empty, the folder holds rows of something else, or formats that do not go together.
        BudgetError: a row does not fit.
    """
    from tqdm.auto import tqdm

    row_format = _row_format(row_format, questions_per_row, turns)
    if prompter.needs_signals:
        _check_for_encoder(row_format, augmentation)
    output_dir = Path(output_dir)
    refuse_ids(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    template_options = prepared.template_options()
    counts: dict[str, Any] = {}
    hashes: dict[str, str] = {}
    written: dict[str, Path] = {}
    for split in dict.fromkeys(splits):
        rows = prepared.questions(split)
        if question_types is not None:
            rows = [row for row in rows if row["question_type"] in question_types]
        if not rows:
            raise EcgDataError(f"no questions to encode in split {split!r} of {prepared.folder}")
        hashes[split] = rows_hash(rows)
        prompter.report = BudgetReport()
        prompter.augment(augmentation if split == "train" else None)
        asked = [one for row in rows for one in conversation_questions(row, turns)]
        made: Iterator[dict[str, Any]]
        rng = np.random.default_rng(seed)
        if row_format == "shared":
            made = shared_rows(
                prompter, asked, rng, questions_per_row=questions_per_row, max_row_tokens=max_row_tokens
            )
            schema = SHARED_SCHEMA
        elif row_format == "grouped":
            groups = group_by_ecg(asked, questions_per_row or 1, rng)
            made = (row for group in groups for row in prompter.grouped_rows(group))
            schema = TOKEN_SCHEMA
        elif row_format == "ecg":
            ecg_ids = sorted({ecg_id for row in rows for ecg_id in row["ecg_id"]})
            made, asked, schema = (prompter.ecg_row(ecg_id) for ecg_id in ecg_ids), [], TOKEN_SCHEMA
        else:
            make, schema = _single_row(prompter, row_format, turns)
            made = (
                {**make(row), "answer": row["answer"], "options": _options(row, template_options)}
                if "answer" in schema.names
                else make(row)
                for row in asked
            )
        if prompter.needs_signals and "ecg_id" not in schema.names:
            schema = schema.append(pa.field("ecg_id", pa.list_(pa.int64())))
        written[split] = output_dir / f".{split}.parquet.partial"
        total = len(asked) if row_format in ("text", "messages") else None
        _write_rows(tqdm(made, total=total, desc=f"rows {split}", unit="row"), written[split], schema)
        counts[split] = {"questions": len(asked), **prompter.report.to_dict()}
    _replace_rows(output_dir, written)
    report = {
        "splits": counts,
        "view": prompter.view,
        **({"signals": signals_of(prepared)} if prompter.needs_signals else {}),
        "provenance": provenance(
            "encode",
            {
                "data": str(prepared.folder),
                "window_seconds": prepared.window_seconds,
                "window_stride": prepared.window_stride,
                "splits": splits,
                "row_format": row_format,
                "questions_per_row": questions_per_row,
                **({"max_row_tokens": max_row_tokens} if row_format == "shared" else {}),
                "turns": turns,
                "question_types": question_types,
                "augmentation": None if augmentation is None else str(augmentation),
                "prompt": asdict(prompter.prompt),
                "language_model_tokenizer": str(prompter.lm_tokenizer.name_or_path),
                "seed": seed,
            },
            data_hash=hashes,
            data_source=prepared.report.get("source"),
            ecg=prompter.ecg_tokenizer.fingerprint,
        ),
    }
    write_json(output_dir / "encode.json", report)
    return report


def _row_format(row_format: str | None, questions_per_row: int | None, turns: str) -> str:
    """What is meant where no format is named; grouped rows have several questions and others one."""
    chosen = row_format or ("text" if questions_per_row in (None, 1) else "grouped")
    if chosen not in ROW_FORMATS:
        raise EcgDataError(f"unknown row format {chosen!r}; known: {', '.join(ROW_FORMATS)}")
    if chosen == "ecg" and (questions_per_row is not None or turns != "first"):
        raise EcgDataError("rows of ECGs alone hold no question; leave out the questions per row and the turns")
    if chosen in ("text", "messages") and questions_per_row not in (None, 1):
        raise EcgDataError(
            f"got {questions_per_row} questions per row of {chosen}, expected 1; choose grouped or shared"
        )
    if chosen == "grouped" and (questions_per_row is None or questions_per_row < 2):
        raise EcgDataError(f"got {questions_per_row} questions per grouped row, expected at least 2: say how many")
    if turns == "all" and chosen in ("grouped", "shared"):
        raise EcgDataError("a row with all turns of a conversation takes no further questions; leave out the grouping")
    return chosen


def _check_for_encoder(row_format: str, augmentation: Any) -> None:
    """Refuse what only rows of ECG tokens can be."""
    if row_format in ("shared", "ecg"):
        raise EcgDataError(
            f"got rows of the format {row_format} for a model with an encoder, which reads an ECG as few tokens of "
            "its own; choose text, grouped or messages"
        )
    if augmentation is not None:
        raise EcgDataError(
            "got an augmentation for a model with an encoder, whose rows name signals and do not hold them; leave it "
            "out"
        )


def _single_row(
    prompter: EcgPrompter, row_format: str, turns: str
) -> tuple[Callable[[dict[str, Any]], dict[str, Any]], pa.Schema]:
    """What makes one row of one question, or of one conversation, and the row's columns."""
    if turns == "all":
        if row_format == "messages":
            return prompter.conversation_messages_row, CONVERSATION_SCHEMA
        return prompter.conversation_row, TOKEN_SCHEMA
    if row_format == "messages":
        return prompter.messages_row, MESSAGES_SCHEMA
    return prompter.training_row, TEXT_SCHEMA


def _options(row: dict[str, Any], template_options: dict[int, list[str]]) -> list[str]:
    """The valid answers of a question, as far as they are known.

    Empty for free text, such as a report, which no template lists, and for a paraphrase that does not name what is to
    be chosen from: it can be trained on, but not scored.
    """
    try:
        return question_options(row, template_options)
    except EcgDataError:
        return []


def _write_rows(rows: Iterable[dict[str, Any]], path: Path, schema: pa.Schema) -> None:
    batch: list[dict[str, Any]] = []
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for row in rows:
            batch.append(row)
            if len(batch) == _CHUNK:
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                batch.clear()
        if batch:
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def _replace_rows(output_dir: Path, written: dict[str, Path]) -> None:
    """Put all files in place together: a trainer takes every Parquet file of a folder, so all must be of one run."""
    report = output_dir / "encode.json"
    if report.is_file():
        report.unlink()
        for stale in output_dir.glob("*.parquet"):
            stale.unlink()
    elif strange := sorted(path.name for path in output_dir.glob("*.parquet") if path.stem not in written):
        raise EcgDataError(
            f"{output_dir} holds {', '.join(strange)}, which `ecgbyte encode` did not write; a trainer would read it "
            "as rows too. Choose another folder"
        )
    for split, path in written.items():
        path.replace(output_dir / f"{split}.parquet")
