"""Answers of a language model: greedy, batched, left-padded, resumable."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecgbyte_hf.data.chat import EcgPrompter
from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.prompts import ECG_SUBFOLDER, PROMPT_FILE, EcgPrompt
from ecgbyte_hf.evaluation.controls import shuffled_ecg_ids
from ecgbyte_hf.evaluation.scoring import question_options
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

logger = logging.getLogger(__name__)

_SHARED_KEYS = ("sample_id", "template_id", "question_id", "question_type", "attribute_type", "question", "answer")


@dataclass(frozen=True)
class EcgLanguageModel:
    """A language model with everything it needs to read an ECG.

    Attributes:
        model: The causal language model, adapter included.
        lm_tokenizer: Its tokenizer, padding on the left.
        processor: The `EcgByteProcessor`.
        prompt: Wording and budget it was trained with.
    """

    model: Any
    lm_tokenizer: Any
    processor: Any
    prompt: EcgPrompt

    @classmethod
    def load(cls, model_name_or_path: str | Path, *, ecg: str | Path | None = None, device: str | None = None) -> Any:
        """Load a model folder: a whole model, or a PEFT adapter whose base was extended by `ecgbyte extend-llm`.

        Args:
            model_name_or_path: What `trl sft` wrote.
            ecg: The folder with the ECG tokenizer and the prompt; by default `ecg_byte/` in the model's folder, or
                in that of its adapter's base model.
            device: Such as `"cuda"`; the best one there is by default.

        Raises:
            EcgDataError: no ECG tokenizer is found; the message says where it was looked for.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        import ecgbyte_hf.models.auto  # noqa: F401  (registers the ECG classes)
        from ecgbyte_hf.models.processing_ecg_byte import EcgByteProcessor

        folder = Path(model_name_or_path)
        base = _adapter_base(folder)
        ecg_folder = _ecg_folder(folder, base, ecg)
        tokenizer = AutoTokenizer.from_pretrained(folder if (folder / "tokenizer.json").exists() else base or folder)
        tokenizer.padding_side = "left"
        if base is None:
            model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        else:
            from peft import PeftModel

            model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype="auto"), folder)
        target = device or ("cuda" if torch.cuda.is_available() else "cpu")
        model = model.to(target).eval()
        return cls(model, tokenizer, EcgByteProcessor.from_pretrained(ecg_folder), EcgPrompt.load(ecg_folder))

    def complete(self, prompts: list[str], *, max_new_tokens: int) -> list[str]:
        """Greedy completions of a batch of prompts, without special tokens.

        Args:
            prompts: Texts as `EcgPrompt.render` writes them.
            max_new_tokens: Longest answer.
        """
        import torch

        batch = self.lm_tokenizer(prompts, return_tensors="pt", padding=True).to(self.model.device)
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
        return [text.strip() for text in self.lm_tokenizer.batch_decode(new, skip_special_tokens=True)]

    def answer(self, record: Any, question: str, *, max_new_tokens: int = 64) -> str:
        """The answer to one question about one recording.

        Args:
            record: An `EcgRecord`, as `read_ecg` returns it.
            question: Plain text.
            max_new_tokens: Longest answer.
        """
        budget = self.prompt.ecg_budget(self.lm_tokenizer, question)
        text = self.prompt.render(self.processor.ecg_text(record, max_tokens=budget), question)
        return self.complete([text], max_new_tokens=max_new_tokens)[0]


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

    A broken run is resumed: answers already in `output + ".partial"` are kept, if they belong to the same rows.

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
    """
    from tqdm.auto import tqdm

    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial_path = output.with_name(output.name + ".partial")
    done = dict(_read_partial(partial_path, rows))
    waiting = [index for index in range(len(rows)) if index not in done]
    prompts = {index: prompter.prompt_text(rows[index]) for index in waiting}
    # Neighbours of equal length waste no padding; the longest batch comes first, so memory runs out early or never.
    waiting.sort(key=lambda index: -len(prompts[index]))
    with open(partial_path, "a", encoding="utf-8") as file, tqdm(total=len(rows), desc="answers", unit="q") as bar:
        bar.update(len(done))
        for start in range(0, len(waiting), batch_size):
            batch = waiting[start : start + batch_size]
            answers = language_model.complete([prompts[index] for index in batch], max_new_tokens=max_new_tokens)
            for index, answer in zip(batch, answers, strict=True):
                done[index] = answer
                line = {"index": index, "sample_id": rows[index]["sample_id"], "prediction": answer}
                file.write(json.dumps(line) + "\n")
            file.flush()
            bar.update(len(batch))
    written = [
        {
            **{key: row.get(key) for key in (*_SHARED_KEYS, "ecg_id", "attribute")},
            "options": question_options(row, options),
            "prediction": done[index],
        }
        for index, row in enumerate(rows)
    ]
    write_predictions(output, written)
    partial_path.unlink()
    return output


def write_predictions(path: str | Path, rows: list[dict[str, Any]]) -> Path:
    """Write prediction rows as JSON Lines, complete or not at all."""
    from ecgbyte_hf.provenance import write_text

    return write_text(path, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))


def read_predictions(path: str | Path) -> list[dict[str, Any]]:
    """Read what `generate_answers` wrote.

    Raises:
        EcgDataError: a line is not JSON.
    """
    rows = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise EcgDataError(f"{path}, line {number}: not JSON ({error})") from error
    return rows


def _read_partial(path: Path, rows: list[dict[str, Any]]) -> Iterator[tuple[int, str]]:
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for line in lines:
        if not line.endswith("\n"):  # the line that was being written when the run broke
            path.write_text("".join(lines[:-1]), encoding="utf-8")
            break
        item = json.loads(line)
        if item["index"] >= len(rows) or rows[item["index"]]["sample_id"] != item["sample_id"]:
            raise EcgDataError(f"{path} holds answers to other questions; delete it or choose another output")
        yield item["index"], item["prediction"]
    logger.info("resuming from %s", path)


def _adapter_base(folder: Path) -> Path | None:
    config = folder / "adapter_config.json"
    if not config.is_file():
        return None
    return Path(json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"])


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
