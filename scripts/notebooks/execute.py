"""Execute the notebook from its first cell to its last and store it with what it shows.

Examples:
    python scripts/notebooks/execute.py
    python scripts/notebooks/execute.py --output trial.ipynb

Without --output the notebook itself is written. Needs `pip install -e ".[plot,test]"`. What differs from machine to
machine is left out: progress bars, warnings, times, and the version of Python.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).resolve().with_name("read_tokenise_ask.ipynb")
ROOT = NOTEBOOK.parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Execute, tidy, write."""
    description, _, examples = (__doc__ or "").partition("\n\n")
    options = argparse.ArgumentParser(
        description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--output", type=Path, default=NOTEBOOK, metavar="FILE", help="(default: the notebook itself)"
    )
    given = options.parse_args(arguments)
    import nbformat

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        execute(notebook, Path(folder))
    tidy(notebook)
    nbformat.write(notebook, given.output)
    return 0


def execute(notebook: Any, folder: Path) -> None:
    """Run all cells in a kernel that imports this checkout and writes below a folder."""
    from nbclient import NotebookClient

    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {name: str(folder / name) for name in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    own |= {"TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
    NotebookClient(notebook, timeout=300, kernel_name="python3", record_timing=False).execute(
        env={**os.environ, **own}, cwd=str(folder)
    )


def tidy(notebook: Any) -> None:
    """Leave out what is another machine's."""
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _is_kept(output)]


def _is_kept(output: Any) -> bool:
    is_log = output.output_type == "stream" and output.name == "stderr"
    return not is_log and "application/vnd.jupyter.widget-view+json" not in output.get("data", {})


if __name__ == "__main__":
    sys.exit(main())
