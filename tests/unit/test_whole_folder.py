"""Folders that are there whole or not at all."""

import pytest

from ecgbyte_hf.hub.whole_folder import new_folder, whole_folder
from ecgbyte_hf.models.errors_ecg_byte import EcgFileError


def test_the_folder_one_is_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (".", "", str(tmp_path), "x/.."):
        with pytest.raises(EcgFileError, match="is the folder you are in; give --output a new folder"):
            new_folder(name)
    with whole_folder(new_folder("out")) as partial:
        (partial / "file").write_text("whole")
    assert (tmp_path / "out/file").read_text() == "whole"
    with pytest.raises(EcgFileError, match="out is there and not empty"):
        new_folder("out")


def test_a_link_to_an_empty_folder(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    with whole_folder(new_folder(tmp_path / "out")) as partial:
        (partial / "file").write_text("whole")
    assert (tmp_path / "out").is_symlink() and (tmp_path / "disk/file").read_text() == "whole"


def test_nothing_is_left_of_a_failure(tmp_path):
    with pytest.raises(ZeroDivisionError), whole_folder(new_folder(tmp_path / "out")) as partial:
        (partial / "file").write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
