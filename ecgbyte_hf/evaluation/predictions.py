"""The files of generation: answers as JSON Lines, their report, and the partial file of a run that is not finished."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

from ecgbyte_hf.data.questions import rows_hash
from ecgbyte_hf.evaluation.language_model import Completion
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.provenance import read_object, write_text

logger = logging.getLogger(__name__)

#: What a row of answers takes from its question.
SHARED_KEYS = ("sample_id", "template_id", "question_id", "question_type", "attribute_type", "question", "answer")
_REQUIRED = (*SHARED_KEYS, "ecg_id", "options", "prediction")


def report_path(output: str | Path) -> Path:
    """Where the counts of an answer file are: `answers.report.json` beside `answers.jsonl`."""
    return Path(output).with_suffix(".report.json")


def prediction_row(row: dict[str, Any], options: list[str], completion: Completion) -> dict[str, Any]:
    """A question with its answer; `option_logprobs` only where options were scored."""
    return {
        **{key: row.get(key) for key in (*SHARED_KEYS, "ecg_id", "attribute")},
        **({"record_id": row["record_id"]} if "record_id" in row else {}),
        "options": options,
        "prediction": completion.text,
        "reached_limit": completion.reached_limit,
        **({} if completion.option_logprobs is None else {"option_logprobs": completion.option_logprobs}),
    }


def write_predictions(path: str | Path, rows: list[dict[str, Any]]) -> Path:
    """Write prediction rows as JSON Lines, complete or not at all."""
    return write_text(path, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))


def read_predictions(path: str | Path) -> list[dict[str, Any]]:
    """Read what `generate_answers` wrote.

    Raises:
        EcgDataError: the file is missing, or a line is not such a row.
    """
    rows = []
    # Templates repeat questions and long lists of options: one of each is kept.
    repeated: dict[str, Any] = {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise EcgDataError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise EcgDataError(f"{path} is not UTF-8 text: {error}") from error
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise EcgDataError(f"{path}, line {number}: not JSON ({error})") from error
        missing = [key for key in _REQUIRED if not isinstance(row, dict) or key not in row]
        if missing:
            raise EcgDataError(f"{path}, line {number}: not of `ecgbyte generate`, it lacks {', '.join(missing)}")
        for key in ("options", "question", "answer"):
            row[key] = repeated.setdefault(json.dumps(row[key]), row[key])
        rows.append({sys.intern(key): value for key, value in row.items()})
    return rows


def asked_model(path: str | Path, rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Which model gave answers and what it was shown, as the report beside them says.

    Args:
        path: The file of the answers.
        rows: What it holds.

    Returns:
        `fingerprints` (see `ecgbyte_hf.data.fingerprints`), `view` and `perturbations`; `None`, with a warning where
        there is a report of other answers, if no report of `ecgbyte generate` says it.
    """
    report = read_object(report_path(path)) or {}
    block = report.get("provenance", {})
    if block.get("command") != "generate" or not block.get("fingerprints"):
        return None
    if report.get("predictions_hash") != rows_hash(rows):
        logger.warning(
            "%s is the report of other answers than those in %s, so that it is not known which model gave them",
            report_path(path),
            path,
        )
        return None
    asked = {name: block["arguments"].get(name) for name in ("view", "perturbations")}
    return {"fingerprints": block["fingerprints"], **asked}


def read_partial(path: Path, run: dict[str, Any], num_rows: int) -> dict[int, Completion]:
    """Answers of a broken run by the number of their row.

    Args:
        path: The partial file; it need not be there.
        run: What the answers depend on.
        num_rows: Rows that are asked.

    Raises:
        EcgDataError: the file is of another run, or no such file.
    """
    if not path.exists():
        return {}
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:  # the line that was being written when the run broke
        write_text(path, whole)
    done: dict[int, Completion] = {}
    try:
        items = [json.loads(line) for line in whole.splitlines()]
        theirs = items[0]["run"] if items else run
        for item in items[1:]:
            done[item["index"]] = Completion(item["text"], item["reached_limit"], item.get("option_logprobs"))
    except (ValueError, KeyError, TypeError) as error:
        raise EcgDataError(f"{path} holds something else than answers; delete it or choose another output") from error
    differing = sorted(name for name in {*run, *theirs} if run.get(name) != theirs.get(name))
    if differing or not all(0 <= index < num_rows for index in done):
        raise EcgDataError(
            f"{path} holds answers of another run, which differs in {', '.join(differing) or 'its rows'}; delete it "
            "or choose another output"
        )
    logger.info("resuming from %s with %d answers", path, len(done))
    return done
