"""Answers to the questions of a split: batched, the ECG of several questions read once, resumable."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ecgbyte_hf.data.chat import BudgetReport, EcgPrompter
from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.questions import rows_hash
from ecgbyte_hf.evaluation.controls import shuffled_ecg_ids
from ecgbyte_hf.evaluation.language_model import Completion as Completion
from ecgbyte_hf.evaluation.language_model import EcgLanguageModel as EcgLanguageModel
from ecgbyte_hf.evaluation.predictions import prediction_row, read_partial
from ecgbyte_hf.evaluation.predictions import read_predictions as read_predictions
from ecgbyte_hf.evaluation.predictions import report_path as report_path
from ecgbyte_hf.evaluation.predictions import write_predictions as write_predictions
from ecgbyte_hf.evaluation.scoring import valid_answers
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.provenance import provenance, write_json

logger = logging.getLogger(__name__)

#: When the ECG of several questions is computed once.
SHARED_PREFIX = ("auto", "on", "off")
#: Whose options are scored.
SCORE_OPTIONS = ("none", "verify", "all")


@dataclass(frozen=True)
class Decoding:
    """How answers are made.

    Attributes:
        batch_size: Questions at a time; with shared prefixes those about one ECG stay together where they can.
        max_new_tokens: Longest answer.
        shared_prefix: One of `SHARED_PREFIX`; `"auto"` where the model can and an ECG has more than one question.
        score_options: One of `SCORE_OPTIONS`: whose options get their log-probability written.
        options_only: Write nothing freely; the answer is the single likeliest option.

    Raises:
        EcgDataError: a size below 1 or an unknown word.
    """

    batch_size: int = 16
    max_new_tokens: int = 64
    shared_prefix: str = "auto"
    score_options: str = "none"
    options_only: bool = False

    def __post_init__(self) -> None:
        """Check what a user gave."""
        if self.batch_size < 1 or self.max_new_tokens < 1:
            raise EcgDataError(
                f"got batch_size={self.batch_size} and max_new_tokens={self.max_new_tokens}, expected at least 1"
            )
        for name, known in (("shared_prefix", SHARED_PREFIX), ("score_options", SCORE_OPTIONS)):
            if getattr(self, name) not in known:
                raise EcgDataError(f"got {name}={getattr(self, name)!r}; known: {', '.join(known)}")

    def scores(self, row: dict[str, Any]) -> bool:
        """Whether the options of a question are scored."""
        is_verify = str(row["question_type"]).endswith("verify")
        return self.options_only or self.score_options == "all" or (self.score_options == "verify" and is_verify)


def make_prompter(
    language_model: EcgLanguageModel,
    prepared: PreparedData,
    rows: list[dict[str, Any]],
    *,
    view: str = "true",
    seed: int = 0,
) -> EcgPrompter:
    """The prompter that shows a model the ECGs of `rows`, or what a control shows instead.

    Args:
        language_model: The model that will be asked.
        prepared: Where the signals are; it must have been prepared as the model's processor cleans.
        rows: The questions that will be asked; `"shuffled"` exchanges the ECGs among them.
        view: One of `ecgbyte_hf.data.chat.ECG_VIEWS`.
        seed: Of the exchange.

    Raises:
        EcgDataError: the folder was cleaned otherwise or has other windows than the model was trained on, or it does
            not tell what the model's prompts say of a patient.
    """
    prepared.check_processor(language_model.processor)
    return language_model.prompter_class.for_prepared(
        language_model.ecg_tokenizer,
        language_model.lm_tokenizer,
        language_model.prompt,
        prepared,
        view=view,
        substitutes=shuffled_ecg_ids(rows, seed) if view == "shuffled" else None,
    )


def generate_answers(
    language_model: EcgLanguageModel,
    rows: list[dict[str, Any]],
    prompter: EcgPrompter,
    options: dict[int, list[str]],
    output: str | Path,
    *,
    batch_size: int = 16,
    max_new_tokens: int = 64,
    shared_prefix: str = "auto",
    score_options: str = "none",
    options_only: bool = False,
) -> Path:
    """Answer every question and write one JSON line for each, in the order of `rows`.

    A broken run is resumed: answers already in `output + ".partial"` are kept, if the same model was asked the same.
    What the budget cut, how many answers reached `max_new_tokens` and how they were made is written beside, to
    `report_path(output)`; which model answered too, unless its files were changed since it was loaded.

    Args:
        language_model: The model.
        rows: Question rows.
        prompter: Writes the prompts.
        options: Valid answers by template.
        output: JSON Lines file to write.
        batch_size: Prompts per batch.
        max_new_tokens: Longest answer.
        shared_prefix: `"auto"`, `"on"` or `"off"`; see `Decoding`.
        score_options: `"none"`, `"verify"` or `"all"`; see `Decoding`.
        options_only: The answer is the likeliest option; see `Decoding`.

    Returns:
        The path of the file.

    Raises:
        EcgDataError: a row has no valid answers, the partial file is of another run, or the model cannot do what is
            asked for.
        BudgetError: a question does not fit.
    """
    decoding = Decoding(batch_size, max_new_tokens, shared_prefix, score_options, options_only)
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    # Before hours of work, not after them.
    valid = [valid_answers(row, options) for row in rows]
    scored = [names if decoding.scores(row) else None for row, names in zip(rows, valid, strict=True)]
    if options_only and not all(scored):
        raise EcgDataError(f"sample {rows[scored.index([])]['sample_id']} has no options to choose from")
    # User and assistant take turns.
    continued = sum(len(row.get("messages") or ()) > 2 for row in rows)
    if continued:
        logger.warning("%d of %d conversations go on: only their first question is asked", continued, len(rows))
    plan = _plan(language_model, rows, prompter, decoding)
    run = _run_identity(language_model, rows, prompter, decoding, plan.is_shared)
    done = _answer_batches(language_model, rows, prompter, scored, decoding, plan, run, output)
    at_limit = sum(completion.reached_limit for completion in done.values())
    if at_limit:
        logger.warning(
            "%d of %d answers were cut off after %d tokens; raise max_new_tokens", at_limit, len(rows), max_new_tokens
        )
    predictions = [prediction_row(row, valid[index], done[index]) for index, row in enumerate(rows)]
    write_predictions(output, predictions)
    counts = plan.budget.to_dict()
    report = {
        "questions": counts.pop("rows"),
        "answers_at_limit": at_limit,
        "conversations_that_go_on": continued,
        **{name.replace("row", "prompt"): value for name, value in counts.items()},
        "decoding": {
            "answers": "the likeliest option" if options_only else "greedy",
            "backend": language_model.backend,
            "shared_prefix": plan.is_shared,
            "questions_with_scored_options": sum(1 for names in scored if names),
        },
        "predictions_hash": rows_hash(predictions),
        "provenance": provenance("generate", run, fingerprints=language_model.fingerprints()),
    }
    write_json(report_path(output), report)
    _partial_path(output).unlink()
    return output


@dataclass(frozen=True)
class _Plan:
    """Rows by batch, whether prefixes are shared, and what the budget did."""

    batches: list[list[int]]
    is_shared: bool
    budget: BudgetReport


def _plan(
    language_model: EcgLanguageModel, rows: Sequence[dict[str, Any]], prompter: EcgPrompter, decoding: Decoding
) -> _Plan:
    """Write every prompt once to learn its length and its ECG; the texts of a corpus would not fit in memory."""
    budget = BudgetReport()
    lengths: list[int] = []
    heads: dict[object, list[int]] = {}
    for index, row in enumerate(rows):
        prompt = prompter.prompt_for(row)
        lengths.append(prompt.num_tokens)
        budget.add(prompt, prompt.num_tokens)
        head = language_model.shared_head(prompt)
        heads.setdefault(hashlib.blake2b(head.encode(), digest_size=16).digest() if head else index, []).append(index)
    is_shared = _shares(language_model, decoding.shared_prefix, any(len(group) > 1 for group in heads.values()))
    # Neighbours of equal length waste no padding; the longest batch comes first, so memory runs out early or never.
    if is_shared:
        groups = [sorted(group, key=lambda index: -lengths[index]) for group in heads.values()]
        groups.sort(key=lambda group: -lengths[group[0]])
    else:
        groups = [[index] for index in sorted(range(len(rows)), key=lambda index: -lengths[index])]
    return _Plan(_batches(groups, decoding.batch_size), is_shared, budget)


def _shares(language_model: EcgLanguageModel, choice: str, has_repeated: bool) -> bool:
    """Whether prefixes are shared: as chosen, where the model can and it pays."""
    if choice == "off" or (choice == "auto" and not has_repeated):
        return False
    obstacle = language_model.shared_prefix_obstacle()
    if obstacle is None:
        return True
    if choice == "on":
        raise EcgDataError(f"the prefix cannot be shared: {obstacle}; leave --shared-prefix at auto or off")
    logger.warning("each question is asked with its own copy of the ECG: %s", obstacle)
    return False


def _batches(groups: list[list[int]], batch_size: int) -> list[list[int]]:
    """Groups in their order, whole where they fit, in batches of at most so many rows."""
    batches: list[list[int]] = []
    for group in groups:
        for start in range(0, len(group), batch_size):
            part = group[start : start + batch_size]
            if batches and len(batches[-1]) + len(part) <= batch_size:
                batches[-1] += part
            else:
                batches.append(part)
    return batches


def _answer_batches(
    language_model: EcgLanguageModel,
    rows: Sequence[dict[str, Any]],
    prompter: EcgPrompter,
    scored: Sequence[list[str] | None],
    decoding: Decoding,
    plan: _Plan,
    run: dict[str, Any],
    output: Path,
) -> dict[int, Completion]:
    """Completions of all rows by their number; each batch is kept in the partial file when it is there."""
    from tqdm.auto import tqdm

    partial = _partial_path(output)
    done = read_partial(partial, run, len(rows))
    with open(partial, "a", encoding="utf-8") as file, tqdm(total=len(rows), desc="answers", unit="q") as bar:
        if not file.tell():
            file.write(json.dumps({"run": run}) + "\n")
        for batch in plan.batches:
            # The same batches in a resumed run: in half precision an answer can depend on its neighbours' length.
            if not all(index in done for index in batch):
                completions = language_model.complete(
                    [prompter.prompt_for(rows[index]) for index in batch],
                    max_new_tokens=decoding.max_new_tokens,
                    shared_prefix=plan.is_shared,
                    options=[scored[index] for index in batch],
                    options_only=decoding.options_only,
                )
                for index, completion in zip(batch, completions, strict=True):
                    if index not in done:
                        done[index] = completion
                        file.write(json.dumps({"index": index, **asdict(completion)}) + "\n")
                file.flush()
            bar.update(len(batch))
    return done


def _partial_path(output: Path) -> Path:
    return output.with_name(output.name + ".partial")


def _run_identity(
    language_model: EcgLanguageModel,
    rows: list[dict[str, Any]],
    prompter: EcgPrompter,
    decoding: Decoding,
    is_shared: bool,
) -> dict[str, Any]:
    """What answers depend on; those of another run must not be mixed with these."""
    substitutes = sorted((prompter.substitutes or {}).items())
    return {
        "model": language_model.source,
        "backend": language_model.backend,
        "questions": rows_hash(rows),
        "prompt": asdict(language_model.prompt),
        "ecg_tokenizer": prompter.ecg_tokenizer.fingerprint,
        "data": prompter.data,
        "view": prompter.view,
        "substitutes": rows_hash([{"pairs": substitutes}]) if substitutes else None,
        "perturbations": list(prompter.changes),
        **asdict(decoding),
        "shared_prefix": is_shared,
    }
