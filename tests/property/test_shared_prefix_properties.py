"""The mask of shared-prefix rows against its definition, written as two loops."""

import os

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgbyte_hf.training.shared_prefix import PADDING, SharedPrefixCollator, shared_prefix_mask

EXAMPLES = settings(max_examples=int(os.environ.get("ECGBYTE_HYPOTHESIS_EXAMPLES", "60")), deadline=None)


@st.composite
def shared_row(draw):
    shared = draw(st.integers(0, 5))
    row = {"token_ids": [9] * shared, "position_ids": list(range(shared)), "segment_ids": [0] * shared}
    for segment, length in enumerate(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)), start=1):
        row["token_ids"] += [9] * length
        row["position_ids"] += range(shared, shared + length)
        row["segment_ids"] += [segment] * length
    row["labels"] = [-100] * len(row["token_ids"])
    return row


def seen_pairs(rows, pack, length, window):
    """Query and key that see one another, for each sequence of the batch."""
    sequences = [rows] if pack else [[row] for row in rows]
    for sequence in sequences:
        tokens = [
            (number, segment, position)
            for number, row in enumerate(sequence)
            for segment, position in zip(row["segment_ids"], row["position_ids"], strict=True)
        ]
        pairs = {(index, index) for index in range(length)}
        for query, (row, segment, position) in enumerate(tokens):
            for key, (other_row, other_segment, other_position) in enumerate(tokens[: query + 1]):
                is_near = window is None or position - other_position < window
                if row == other_row and other_segment in (0, segment) and is_near:
                    pairs.add((query, key))
        yield pairs


@EXAMPLES
@given(
    rows=st.lists(shared_row(), min_size=1, max_size=3),
    pack=st.booleans(),
    multiple=st.sampled_from([None, 8]),
    window=st.sampled_from([None, 1, 3]),
)
def test_the_mask_is_its_definition(rows, pack, multiple, window):
    given_to_model = SharedPrefixCollator(7, attn_implementation=None, pad_to_multiple_of=multiple, pack=pack)(rows)
    segment_ids, row_ids, positions = (given_to_model[name] for name in ("segment_ids", "row_ids", "position_ids"))
    batch, length = segment_ids.shape
    assert batch == (1 if pack else len(rows)) and (multiple is None or length % multiple == 0)
    mask = shared_prefix_mask(segment_ids, row_ids, position_ids=positions, window=window)
    assert mask.shape == (batch, 1, length, length) and mask.dtype == torch.bool
    expected = list(seen_pairs(rows, pack, length, window))
    assert [{tuple(pair) for pair in one[0].nonzero().tolist()} for one in mask] == expected
    added = shared_prefix_mask(
        segment_ids, row_ids, position_ids=positions, window=window, attn_implementation="eager"
    )
    assert torch.equal(added == 0, mask) and (added[~mask] < -1e38).all()
    if window is None:
        whole = SharedPrefixCollator(7, pad_to_multiple_of=multiple, pack=pack)(rows)
        assert torch.equal(whole["attention_mask"], mask)
    is_token = row_ids != PADDING
    assert int(is_token.sum()) == sum(len(row["token_ids"]) for row in rows)
    assert (given_to_model["input_ids"][~is_token] == 7).all() and (given_to_model["labels"] == -100).all()
    assert torch.equal(given_to_model["attention_mask"], is_token.long())
