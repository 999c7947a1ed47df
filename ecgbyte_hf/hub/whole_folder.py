"""Folders that are there whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError


def new_folder(folder: str | Path) -> Path:
    """A folder to write, if nothing is there.

    Raises:
        EcgFileError: something is, or it is the folder that the command was started in.
    """
    folder = Path(folder)
    if folder.resolve() == Path.cwd():  # which cannot be made anew under the feet of a shell
        raise EcgFileError(f"{folder} is the folder you are in; give --output a new folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise EcgFileError(f"{folder} is there and not empty; give --output a new folder")
    return folder


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Make a folder beside its place, and rename it once it is complete.

    Args:
        folder: As `new_folder` returned it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     with whole_folder(Path(place) / "out") as partial:
        ...         _ = (partial / "file").write_text("whole")
        ...     (Path(place) / "out" / "file").read_text()
        'whole'
    """
    folder = folder.resolve()  # an empty folder may be a link, which stays one
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a killed job
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            folder.rmdir()  # empty, as `new_folder` saw
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
