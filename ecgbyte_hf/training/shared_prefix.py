"""Training on shared-prefix rows: the attention mask by which every question sees its ECG and itself only.

Rows are those of `ecgbyte_hf.data.shared_rows`. `ecgbyte sft` does all of this by itself; with another trainer use
`SharedPrefixCollator`. The trainer's validation loss is a mean over batches, so that of shared rows compares with that
of other shared rows and not with that of separate ones.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from ecgbyte_hf.data.shared_rows import SEGMENT_COLUMN, SHARED_COLUMNS, TOKEN_COLUMN
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgError

#: Ways to compute attention that take any mask.
ATTENTION = ("sdpa", "eager", "flex_attention")
#: `row_ids` of padding.
PADDING = -1

MaskFunction = Callable[..., torch.Tensor]


def shared_prefix_mask(
    segment_ids: torch.Tensor,
    row_ids: torch.Tensor,
    *,
    position_ids: torch.Tensor | None = None,
    window: int | None = None,
    attn_implementation: str = "sdpa",
) -> Any:
    """The attention mask of shared-prefix rows, on the device of `segment_ids`.

    A token sees no later one, none of another row, and only those of segment 0 and of its own segment. Padding sees
    itself, so that no softmax is over nothing.

    Args:
        segment_ids: (batch, n): 0 for what is shared, 1, 2, ... for the questions.
        row_ids: (batch, n): number of the row, which differs where rows are packed into one sequence; -1 for padding.
        position_ids: (batch, n), for `window`.
        window: Positions that a layer with sliding-window attention sees, its own among them; all by default.
        attn_implementation: `"sdpa"` gives booleans (True: seen), `"eager"` float32 to be added (0: seen), both
            (batch, 1, n, n); `"flex_attention"` a `BlockMask` of the same shape, which keeps only the blocks.

    Raises:
        EcgError: another `attn_implementation`.
    """
    _check_implementation(attn_implementation)
    seen = _mask_function(segment_ids, row_ids, position_ids, window)
    batch, length = segment_ids.shape
    if attn_implementation == "flex_attention":
        from torch.nn.attention.flex_attention import create_block_mask

        return create_block_mask(seen, batch, None, length, length, device=segment_ids.device)
    index = torch.arange(length, device=segment_ids.device)
    rows = torch.arange(batch, device=segment_ids.device)
    mask = seen(rows[:, None, None, None], 0, index[:, None], index[None, :])
    if attn_implementation == "sdpa":
        return mask
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, torch.finfo(torch.float32).min)


def _mask_function(
    segment_ids: torch.Tensor, row_ids: torch.Tensor, position_ids: torch.Tensor | None, window: int | None
) -> MaskFunction:
    """Whether the key of a row and head is seen by the query: FlexAttention's signature, and any that broadcast."""

    def seen(batch: Any, head: Any, query: Any, key: Any) -> torch.Tensor:
        mine, theirs = segment_ids[batch, query], segment_ids[batch, key]
        of_row = (row_ids[batch, query] == row_ids[batch, key]) & (row_ids[batch, key] != PADDING)
        visible = (key <= query) & of_row & ((theirs == 0) | (theirs == mine))
        if window is not None and position_ids is not None:
            visible = visible & (position_ids[batch, query] - position_ids[batch, key] < window)
        return visible | (key == query)

    return seen


@dataclass
class SharedPrefixCollator:
    """Makes a batch of shared-prefix rows, padded on the right.

    Args:
        pad_token_id: Fills up `input_ids`.
        attn_implementation: The model's: `"sdpa"`, `"eager"` or `"flex_attention"`, for an `attention_mask` as of
            `shared_prefix_mask`. A `BlockMask` stays on `device`. `None` leaves the mask to a model that
            `attend_by_segments` prepared, and gives `segment_ids`, `row_ids` and a plain `attention_mask`: fewer
            bytes to move, and right for layers with a sliding window too.
        pad_to_multiple_of: Lengths are padded to a multiple of this.
        pack: Put all rows of the batch behind one another into one sequence, without padding between them.
        device: Where a `BlockMask` is built.

    Returns:
        `input_ids`, `labels` (-100 for padding), `position_ids`: int64, (batch, n), with `pack` (1, n).

    Raises:
        EcgDataError: a row that is none, or whose loss falls on the first token of a question.
        EcgError: another `attn_implementation`, such as flash_attention_2, which takes no such mask.

    Example:
        >>> row = {"token_ids": [5, 6, 7], "labels": [-100, -100, 7], "position_ids": [0, 1, 2]}
        >>> row["segment_ids"] = [0, 1, 1]
        >>> SharedPrefixCollator(pad_token_id=0)([row])["attention_mask"].shape
        torch.Size([1, 1, 3, 3])
    """

    pad_token_id: int
    attn_implementation: str | None = "sdpa"
    pad_to_multiple_of: int | None = None
    pack: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse attention that would not heed the mask."""
        if self.attn_implementation is not None:
            _check_implementation(self.attn_implementation)

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """A batch."""
        batch = self._padded([_tensors(row) for row in rows])
        row_ids, segment_ids = batch["row_ids"], batch[SEGMENT_COLUMN]
        if self.attn_implementation is None:
            return {**batch, "attention_mask": (row_ids != PADDING).long()}
        if self.attn_implementation == "flex_attention":
            row_ids, segment_ids = row_ids.to(self.device), segment_ids.to(self.device)
        mask = shared_prefix_mask(segment_ids, row_ids, attn_implementation=self.attn_implementation)
        named = {name: batch[name] for name in ("input_ids", "labels", "position_ids")}
        return {**named, "attention_mask": mask}

    def _padded(self, rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        for number, row in enumerate(rows):
            row["row_ids"] = torch.full_like(row["input_ids"], number if self.pack else 0)
        if self.pack:
            rows = [{name: torch.cat([row[name] for row in rows]) for name in rows[0]}]
        fills = {"input_ids": self.pad_token_id, "labels": -100, "row_ids": PADDING}
        batch = {}
        for name in rows[0]:
            fill = fills.get(name, 0)
            padded = pad_sequence([row[name] for row in rows], batch_first=True, padding_value=fill)
            extra = -padded.shape[1] % (self.pad_to_multiple_of or 1)
            batch[name] = torch.nn.functional.pad(padded, (0, extra), value=fill)
        return batch


def _tensors(row: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The columns of a row, each (n,) of int64.

    Raises:
        EcgDataError: one is missing, longer than the others, or loss falls where nothing before predicts it.
    """
    tokens = row.get("input_ids", row.get(TOKEN_COLUMN))
    given = {"input_ids": tokens, **{name: row.get(name) for name in SHARED_COLUMNS[1:]}}
    lengths = {name: None if values is None else len(values) for name, values in given.items()}
    if None in lengths.values() or len(set(lengths.values())) != 1:
        raise EcgDataError(
            f"got columns of lengths {lengths}, expected four of one length; make the rows with "
            "`ecgbyte encode --row-format shared`"
        )
    tensors = {name: torch.as_tensor(values, dtype=torch.long) for name, values in given.items()}
    segments = tensors[SEGMENT_COLUMN]
    begins = torch.ones_like(segments, dtype=torch.bool)
    begins[1:] = segments[1:] != segments[:-1]
    if (tensors["labels"][begins] != -100).any():
        raise EcgDataError("the first token of a question has a label; it would be predicted from another question")
    return tensors


def attend_by_segments(model: Any) -> Any:
    """Let a model build the mask of `SharedPrefixCollator(attn_implementation=None)` before each forward.

    On its own device, for its own way of computing attention, and with the window of each kind of layer: where
    Mistral or Gemma 3 would not see the beginning of a long ECG in a separate row, they do not see it here.

    Args:
        model: A causal language model, or PEFT's wrapper of one.

    Returns:
        A handle whose `remove()` ends it.

    Raises:
        EcgError: a model whose tokens would see one another in another way than by attention and this mask.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    windows = _windows(base)

    def before(module: Any, arguments: Any, inputs: dict[str, Any]) -> Any:
        if SEGMENT_COLUMN not in inputs:
            return None
        segment_ids, row_ids = inputs.pop(SEGMENT_COLUMN), inputs.pop("row_ids")
        implementation = base.config.get_text_config()._attn_implementation
        masks = {
            kind: shared_prefix_mask(
                segment_ids,
                row_ids,
                position_ids=inputs["position_ids"],
                window=window,
                attn_implementation=implementation,
            )
            for kind, window in windows.items()
        }
        # Models with layers of several kinds take a mask for each.
        inputs["attention_mask"] = masks if len(masks) > 1 else next(iter(masks.values()))
        return arguments, inputs

    return model.register_forward_pre_hook(before, with_kwargs=True)


def _windows(model: Any) -> dict[str, int | None]:
    """Positions that a token sees, by kind of layer.

    Raises:
        EcgError: attention that takes no mask, layers that are none, or positions that cannot be given.
    """
    config = model.config.get_text_config()
    _check_implementation(config._attn_implementation)
    name = type(model).__name__
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    strange = kinds - {"full_attention", "sliding_attention"}
    # GPT-Neo's local layers have a mask of their own, which counts tokens and not positions.
    strange |= {"local"} & set(getattr(config, "attention_layers", None) or ())
    if getattr(model, "_is_stateful", False) or strange:
        what = ", ".join(sorted(strange)) or "recurrent"
        raise EcgError(
            f"{name} has layers ({what}) in which questions would see one another; write its rows with "
            "`ecgbyte encode --row-format text`"
        )
    takes_positions = "position_ids" in inspect.signature(type(model).forward).parameters
    if not takes_positions or getattr(config, "alibi", False):
        raise EcgError(
            f"{name} counts positions by itself, and those of a shared-prefix row begin again behind the ECG; write "
            "its rows with `ecgbyte encode --row-format text`"
        )
    if not kinds:
        return {"all": window}
    return {kind: window if kind == "sliding_attention" else None for kind in sorted(kinds)}


def _check_implementation(name: str) -> None:
    if name not in ATTENTION:
        raise EcgError(
            f"got --attn_implementation {name}, which takes no mask of shared-prefix rows; expected one of "
            f"{', '.join(ATTENTION)}"
        )


# ---- TRL's trainer ------------------------------------------------------------------------------------------------


def has_shared_rows(rows: Any) -> bool:
    """Whether a data set, streamed or not, holds shared-prefix rows."""
    return rows is not None and SEGMENT_COLUMN in (rows.column_names or next(iter(rows)))


def rows_for_trl(training: Any, rows: Any) -> Any:
    """Shared-prefix rows under the names that TRL's trainer knows, and its arguments set so that it leaves them alone.

    Args:
        training: The `SFTConfig`. No cut to `max_length`: the rows have kept their budget. No column removed.
        rows: A data set, or `None`.

    Raises:
        EcgError: an argument by which TRL would put rows together in its own way.
        EcgDataError: other rows.
    """
    for name in ("packing", "eval_packing", "padding_free"):
        if getattr(training, name):
            raise EcgError(
                f"--{name} has no meaning for shared-prefix rows, whose questions must not see one another; leave it "
                "out, or give --pack_shared_rows true"
            )
    training.max_length = None
    training.remove_unused_columns = False
    if rows is None:
        return None
    if not has_shared_rows(rows):
        raise EcgDataError("some splits have shared-prefix rows and others do not; encode all in one --row-format")
    if TOKEN_COLUMN in (rows.column_names or next(iter(rows))):
        rows = rows.rename_column(TOKEN_COLUMN, "input_ids")
    return rows.select_columns(["input_ids", *SHARED_COLUMNS[1:]])


def prepare_trainer(trainer: Any) -> None:
    """Let a trainer's model read shared-prefix rows.

    Raises:
        EcgError: a model or a way of sharing out sequences that does not go with them.
    """
    parallelism = trainer.accelerator.parallelism_config
    if parallelism is not None and (parallelism.cp_enabled or parallelism.sp_enabled):
        raise EcgError("context and sequence parallelism drop the attention mask of shared-prefix rows; do without")
    if getattr(trainer, "aux_loss_enabled", False):
        raise EcgError(
            "the load-balancing loss of a mixture of experts takes no mask of shared-prefix rows; give "
            "--router_aux_loss_coef 0"
        )
    config = trainer.model.config.get_text_config()
    if config._attn_implementation == "flex_attention" and trainer.model.device.type == "cpu":
        raise EcgError("FlexAttention cannot train on a CPU (torch 2.15); give --attn_implementation sdpa")
    attend_by_segments(trainer.model)
