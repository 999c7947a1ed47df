"""What every result file carries, and how it is written."""

import json
import os
import stat
import sys

import numpy as np
import pytest

from ecgbyte_hf import provenance as module
from ecgbyte_hf.provenance import PACKAGES, provenance, versions, write_json, write_text


def test_versions(monkeypatch):
    found = versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["numpy"] == np.__version__
    assert set(found) == {"python", *PACKAGES}
    monkeypatch.setattr(module, "PACKAGES", ("surely-not-installed",))
    assert versions()["surely-not-installed"] is None


def test_provenance_is_plain_json(tmp_path):
    block = provenance("encode", {"folder": tmp_path, "seed": 3, "splits": ("a", "b")}, data_hash="x")
    assert block["command"] == "encode" and block["data_hash"] == "x"
    assert block["arguments"] == {"folder": str(tmp_path), "seed": 3, "splits": ["a", "b"]}
    assert json.loads(json.dumps(block)) == block


def test_json_comes_back(tmp_path):
    path = write_json(tmp_path / "new" / "a.json", {"b": [1, None], "a": "ü"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"b": [1, None], "a": "ü"}
    assert path.read_text().endswith("}\n")
    assert list(path.parent.iterdir()) == [path]


def test_a_broken_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = write_text(tmp_path / "a.txt", "old")

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(module.os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
def test_permissions_are_those_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        mode = stat.S_IMODE(write_text(tmp_path / "a.txt", "x").stat().st_mode)
    finally:
        os.umask(before)
    assert mode == 0o640


def test_line_ends_are_the_same_everywhere(tmp_path):
    assert write_text(tmp_path / "a.txt", "a\nb\n").read_bytes() == b"a\nb\n"
