"""One colour for every token id, the same in every figure of every tokenizer, and no two neighbours alike.

Nobody tells hundreds of colours apart, so there are twelve, and figures name tokens by their numbers where there is
room. Where a token and the one before it would have the same colour, the second has its darker shade, and the third
the colour again.

The twelve were found by a farthest-point search over sRGB (lightness J' from 60 up, so that a black trace is seen on
them, colourfulness M' to 30, at least 8 from the paper's white); the shades are the same at a lightness of 42. Any two
colours, and any colour and any shade, are at least 13 apart in CAM02-UCS, where 1 is about just noticeable, for normal
vision and for protanopia, deuteranopia and tritanopia as Machado, Oliveira and Fernandes (2009, doi
10.1109/TVCG.2009.113) simulate them; behind the trace, half white, at least 6.
"""

from __future__ import annotations

from typing import Any

import numpy as np

TOKEN_COLOURS = (
    "#B4F0FF",
    "#A5875A",
    "#D2B4FF",
    "#4BA596",
    "#FFF069",
    "#8787B4",
    "#4BD2C3",
    "#D28700",
    "#D2F0B4",
    "#B487FF",
    "#D2C33C",
    "#A5C387",
)
#: The darker shade of each.
TOKEN_SHADES = (
    "#4A6369",
    "#6E5A3C",
    "#65577B",
    "#306A60",
    "#655F2A",
    "#5B5B7A",
    "#266B63",
    "#805200",
    "#56624A",
    "#6A5096",
    "#665F1D",
    "#546345",
)


def token_colour(index: int) -> str:
    """The colour of a token id as `#RRGGBB`.

    Example:
        >>> token_colour(26) == token_colour(26 + len(TOKEN_COLOURS))
        True
    """
    return TOKEN_COLOURS[int(index) % len(TOKEN_COLOURS)]


def is_shaded(ids: Any) -> np.ndarray:
    """Which tokens of a sequence have the darker shade of their colour: bool (tokens,).

    Args:
        ids: Integers (tokens,), one after another as they were read.

    Example:
        >>> is_shaded([7, 7, 7, 8, 20, 7]).tolist()
        [False, True, False, False, True, False]
    """
    places = np.asarray(ids, dtype=np.int64) % len(TOKEN_COLOURS)
    numbers = np.arange(len(places))
    begins = np.concatenate(([True], places[1:] != places[:-1]))[: len(places)]
    first = np.maximum.accumulate(np.where(begins, numbers, 0))
    return np.asarray((numbers - first) % 2 == 1)


def neighbour_colours(ids: Any) -> list[str]:
    """The colour of each token of a sequence, of which no two neighbours have the same.

    Args:
        ids: Integers (tokens,), one after another as they were read.

    Example:
        >>> neighbour_colours([0, 12, 0, 1])
        ['#B4F0FF', '#4A6369', '#B4F0FF', '#A5875A']
    """
    palettes = (TOKEN_COLOURS, TOKEN_SHADES)
    pairs = zip(ids, is_shaded(ids), strict=True)
    return [palettes[int(shaded)][int(index) % len(TOKEN_COLOURS)] for index, shaded in pairs]


def number_colour(colour: str) -> str:
    """Black or white, what can be read on a colour of a token."""
    return "#FFFFFF" if colour in TOKEN_SHADES else "#000000"
