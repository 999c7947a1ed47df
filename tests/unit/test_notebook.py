"""The notebook runs from its first cell to its last, and shows what it says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "scripts" / "notebooks" / "read_tokenise_ask.ipynb"
# In a process of its own: the client's event loop and sockets warn where warnings are errors.
RUN = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


def test_it_is_stored_without_outputs():
    # They would hold folders of the machine that made them.
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.slow
def test_it_runs(tmp_path):
    pytest.importorskip("nbclient")
    jupyter = {name: str(tmp_path / name) for name in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-c", RUN, str(NOTEBOOK), str(tmp_path / "made.ipynb")]
    environment = {**os.environ, **jupyter, "PYTHONPATH": path, "TMPDIR": str(tmp_path)}
    finished = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    cells = json.loads((tmp_path / "made.ipynb").read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 2
    texts = "".join("".join(output.get("text", "")) for output in outputs)
    assert "largest error" in texts and "nats lost without the top 10 %" in texts and "report.html" in texts
