"""One colour for every token id, the same in every figure of every tokenizer.

Nobody tells hundreds of colours apart, so there are twelve, and figures name tokens by their numbers where there is
room. The twelve were found by a farthest-point search over sRGB in CIELAB (L* 60 to 92, so that a black trace is seen
on them): any two are at least 20 apart (1976 colour difference; 2.3 is just noticeable) for normal vision and for
protanopia and deuteranopia as Machado, Oliveira and Fernandes (2009, doi 10.1109/TVCG.2009.113) simulate them.
"""

from __future__ import annotations

from typing import Any

TOKEN_COLOURS = (
    "#96F0FF",
    "#C3873C",
    "#C3F0D2",
    "#7887FF",
    "#FFE14B",
    "#7896B4",
    "#D2D296",
    "#969669",
    "#78C3FF",
    "#C3A500",
    "#87B4A5",
    "#E1E178",
)


def token_colour(index: int) -> str:
    """The colour of a token id as `#RRGGBB`.

    Example:
        >>> token_colour(26) == token_colour(26 + len(TOKEN_COLOURS))
        True
    """
    return TOKEN_COLOURS[int(index) % len(TOKEN_COLOURS)]


def is_same_colour(ids: Any) -> Any:
    """For each token of an integer array (tokens,) and the next, whether both have one colour: bool (tokens - 1,)."""
    places = ids % len(TOKEN_COLOURS)
    return places[1:] == places[:-1]
