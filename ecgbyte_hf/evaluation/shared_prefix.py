"""Answers to all questions about one ECG from one pass over it.

The ECG is most of every prompt, and ECG-QA asks about 14 questions of each. Here the questions and their answers
stand one after another in one row behind the ECG, each attending to the ECG and itself only, at the positions it would
have alone. So the ECG's keys and values are computed once and, unlike in a batch with a copy for each question, are
kept and read once. Several ECGs are rows of a batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ecgbyte_hf.evaluation.option_scores import logprobs_of
from ecgbyte_hf.evaluation.prompt_ids import padded

# Owners of a row's tokens beside its questions, which are 0, 1, ...
_PREFIX, _PADDING = -1, -2
# Logits that are in memory at once when options are scored: 256 MB.
_MOST_LOGITS = 2**26


@dataclass(frozen=True)
class PrefixedQuestions:
    """Prompts that begin with the same ids.

    Attributes:
        prefix: What they share.
        tails: What follows in each of them, one id at least.
        answers: For each of them the completions that are scored, end-of-sequence token included; often none.
    """

    prefix: list[int]
    tails: list[list[int]]
    answers: list[list[list[int]]]


def shared_prefix_obstacle(model: Any) -> str | None:
    """Why a model cannot be used with `complete_and_score`; `None` where it can.

    It must take a mask and positions of our own, and keep all keys and values: a sliding window would count the tokens
    of other questions as near ones.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    kind = type(base).__name__
    if any(config.is_prompt_learning for config in getattr(model, "peft_config", {}).values()):
        return "the adapter adds a prompt of its own"
    lacking = {"position_ids", "past_key_values", "logits_to_keep"} - set(inspect.signature(base.forward).parameters)
    if lacking or not getattr(base, "_supports_attention_backend", False):
        return f"{kind} does not take the mask and the positions of several questions"
    attention = base.config._attn_implementation
    if attention not in ("sdpa", "eager"):
        return f"attention {attention!r} does not take a mask of several questions; load the model with 'sdpa'"
    cache = getattr(base.generation_config, "cache_implementation", None)
    if cache not in (None, "dynamic"):
        return f"the model's generation config asks for the cache {cache!r}"
    other = {
        type(layer).__name__ for layer in DynamicCache(config=base.config).layers if type(layer) is not DynamicLayer
    }
    if other:
        return f"{kind} does not keep all keys and values ({', '.join(sorted(other))})"
    return None


def complete_and_score(
    model: Any,
    rows: Sequence[PrefixedQuestions],
    *,
    max_new_tokens: int,
    eos_token_id: int,
    pad_token_id: int,
    streamer: Any = None,
) -> list[tuple[list[list[int]], list[list[float]]]]:
    """Greedy completions and answer scores of prompts that share prefixes.

    Args:
        model: A causal language model without `shared_prefix_obstacle`.
        rows: Prompts by their prefix; they are one batch.
        max_new_tokens: Longest completion; 0 to score only.
        eos_token_id: Ends a completion.
        pad_token_id: Of the padding.
        streamer: A transformers streamer; the prompts are then completed one after another.

    Returns:
        For each of `rows` the new tokens of each prompt, the end-of-sequence token included where it was reached, and
        the log-probabilities of each prompt's answers.
    """
    import torch

    with torch.inference_mode():
        cache = _Rows(model, [row.prefix for row in rows], pad_token_id)
        questions = [
            _Question(row, number, tail, len(each.prefix))
            for row, each in enumerate(rows)
            for number, tail in enumerate(each.tails)
        ]
        answers = [each for row in rows for each in row.answers]
        scores: list[list[float]] = []
        turns = [[question] for question in questions] if streamer is not None else [questions]
        for turn in turns:
            logits = cache.append([question.piece(question.tail) for question in turn], last_only=True)
            for question in turn:
                question.length += len(question.tail)
            scores += _score(cache, turn, answers[len(scores) : len(scores) + len(turn)], logits)
            if streamer is not None:
                streamer.put(torch.tensor([rows[turn[0].row].prefix + turn[0].tail]))
            if max_new_tokens:
                _decode(cache, turn, logits, max_new_tokens, eos_token_id, streamer)
            if streamer is not None:
                streamer.end()
    made: list[tuple[list[list[int]], list[list[float]]]] = [([], []) for _ in rows]
    for question, logprobs in zip(questions, scores, strict=True):
        made[question.row][0].append(question.new)
        made[question.row][1].append(logprobs)
    return made


@dataclass
class _Question:
    """A prompt in its row: `length` tokens of it are in the cache."""

    row: int
    number: int
    tail: list[int]
    length: int
    new: list[int] = field(default_factory=list)

    def piece(self, ids: list[int], branch: int = 0) -> _Piece:
        """Ids that come next in this prompt."""
        return _Piece(self.row, self.number, branch, ids, self.length)


@dataclass(frozen=True)
class _Piece:
    """Ids to be appended to a row.

    Attributes:
        row: Which.
        owner: The question they belong to.
        branch: 0 for what the question goes on with; other numbers are tries that see the question and themselves.
        ids: The ids.
        position: Of the first in its own prompt.
    """

    row: int
    owner: int
    branch: int
    ids: list[int]
    position: int


class _Rows:
    """Keys and values of some rows, and to which question each belongs.

    Args:
        model: The language model.
        prefixes: Ids that each row begins with.
        pad_token_id: Of the padding.
    """

    def __init__(self, model: Any, prefixes: Sequence[Sequence[int]], pad_token_id: int) -> None:
        import torch
        from transformers import DynamicCache

        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._model = model
        self._pad = pad_token_id
        self._is_eager = base.config._attn_implementation == "eager"
        self._cache = DynamicCache(config=base.config)
        ids, mask = padded(prefixes, pad_token_id, side="left", device=model.device)
        self._owners = torch.where(mask.bool(), _PREFIX, _PADDING)
        self._branches = torch.zeros_like(ids)
        if ids.shape[1]:
            positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
            self._forward(ids, mask, positions, 1)

    def _forward(self, ids: Any, mask: Any, positions: Any, keep: Any) -> Any:
        return self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits

    def append(self, pieces: Sequence[_Piece], *, last_only: bool = False) -> list[Any]:
        """Read pieces, and give the logits behind each: (ids, vocabulary), or (1, vocabulary) of the last alone.

        A row's n-th piece stands in the same columns as the other rows' n-th, at their end, so that few logits have
        to be computed.
        """
        import torch

        slots: list[int] = []
        places: list[tuple[int, int]] = []
        taken = [0] * len(self._owners)
        for piece in pieces:
            slot = taken[piece.row]
            taken[piece.row] += 1
            slots += [0] * (slot + 1 - len(slots))
            slots[slot] = max(slots[slot], len(piece.ids))
            places.append((piece.row, slot))
        ends = np.cumsum(slots).tolist()
        shape = (len(self._owners), ends[-1])
        # Arrays, since each step would make thousands of small tensors otherwise.
        ids, owners = np.full(shape, self._pad), np.full(shape, _PADDING)
        branches, positions = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for piece, (row, slot) in zip(pieces, places, strict=True):
            where = slice(ends[slot] - len(piece.ids), ends[slot])
            ids[row, where] = piece.ids
            owners[row, where], branches[row, where] = piece.owner, piece.branch
            positions[row, where] = np.arange(piece.position, piece.position + len(piece.ids))
        on_device = [torch.from_numpy(array).to(self._owners.device) for array in (ids, owners, branches, positions)]
        columns = torch.tensor([end - 1 for end in ends], device=self._owners.device) if last_only else 0
        mask = self._mask(on_device[1], on_device[2])
        logits = self._forward(on_device[0], mask, on_device[3], columns)
        if last_only:
            return [logits[row, slot : slot + 1] for row, slot in places]
        return [
            logits[row, ends[slot] - len(piece.ids) : ends[slot]]
            for piece, (row, slot) in zip(pieces, places, strict=True)
        ]

    def _mask(self, owners: Any, branches: Any) -> Any:
        """What new tokens see, (rows, 1, new, all): the prefix and the past of their own question and branch.

        Padding sees padding, itself at least, since a row that sees nothing is not a number.
        """
        import torch

        new = owners.shape[1]
        self._owners = torch.cat([self._owners, owners], dim=1)
        self._branches = torch.cat([self._branches, branches], dim=1)
        of, branch = self._owners[:, None, :], self._branches[:, None, :]
        is_own = (of == owners[:, :, None]) & ((branch == 0) | (branch == branches[:, :, None]))
        sees = is_own | (of == _PREFIX)
        sees[:, :, -new:] &= torch.ones(new, new, dtype=torch.bool, device=sees.device).tril()
        sees = sees[:, None]
        if not self._is_eager:
            return sees
        dtype = self._model.dtype
        return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)

    def drop_last(self, count: int) -> None:
        """Forget the last columns."""
        if count:
            self._cache.crop(-count)
            self._owners, self._branches = self._owners[:, :-count], self._branches[:, :-count]

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all other rows; these are numbered anew."""
        import torch

        index = torch.tensor(rows, device=self._owners.device)
        self._cache.batch_select_indices(index)
        self._owners, self._branches = self._owners[index], self._branches[index]

    @property
    def length(self) -> int:
        """Columns."""
        return int(self._owners.shape[1])

    def __len__(self) -> int:
        return len(self._owners)


def _score(
    cache: _Rows, questions: list[_Question], answers: list[list[list[int]]], logits: list[Any]
) -> list[list[float]]:
    """Log-probabilities of answers, each read behind its question in a branch that is forgotten again."""
    scores: list[list[float]] = [[] for _ in questions]
    waiting = []
    for index, each in enumerate(answers):
        for answer in each:
            waiting.append((index, len(scores[index]), answer))
            scores[index].append(float(logprobs_of(logits[index], answer[:1]).sum()))
    waiting = [item for item in waiting if len(item[2]) > 1]
    vocabulary = logits[0].shape[-1] if logits else 1
    while waiting:
        batch: list[tuple[int, int, list[int]]] = []
        width = [0] * len(cache)
        for index, column, answer in waiting:
            row = questions[index].row
            if batch and (width[row] + len(answer)) * len(cache) * vocabulary > _MOST_LOGITS:
                break
            width[row] += len(answer)
            batch.append((index, column, answer))
        waiting = waiting[len(batch) :]
        pieces = [questions[index].piece(answer[:-1], column + 1) for index, column, answer in batch]
        before = cache.length
        behind = cache.append(pieces)
        cache.drop_last(cache.length - before)
        for (index, column, answer), piece_logits in zip(batch, behind, strict=True):
            scores[index][column] += float(logprobs_of(piece_logits, answer[1:]).sum())
    return scores


def _decode(
    cache: _Rows,
    questions: list[_Question],
    logits: list[Any],
    max_new_tokens: int,
    eos_token_id: int,
    streamer: Any = None,
) -> None:
    """Write the likeliest token behind each question until it is the end; questions that ended are not read on."""
    import torch

    # Streamed rows come one by one: none may be forgotten for the next.
    active, current = list(questions), list(range(len(cache)))
    for _ in range(max_new_tokens):
        for question, token in zip(active, torch.cat(logits).argmax(dim=-1).tolist(), strict=True):
            question.new.append(token)
            if streamer is not None:
                streamer.put(torch.tensor([token]))
        active = [question for question in active if question.new[-1] != eos_token_id]
        if not active or len(active[0].new) == max_new_tokens:
            return
        rows = sorted({question.row for question in active})
        if rows != current and streamer is None:
            cache.keep([current.index(row) for row in rows])
            current = rows
        place = {row: index for index, row in enumerate(current)}
        pieces = [
            _Piece(place[question.row], question.number, 0, question.new[-1:], question.length) for question in active
        ]
        for question in active:
            question.length += 1
        logits = cache.append(pieces, last_only=True)
