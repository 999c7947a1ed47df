"""The notebook is stored as it ran: its texts are those that it gives, and nothing of a machine is in it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "scripts" / "notebooks"
NOTEBOOK = FOLDER / "read_tokenise_ask.ipynb"


def code_cells(path):
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def texts(path):
    """What each cell shows, without figures."""
    shown = []
    for cell in code_cells(path):
        outputs = [one for one in cell["outputs"] if "image/png" not in one.get("data", {})]
        shown.append(["".join(one.get("text") or one["data"]["text/plain"]) for one in outputs])
    return shown


def pictures(path):
    return [one for cell in code_cells(path) for one in cell["outputs"] if "image/png" in one.get("data", {})]


def test_it_is_stored_with_what_it_shows():
    cells = code_cells(NOTEBOOK)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert len(pictures(NOTEBOOK)) == 2
    shown = "".join(text for cell in texts(NOTEBOOK) for text in cell)
    assert "largest error" in shown and "nats lost without the top 10 %" in shown and "report.html" in shown


def test_it_holds_nothing_of_a_machine():
    content = NOTEBOOK.read_text(encoding="utf-8")
    assert len(content) < 600_000
    without_pictures = re.sub(r'"image/png": "[^"]*"', "", content)
    assert not re.search(r"/tmp|/home|/root|/Users|site-packages|20\d\d-\d\d", without_pictures)
    stored = json.loads(content)
    assert stored["metadata"]["language_info"] == {"name": "python"}
    kinds = {
        (output["output_type"], output.get("name")) for cell in code_cells(NOTEBOOK) for output in cell["outputs"]
    }
    assert kinds <= {("stream", "stdout"), ("execute_result", None), ("display_data", None)}


@pytest.mark.slow
def test_it_shows_the_same_when_it_runs(tmp_path):
    """In a process of its own: the client's event loop and sockets warn where warnings are errors."""
    pytest.importorskip("nbclient")
    command = [sys.executable, str(FOLDER / "execute.py"), "--output", str(tmp_path / "made.ipynb")]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert texts(tmp_path / "made.ipynb") == texts(NOTEBOOK)
    assert len(pictures(tmp_path / "made.ipynb")) == len(pictures(NOTEBOOK))
