"""Answers of a language model: greedy, batched, left-padded, resumable."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ecgbyte_hf.data.chat import BudgetReport, EcgPrompter
from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.prompts import ECG_SUBFOLDER, PROMPT_FILE, EcgPrompt
from ecgbyte_hf.data.questions import files_fingerprint, rows_hash
from ecgbyte_hf.evaluation.controls import shuffled_ecg_ids
from ecgbyte_hf.evaluation.scoring import question_options
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.provenance import provenance, write_json, write_text

logger = logging.getLogger(__name__)

_SHARED_KEYS = ("sample_id", "template_id", "question_id", "question_type", "attribute_type", "question", "answer")
_REQUIRED = (*_SHARED_KEYS, "ecg_id", "options", "prediction")


@dataclass(frozen=True)
class Completion:
    """What a model wrote.

    Attributes:
        text: Without special tokens.
        reached_limit: It did not end by itself, so that the text may be half an answer.
    """

    text: str
    reached_limit: bool


@dataclass(frozen=True)
class EcgLanguageModel:
    """A language model with everything it needs to read an ECG.

    Attributes:
        model: The causal language model, adapter included.
        lm_tokenizer: Its tokenizer.
        processor: The `EcgByteProcessor`.
        prompt: Wording and budget it was trained with.
        source: Its folder and the identity of its weights; a broken run goes on with the same model only.
    """

    model: Any
    lm_tokenizer: Any
    processor: Any
    prompt: EcgPrompt
    source: str = ""

    @classmethod
    def load(
        cls, model_name_or_path: str | Path, *, ecg: str | Path | None = None, device: str | None = None
    ) -> EcgLanguageModel:
        """Load a model folder: a whole model, or a PEFT adapter whose base was extended by `ecgbyte extend-llm`.

        Args:
            model_name_or_path: What `trl sft` wrote.
            ecg: The folder with the ECG tokenizer and the prompt; by default `ecg_byte/` in the model's folder, or
                in that of its adapter's base model.
            device: Such as `"cuda"`; the best one there is by default.

        Raises:
            EcgDataError: no model or no ECG tokenizer is found; the message says where it was looked for.
        """
        folder = Path(model_name_or_path)
        base = _adapter_base(folder)
        ecg_folder = _ecg_folder(folder, base, ecg)

        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        import ecgbyte_hf.models.auto  # noqa: F401  (registers the ECG classes)
        from ecgbyte_hf.models.processing_ecg_byte import EcgByteProcessor

        tokenizer = AutoTokenizer.from_pretrained(folder if (folder / "tokenizer.json").exists() else base or folder)
        model: Any = AutoModelForCausalLM.from_pretrained(base or folder, dtype="auto")
        if base is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, folder)
        target = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(
            model.to(target).eval(),
            tokenizer,
            EcgByteProcessor.from_pretrained(ecg_folder),
            EcgPrompt.load(ecg_folder),
            _identity(folder),
        )

    def complete(self, prompts: list[str], *, max_new_tokens: int) -> list[Completion]:
        """Greedy completions of a batch of prompts.

        Args:
            prompts: Texts as `EcgPrompt.render` writes them.
            max_new_tokens: Longest answer.
        """
        import torch

        # Generation goes on at the right end, so padding must be on the left, whatever a tokenizer was saved with.
        batch = self.lm_tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
        batch = batch.to(self.model.device)
        batch.pop("token_type_ids", None)
        with torch.inference_mode():
            output = self.model.generate(
                **batch,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                temperature=None,
                top_p=None,
                top_k=None,
                eos_token_id=self.lm_tokenizer.eos_token_id,
                pad_token_id=self.lm_tokenizer.pad_token_id,
            )
        new = output[:, batch["input_ids"].shape[1] :]
        texts = self.lm_tokenizer.batch_decode(new, skip_special_tokens=True)
        ended = (new == self.lm_tokenizer.eos_token_id).any(dim=1).tolist()
        return [Completion(text.strip(), not has_end) for text, has_end in zip(texts, ended, strict=True)]

    def answer(self, record: Any, question: str, *, max_new_tokens: int = 64) -> str:
        """The answer to one question about one recording.

        A warning is logged where the ECG was cut in time to fit, and where the answer was cut off.

        Args:
            record: An `EcgRecord`, as `read_ecg` returns it.
            question: Plain text.
            max_new_tokens: Longest answer.
        """
        signal = self.processor.feature_extractor.clean(record)
        prompter = EcgPrompter(self.processor.tokenizer, self.lm_tokenizer, self.prompt, lambda _: signal)
        prompt = prompter.prompt_for({"sample_id": 0, "question": question, "ecg_id": [0]})
        if prompt.was_cut:
            seconds = signal.shape[1] / self.processor.tokenizer.sampling_rate
            logger.warning("the model was shown the first %.2f s of %.2f: more do not fit", prompt.seconds, seconds)
        completion = self.complete([prompt.text], max_new_tokens=max_new_tokens)[0]
        if completion.reached_limit:
            logger.warning("the answer was cut off after %d tokens; raise max_new_tokens", max_new_tokens)
        return completion.text


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
    """
    prepared.check_processor(language_model.processor)
    return EcgPrompter(
        language_model.processor.tokenizer,
        language_model.lm_tokenizer,
        language_model.prompt,
        prepared.signal,
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
) -> Path:
    """Answer every question and write one JSON line for each, in the order of `rows`.

    A broken run is resumed: answers already in `output + ".partial"` are kept, if the same model was asked the same.
    What the budget cut and how many answers reached `max_new_tokens` is written beside, to `report_path(output)`.

    Args:
        language_model: The model.
        rows: Question rows.
        prompter: Writes the prompts.
        options: Valid answers by template.
        output: JSON Lines file to write.
        batch_size: Prompts per batch.
        max_new_tokens: Longest answer.

    Returns:
        The path of the file.

    Raises:
        EcgDataError: a row has no valid answers, or the partial file is of another run.
        BudgetError: a question does not fit.
    """
    from tqdm.auto import tqdm

    if batch_size < 1 or max_new_tokens < 1:
        raise EcgDataError(f"got batch_size={batch_size} and max_new_tokens={max_new_tokens}, expected at least 1")
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    # Before hours of work, not after them.
    valid = [question_options(row, options) for row in rows]
    budget = BudgetReport()
    lengths = []
    for row in rows:
        prompt = prompter.prompt_for(row)
        lengths.append(prompt.num_tokens)
        budget.add(prompt, prompt.num_tokens)
    run = _run_identity(language_model, rows, prompter, batch_size, max_new_tokens)
    partial_path = output.with_name(output.name + ".partial")
    done = _read_partial(partial_path, run, rows)
    # Neighbours of equal length waste no padding; the longest batch comes first, so memory runs out early or never.
    order = sorted(range(len(rows)), key=lambda index: -lengths[index])
    with open(partial_path, "a", encoding="utf-8") as file, tqdm(total=len(rows), desc="answers", unit="q") as bar:
        if not file.tell():
            file.write(json.dumps({"run": run}) + "\n")
        for start in range(0, len(order), batch_size):
            # The same batches in a resumed run: in half precision an answer can depend on its neighbours' length.
            batch = order[start : start + batch_size]
            if not all(index in done for index in batch):
                prompts = [prompter.prompt_for(rows[index]).text for index in batch]
                completions = language_model.complete(prompts, max_new_tokens=max_new_tokens)
                for index, completion in zip(batch, completions, strict=True):
                    if index not in done:
                        done[index] = completion
                        file.write(json.dumps({"index": index, **asdict(completion)}) + "\n")
                file.flush()
            bar.update(len(batch))
    at_limit = sum(completion.reached_limit for completion in done.values())
    written = [
        {
            **{key: row.get(key) for key in (*_SHARED_KEYS, "ecg_id", "attribute")},
            **({"record_id": row["record_id"]} if "record_id" in row else {}),
            "options": valid[index],
            "prediction": done[index].text,
            "reached_limit": done[index].reached_limit,
        }
        for index, row in enumerate(rows)
    ]
    if at_limit:
        logger.warning(
            "%d of %d answers were cut off after %d tokens; raise max_new_tokens", at_limit, len(rows), max_new_tokens
        )
    write_predictions(output, written)
    counts = budget.to_dict()
    report = {
        "questions": counts.pop("rows"),
        "answers_at_limit": at_limit,
        **{name.replace("row", "prompt"): value for name, value in counts.items()},
        "provenance": provenance("generate", run),
    }
    write_json(report_path(output), report)
    partial_path.unlink()
    return output


def report_path(output: str | Path) -> Path:
    """Where the counts of an answer file are: `answers.report.json` beside `answers.jsonl`."""
    return Path(output).with_suffix(".report.json")


def write_predictions(path: str | Path, rows: list[dict[str, Any]]) -> Path:
    """Write prediction rows as JSON Lines, complete or not at all."""
    return write_text(path, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))


def read_predictions(path: str | Path) -> list[dict[str, Any]]:
    """Read what `generate_answers` wrote.

    Raises:
        EcgDataError: the file is missing, or a line is not such a row.
    """
    rows = []
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
        rows.append(row)
    return rows


def _run_identity(
    language_model: EcgLanguageModel,
    rows: list[dict[str, Any]],
    prompter: EcgPrompter,
    batch_size: int,
    max_new_tokens: int,
) -> dict[str, Any]:
    """What answers depend on; those of another run must not be mixed with these."""
    substitutes = sorted((prompter.substitutes or {}).items())
    return {
        "model": language_model.source,
        "questions": rows_hash(rows),
        "prompt": asdict(language_model.prompt),
        "view": prompter.view,
        "substitutes": rows_hash([{"pairs": substitutes}]) if substitutes else None,
        "batch_size": batch_size,
        "max_new_tokens": max_new_tokens,
    }


def _read_partial(path: Path, run: dict[str, Any], rows: list[dict[str, Any]]) -> dict[int, Completion]:
    """Answers of a broken run by the number of their row."""
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
            done[item["index"]] = Completion(item["text"], item["reached_limit"])
    except (ValueError, KeyError, TypeError) as error:
        raise EcgDataError(f"{path} holds something else than answers; delete it or choose another output") from error
    differing = sorted(name for name in {*run, *theirs} if run.get(name) != theirs.get(name))
    if differing or not all(0 <= index < len(rows) for index in done):
        raise EcgDataError(
            f"{path} holds answers of another run, which differs in {', '.join(differing) or 'its rows'}; delete it "
            "or choose another output"
        )
    logger.info("resuming from %s with %d answers", path, len(done))
    return done


def _identity(folder: Path) -> str:
    """A folder and a hash of its weight files' names, sizes and times."""
    weights = [path for path in folder.resolve().glob("*.safetensors") if path.is_file()]
    return f"{folder} {files_fingerprint(weights)}"


def _adapter_base(folder: Path) -> Path | None:
    """The base model of an adapter; `None` for a whole model."""
    if not folder.is_dir():
        raise EcgDataError(f"{folder} is not a folder with a language model")
    config = folder / "adapter_config.json"
    if not config.is_file():
        return None
    try:
        return Path(json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"])
    except (ValueError, KeyError, TypeError) as error:
        raise EcgDataError(f"{config}: expected JSON with base_model_name_or_path") from error


def _ecg_folder(folder: Path, base: Path | None, ecg: str | Path | None) -> Path:
    candidates = [Path(ecg)] if ecg else [folder / ECG_SUBFOLDER, *([base / ECG_SUBFOLDER] if base else [])]
    for candidate in candidates:
        if (candidate / PROMPT_FILE).is_file():
            return candidate
    looked = ", ".join(map(str, candidates))
    raise EcgDataError(
        f"no ECG tokenizer for {folder}: looked for {PROMPT_FILE} in {looked}; copy `{ECG_SUBFOLDER}/` from the "
        "extended base model or name it with --ecg"
    )
