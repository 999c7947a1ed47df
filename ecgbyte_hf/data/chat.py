"""From a question and its ECGs to a training row or a prompt.

The ECG is cut in time so that the text always fits; an answer is never cut. Every ECG is encoded once per budget,
however many questions refer to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgbyte_hf.data.chat_template import added_bos
from ecgbyte_hf.data.prompts import EcgPrompt
from ecgbyte_hf.models.errors_ecg_byte import BudgetError, EcgDataError, VocabularyError
from ecgbyte_hf.models.processing_ecg_byte import encode_within_budget

if TYPE_CHECKING:
    from ecgbyte_hf.data.prepared import PreparedData

# What the model is shown in place of the ECG it is asked about.
ECG_VIEWS = ("true", "question_only", "zero_signal", "shuffled")
# Encoded ECGs that are kept, the oldest leaves first: 4 KB each at 1,000 tokens.
_KEPT_BLOCKS = 50_000
# Texts of questions that are kept in ids, the oldest leaves first.
_KEPT_TEXTS = 50_000


@dataclass(frozen=True)
class RenderedPrompt:
    """A prompt and what became of its ECGs.

    Attributes:
        text: The prompt.
        num_tokens: Its tokens, beginning of sequence included.
        seconds: Of ECG that it shows, the shorter of two; `None` without an ECG.
        was_cut: Whether that is less than there is.
        signals: Reads what it shows, for a model with an encoder; `None` where the text says it all.
    """

    text: str
    num_tokens: int
    seconds: float | None = None
    was_cut: bool = False
    signals: Callable[[], list[np.ndarray]] | None = None


@dataclass
class BudgetReport:
    """What the budget did to the rows that were made."""

    rows: int = 0
    rows_cut: int = 0
    seconds_kept: list[float] = field(default_factory=list)
    longest_row: int = 0

    def add(self, prompt: RenderedPrompt | DividedRow, num_tokens: int) -> None:
        """Count a row of so many tokens that shows the ECGs of this prompt."""
        self.rows += 1
        self.rows_cut += prompt.was_cut
        if prompt.seconds is not None:
            self.seconds_kept.append(prompt.seconds)
        self.longest_row = max(self.longest_row, num_tokens)

    def to_dict(self) -> dict[str, Any]:
        """Counts, and the least and median seconds of ECG in a row (`None` where rows hold no ECG)."""
        kept = self.seconds_kept
        return {
            "rows": self.rows,
            "rows_with_ecg_cut": self.rows_cut,
            "least_seconds_of_ecg": min(kept) if kept else None,
            "median_seconds_of_ecg": float(np.median(kept)) if kept else None,
            "longest_row_tokens": self.longest_row,
        }


@dataclass(frozen=True)
class DividedRow:
    """The ids of a training row in three parts.

    Attributes:
        shared: Beginning of sequence, and all up to the end of the last ECG.
        question: The rest of the prompt.
        answer: The answer, and the end of sequence.
        seconds: As in `RenderedPrompt`.
        was_cut: As in `RenderedPrompt`.
    """

    shared: tuple[int, ...]
    question: tuple[int, ...]
    answer: tuple[int, ...]
    seconds: float | None = None
    was_cut: bool = False


@dataclass(frozen=True)
class EcgBlock:
    """What a prompt shows of its ECGs: their ids, the seconds kept of the shortest, and whether something was cut."""

    ids: tuple[np.ndarray, ...]
    seconds: float
    was_cut: bool

    @property
    def num_tokens(self) -> int:
        """With the start and the end of each ECG."""
        return sum(len(part) + 2 for part in self.ids)

    def shows_the_same_as(self, other: EcgBlock) -> bool:
        """Whether all ids are alike."""
        return all(np.array_equal(mine, theirs) for mine, theirs in zip(self.ids, other.ids, strict=True))


class EcgPrompter:
    """Writes prompts and training rows for one ECG tokenizer and one language model.

    Args:
        ecg_tokenizer: The `EcgByteTokenizer`.
        lm_tokenizer: The extended tokenizer of the language model.
        prompt: Wording and budget.
        signal_of: ECG number to cleaned signal (leads, samples) in mV.
        view: `"true"`, or what the controls show instead: `"question_only"` (no ECG block), `"zero_signal"`,
            `"shuffled"` (the ECG that `substitutes` names).
        substitutes: ECG number to the number of the ECG shown in its place, for `"shuffled"`.
        context_of: ECG number to what is known of its patient, for prompts with a `context`. Every view shows the
            context of the ECG that is asked about, so that a control knows all that the model knows but the ECG.

    A row is a question about ECGs: `question`, `answer`, `ecg_id`, `sample_id`, and `history` where it goes on with a
    conversation, as `conversation_questions` gives it.

    Raises:
        VocabularyError: the language model has other ECG tokens than the ECG tokenizer.
        EcgDataError: the prompt has a context and there is no `context_of`.
    """

    #: Whether a model needs the signals beside the text.
    needs_signals = False

    def __init__(
        self,
        ecg_tokenizer: Any,
        lm_tokenizer: Any,
        prompt: EcgPrompt,
        signal_of: Callable[[int], np.ndarray],
        *,
        view: str = "true",
        substitutes: Mapping[int, int] | None = None,
        context_of: Callable[[int], Mapping[str, Any]] | None = None,
    ) -> None:
        if view not in ECG_VIEWS:
            raise ValueError(f"unknown view {view!r}; known: {', '.join(ECG_VIEWS)}")
        if (view == "shuffled") != (substitutes is not None):
            raise ValueError("substitutes, a mapping of ECG numbers, belong to the view 'shuffled' and to no other")
        if prompt.context and context_of is None:
            raise EcgDataError(
                f"prompts of this model tell {' and '.join(prompt.context)} of the patient; pass them as context_of"
            )
        self.ecg_tokenizer = ecg_tokenizer
        self.lm_tokenizer = lm_tokenizer
        self._check_tokens()
        self.prompt = prompt
        self.view = view
        self.report = BudgetReport()
        #: What tells the signals from others, and what was done to them on purpose, such as noise that was added.
        self.data = ""
        self.changes: tuple[str, ...] = ()
        self._signal_of = signal_of
        self._context_of = context_of
        self.substitutes = None if substitutes is None else dict(substitutes)
        self._blocks: dict[tuple[tuple[int, ...], int], EcgBlock] = {}
        self._divided_texts: dict[tuple[str, ...], tuple[list[int], list[int], list[int]]] = {}
        self._augmentation: Callable[[int, np.ndarray], np.ndarray] | None = None

    def augment(self, augmentation: Callable[[int, np.ndarray], np.ndarray] | None) -> None:
        """From now on show signals as this makes them of an ECG's number and signal; with None as they are."""
        self._augmentation = augmentation
        self._blocks.clear()

    @classmethod
    def for_prepared(
        cls,
        ecg_tokenizer: Any,
        lm_tokenizer: Any,
        prompt: EcgPrompt,
        prepared: PreparedData,
        *,
        view: str = "true",
        substitutes: Mapping[int, int] | None = None,
    ) -> EcgPrompter:
        """The prompter that takes signals, and the context where the prompt has one, of a prepared folder.

        Raises:
            VocabularyError: the language model has other ECG tokens than the ECG tokenizer.
            EcgDataError: the model is for windows of another length, or the folder tells nothing of the patients.
        """
        prompt.check_windows(prepared.window_seconds)
        prompter = cls(
            ecg_tokenizer,
            lm_tokenizer,
            prompt,
            prepared.signal,
            view=view,
            substitutes=substitutes,
            context_of=_context_of(prepared, prompt.context) if prompt.context else None,
        )
        prompter.data = prepared.fingerprint
        prompter.changes = tuple(getattr(prepared.records, "changes", ()))
        return prompter

    def prompt_for(self, row: dict[str, Any]) -> RenderedPrompt:
        """The prompt of one question, the same in training and in generation.

        Raises:
            BudgetError: the question and one sample of each lead do not fit; the message names the row.
        """
        text_tokens = self._text_tokens(row)
        return self._prompt_around(row, self._block_for(row, text_tokens), text_tokens)

    def training_row(self, row: dict[str, Any]) -> dict[str, Any]:
        """`prompt` and `completion` as text; the trainer adds the end-of-sequence token.

        Raises:
            BudgetError: question or answer do not fit; the message names the row.
            VocabularyError: the tokenizer joins the end of the prompt and the start of the answer.
        """
        completion, answer_tokens = self._answer(row)
        prompt = self.prompt_for(row)
        # The trainer divides the two texts by their ids, so what it will see is looked at here, for every row.
        together = self.lm_tokenizer(prompt.text + completion)["input_ids"]
        answer = self._ids(completion)
        if together[prompt.num_tokens :] != answer or len(together) != prompt.num_tokens + len(answer):
            raise _not_divided(row, prompt.text, completion)
        self.report.add(prompt, prompt.num_tokens + answer_tokens)
        return {
            "prompt": prompt.text,
            "completion": completion,
            "sample_id": row["sample_id"],
            "ecg_id": row["ecg_id"],
        }

    def divided_row(self, row: dict[str, Any]) -> DividedRow:
        """The ids of `training_row` and the end of sequence, divided where the ECG and where the prompt ends.

        ECG tokens are no part of words, so a text has the same ids around any ECG: it is tokenised, and its division
        looked at, once for all rows that have it.

        Raises:
            BudgetError: question or answer do not fit; the message names the row.
            VocabularyError: the tokenizer joins the end of the prompt and the start of the answer.
        """
        # The end of the stand-in for all ECGs is where the shared part ends.
        stand_in = "" if self.view == "question_only" else str(self.ecg_tokenizer.eos_token)
        parts = ("".join(self._parts(row, stand_in)), self.prompt.render_answer(row["answer"]))
        if parts not in self._divided_texts:
            if len(self._divided_texts) >= _KEPT_TEXTS:
                self._divided_texts.pop(next(iter(self._divided_texts)))
            self._divided_texts[parts] = self._divide(row, *parts, stand_in)
        before, question, answer = self._divided_texts[parts]
        block = self._block_for(row, len(before) + len(question))
        if block is None:
            return DividedRow(tuple(before), tuple(question), tuple(answer))
        ecg = [number for part in block.ids for number in self._lm_ids(part)]
        return DividedRow((*before, *ecg), tuple(question), tuple(answer), block.seconds, block.was_cut)

    def _divide(
        self, row: dict[str, Any], prompt: str, completion: str, stand_in: str
    ) -> tuple[list[int], list[int], list[int]]:
        """Ids of the text before the ECGs, between them and the answer, and of the answer with its end."""
        self._text_tokens(row)
        self._answer(row)
        ids = list(self.lm_tokenizer(prompt + completion + self._end)["input_ids"])
        asked = list(self.lm_tokenizer(prompt)["input_ids"])
        answer = [*self._ids(completion), self.lm_tokenizer.eos_token_id]
        if ids != [*asked, *answer]:
            raise _not_divided(row, prompt, completion)
        if not stand_in:
            start = len(self.lm_tokenizer("")["input_ids"])
            return asked[:start], asked[start:], answer
        place = asked.index(self.lm_tokenizer.convert_tokens_to_ids(stand_in))
        return asked[:place], asked[place + 1 :], answer

    def _lm_ids(self, part: np.ndarray) -> list[int]:
        """The language model's ids of one ECG, its start and its end."""
        start, end, known = self._lm_ecg_ids
        return [start, *known[part].tolist(), end]

    @cached_property
    def _lm_ecg_ids(self) -> tuple[int, int, np.ndarray]:
        """The language model's ids of the start, the end, and all tokens of ECGs."""
        to_id = self.lm_tokenizer.convert_tokens_to_ids
        tokens = [f"<|ecg_{index}|>" for index in range(self.ecg_tokenizer.num_ecg_tokens)]
        start, end = (to_id(str(token)) for token in (self.ecg_tokenizer.bos_token, self.ecg_tokenizer.eos_token))
        return start, end, np.array(to_id(tokens), dtype=np.int64)

    def ecg_row(self, ecg_id: int) -> dict[str, list[int]]:
        """An ECG without any question, for next-token training: loss on each of its tokens and on its end.

        Returns:
            `input_ids` (beginning of sequence, ECG) and `labels` (-100 without loss), of one length.

        Raises:
            BudgetError: not one sample of each lead fits.
            EcgDataError: the view shows no ECG.
        """
        if self.view == "question_only":
            raise EcgDataError("rows of ECGs alone have nothing to show in the view question_only")
        before = list(self.lm_tokenizer("")["input_ids"])
        block = self._encoded((ecg_id,), self.prompt.ecg_budget(len(before)))
        ids = self._lm_ids(block.ids[0])
        self.report.add(DividedRow((*before, *ids), (), (), block.seconds, block.was_cut), len(before) + len(ids))
        # The start of the ECG is given, as it is where a question follows.
        return {"input_ids": [*before, *ids], "labels": [*[-100] * (len(before) + 1), *ids[1:]]}

    def messages_row(self, row: dict[str, Any]) -> dict[str, Any]:
        """`prompt` and `completion` as lists of messages, for trainers that apply the model's chat template.

        With the template that `extend_llm` saved they become the ids of `training_row`, with its end of answer.

        Raises:
            BudgetError: question or answer do not fit; the message names the row.
            EcgDataError: the model was not extended for a chat.
            VocabularyError: its tokenizer has another chat template by now.
        """
        messages = self._messages(row)
        made = self.training_row(row)
        self._check_chat_template(messages[:-1], made["prompt"], add_generation_prompt=True)
        self._check_chat_template(messages, made["prompt"] + made["completion"] + self._end)
        return {**made, "prompt": messages[:-1], "completion": messages[-1:]}

    def conversation_row(self, row: dict[str, Any]) -> dict[str, Any]:
        """A question and its `history` in one tokenised row: every answer and its end carry loss, nothing else does.

        Returns:
            `input_ids` and `labels` (-100 without loss); the ids are those of `training_row` for the same question.

        Raises:
            BudgetError: the conversation or its last answer do not fit; the message names the row.
            VocabularyError: the tokenizer joins a question and an answer.
        """
        parts, answer_tokens = self._conversation(row)
        input_ids = list(self.lm_tokenizer(parts[0])["input_ids"])
        labels = [-100] * len(input_ids)
        for place, part in enumerate(parts[1:]):  # an answer, its end, a question, ...
            ids = self._ids(part)
            input_ids += ids
            labels += [-100] * len(ids) if place % 3 == 2 else ids
        if input_ids != self.lm_tokenizer("".join(parts))["input_ids"]:
            raise VocabularyError(
                f"sample {row['sample_id']}: the language model's tokenizer does not divide the turns where one ends "
                "and the next begins; change the wording in ecg_prompt.json"
            )
        prompt = self.prompt_for(row)
        self.report.add(prompt, prompt.num_tokens + answer_tokens)
        return {"input_ids": input_ids, "labels": labels}

    def conversation_messages_row(self, row: dict[str, Any]) -> dict[str, Any]:
        """A question and its `history` as one list of `messages`, for trainers that apply the model's chat template.

        With TRL's `assistant_only_loss` they become the ids and labels of `conversation_row`.

        Raises:
            As `messages_row` and `conversation_row`.
        """
        messages = self._messages(row)
        self.conversation_row(row)
        self._check_chat_template(messages, "".join(self._conversation(row)[0]))
        return {"messages": messages, "sample_id": row["sample_id"], "ecg_id": row["ecg_id"]}

    def grouped_rows(self, rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Several questions about the same ECGs in one tokenised row, so that the ECG is read once.

        Every answer and its end-of-sequence token carry loss, nothing else does. A later question sees the earlier
        ones and their answers: group only questions whose answers do not give one another away.

        The ECG is never cut further to make room for more questions: each is asked about the cut that generation
        will show it. Questions that do not fit behind it begin a row of their own; a larger `reserve` gives them room.

        Returns:
            Rows of `input_ids` and `labels` (-100 without loss).

        Raises:
            BudgetError: a question or an answer does not fit even alone; the message names the row.
        """
        waiting = list(rows)
        while waiting:
            made, taken = self._grouped_row(waiting)
            yield made
            waiting = waiting[taken:]

    def _grouped_row(self, rows: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], int]:
        """One row with as many questions from the start as fit, and their number."""
        text_tokens = self._text_tokens(rows[0])
        block = self._block_for(rows[0], text_tokens)
        prompt = self._prompt_around(rows[0], block, text_tokens)
        input_ids = list(self.lm_tokenizer(prompt.text)["input_ids"])
        labels = [-100] * len(input_ids)
        taken = 0
        for row in rows:
            question: list[int] = []
            answer = [*self._ids(self._answer(row)[0]), self.lm_tokenizer.eos_token_id]
            if taken:
                if row.get("history"):
                    break
                question = self._ids(self.prompt.render_next(row["question"]))
                if len(input_ids) + len(question) + len(answer) > self.prompt.max_length:
                    break
                if block is not None:
                    own = self._block_for(row, self._text_tokens(row))
                    if own is not None and not own.shows_the_same_as(block):
                        break
            input_ids += [*question, *answer]
            labels += [*[-100] * len(question), *answer]
            taken += 1
        self.report.add(prompt, len(input_ids))
        return {"input_ids": input_ids, "labels": labels}, taken

    def _ids(self, text: str) -> list[int]:
        return list(self.lm_tokenizer(text, add_special_tokens=False)["input_ids"])

    def _answer(self, row: dict[str, Any]) -> tuple[str, int]:
        """The completion of a row and its tokens."""
        completion = self.prompt.render_answer(row["answer"])
        try:
            return completion, self.prompt.check_answer(self.lm_tokenizer, completion)
        except BudgetError as error:
            raise BudgetError(f"sample {row['sample_id']}: {error}") from error

    def _prompt_around(self, row: dict[str, Any], block: EcgBlock | None, text_tokens: int) -> RenderedPrompt:
        text = "".join(self._parts(row, self._ecg_text(block)))
        if block is None:
            return RenderedPrompt(text, text_tokens)
        return RenderedPrompt(text, text_tokens + block.num_tokens, block.seconds, block.was_cut)

    def _ecg_text(self, block: EcgBlock | None) -> str:
        return "" if block is None else "".join(self.ecg_tokenizer.ecg_text(part) for part in block.ids)

    def _parts(self, row: dict[str, Any], ecg: str) -> list[str]:
        """The prompt: the first question, then answer, end and question for every turn of the history."""
        first, *later = self._questions(row)
        parts = [self.prompt.render(ecg, first)]
        for answer, question in zip((row.get("history") or [])[1::2], later, strict=True):
            parts += [self.prompt.render_answer([answer["content"]]), self._end, self.prompt.render_next(question)]
        return parts

    def _conversation(self, row: dict[str, Any]) -> tuple[list[str], int]:
        """The parts of the prompt, the answer and its end, and the tokens of these two."""
        completion, answer_tokens = self._answer(row)
        ecg = self._ecg_text(self._block_for(row, self._text_tokens(row)))
        return [*self._parts(row, ecg), completion, self._end], answer_tokens

    def _questions(self, row: dict[str, Any]) -> list[str]:
        """All questions of a conversation, with the context in the first one."""
        history = row.get("history") or []
        questions = [*(turn["content"] for turn in history[::2]), row["question"]]
        if self._context_of is not None:
            questions[0] = self.prompt.with_context(questions[0], [self._context_of(one) for one in row["ecg_id"]])
        return questions

    def _messages(self, row: dict[str, Any]) -> list[dict[str, str]]:
        """The conversation as messages, the answer of the row the last."""
        first, *later = self._questions(row)
        ecg = self._ecg_text(self._block_for(row, self._text_tokens(row)))
        turns = [_message("user", self.prompt.render_user(ecg, first))]
        if self.prompt.system is not None:
            turns.insert(0, _message("system", self.prompt.system))
        for answer, question in zip((row.get("history") or [])[1::2], later, strict=True):
            turns += [_message("assistant", answer["content"].strip()), _message("user", question.strip())]
        return [*turns, _message("assistant", self.prompt.answer_text(row["answer"]))]

    def _check_chat_template(self, messages: list[dict[str, str]], text: str, **options: Any) -> None:
        if self.lm_tokenizer.apply_chat_template(messages, tokenize=False, **options) != self._bos + text:
            raise VocabularyError(
                "the chat template of the model's tokenizer does not write its prompts; restore the one that "
                "`ecgbyte extend-llm --prompt-format chat` saved"
            )

    @property
    def _end(self) -> str:
        """The token that ends an answer."""
        return str(self.lm_tokenizer.eos_token)

    @cached_property
    def _bos(self) -> str:
        return added_bos(self.lm_tokenizer)

    def _text_tokens(self, row: dict[str, Any]) -> int:
        ecg_token = "" if self.view == "question_only" else str(self.ecg_tokenizer.bos_token)
        text = "".join(self._parts(row, ecg_token))
        try:
            return self.prompt.check_text(self.lm_tokenizer, text, row["question"], ecg_token=ecg_token)
        except BudgetError as error:
            raise BudgetError(f"sample {row['sample_id']}: {error}") from error

    def _block_for(self, row: dict[str, Any], text_tokens: int) -> EcgBlock | None:
        """What a question is shown of its ECGs; `None` in the view that shows none."""
        if self.view == "question_only":
            return None
        try:
            return self._encoded(tuple(row["ecg_id"]), self.prompt.ecg_budget(text_tokens))
        except BudgetError as error:
            raise BudgetError(f"sample {row['sample_id']} (ECG {row['ecg_id']}): {error}") from error

    def _encoded(self, ecg_ids: tuple[int, ...], budget: int) -> EcgBlock:
        key = (ecg_ids, budget // len(ecg_ids))
        if key not in self._blocks:
            signals = [self._shown(ecg_id) for ecg_id in ecg_ids]
            ids, kept = encode_within_budget(self.ecg_tokenizer, signals, budget)
            was_cut = any(samples < signal.shape[1] for samples, signal in zip(kept, signals, strict=True))
            if len(self._blocks) >= _KEPT_BLOCKS:
                self._blocks.pop(next(iter(self._blocks)))
            small = tuple(part.astype(np.int32) for part in ids)
            self._blocks[key] = EcgBlock(small, min(kept) / self.ecg_tokenizer.sampling_rate, was_cut)
        return self._blocks[key]

    def _check_tokens(self) -> None:
        """An ECG token that the language model does not know would be read as a dozen letters, without any error."""
        count = self.ecg_tokenizer.num_ecg_tokens
        known = self.lm_tokenizer.get_vocab()
        start = str(self.ecg_tokenizer.bos_token)
        if f"<|ecg_{count - 1}|>" not in known or f"<|ecg_{count}|>" in known or start not in known:
            theirs = sum(token.startswith("<|ecg_") and token[6:-2].isdigit() for token in known)
            raise VocabularyError(
                f"the ECG tokenizer has {count} tokens and the language model knows {theirs} of them; use the ECG "
                "tokenizer that the model was extended with"
            )

    def _shown(self, ecg_id: int) -> np.ndarray:
        if self.substitutes is not None:
            if ecg_id not in self.substitutes:
                raise EcgDataError(f"no other ECG was named to be shown instead of {ecg_id}")
            ecg_id = self.substitutes[ecg_id]
        signal = self._signal_of(ecg_id)
        if self._augmentation is not None:
            signal = self._augmentation(ecg_id, signal)
        return np.zeros_like(signal) if self.view == "zero_signal" else signal


def _not_divided(row: Mapping[str, Any], prompt: str, completion: str) -> VocabularyError:
    """The refusal of a wording whose prompt and answer a tokenizer joins."""
    return VocabularyError(
        f"sample {row['sample_id']}: the language model's tokenizer does not divide prompt and answer where one ends "
        f"and the other begins: {prompt[-20:]!r}, {completion[:20]!r}; change template or completion in "
        "ecg_prompt.json"
    )


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _context_of(prepared: PreparedData, context: Sequence[str]) -> Callable[[int], Mapping[str, Any]]:
    """What a prompt tells of the patient of each ECG of a prepared folder, and nothing else of them."""
    # Folders of an earlier version have no such method.
    metadata: dict[int, dict[str, Any]] = getattr(prepared, "metadata", dict)()
    known = {ecg_id: {name: facts.get(name) for name in context} for ecg_id, facts in metadata.items()}
    if not any(value is not None for facts in known.values() for value in facts.values()):
        raise EcgDataError(
            f"{prepared.folder} tells neither {' nor '.join(context)} of its patients; prepare it anew from a data "
            "set that does, such as ptb_xl, or leave out the context"
        )
    return lambda ecg_id: known.get(ecg_id, {})


def group_by_ecg(
    rows: Iterable[dict[str, Any]], size: int, rng: np.random.Generator
) -> Iterator[list[dict[str, Any]]]:
    """Groups of at most `size` questions about the same ECGs, no two about the same attribute.

    Questions about one attribute give one another's answers away ("Is it regular?" and "Which rhythm is it?"), so
    they go to different groups. Every row is in exactly one group.

    Raises:
        EcgDataError: a size below 1.
    """
    if size < 1:
        raise EcgDataError(f"got {size} questions per row, expected at least 1")
    by_ecg: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    for row in rows:
        by_ecg.setdefault(tuple(row["ecg_id"]), []).append(row)
    for questions in by_ecg.values():
        waiting = [questions[index] for index in rng.permutation(len(questions))]
        while waiting:
            group: list[dict[str, Any]] = []
            rest: list[dict[str, Any]] = []
            for row in waiting:
                is_new = all(row["attribute_type"] != other["attribute_type"] for other in group)
                (group if is_new and len(group) < size else rest).append(row)
            yield group
            waiting = rest
