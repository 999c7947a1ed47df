"""Weights that cannot be read are refused in one line that names them, whoever reads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors_ecg_byte import EcgFileError


@contextmanager
def refuse_damaged_weights(name: Any) -> Iterator[None]:
    """Turn what safetensors says of a damaged file into an `EcgFileError`.

    Args:
        name: The folder, or the name on the Hub, that is being loaded.

    Raises:
        EcgFileError: a file of weights is cut short, or is none.
    """
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        reason = " ".join(str(error).split())
        raise EcgFileError(
            f"{name}: its weights cannot be read ({reason}); a file of them is truncated or damaged: save or download "
            "it again"
        ) from error
