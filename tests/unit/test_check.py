"""What of a data set's tree is there."""

import json

import pytest
from data_set_folders import make_mimic, make_ptb_xl

from ecgbyte_hf.data.check import Finding, check_data_set, check_lines
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError


def lines(name, folder, **options):
    return check_lines(check_data_set(name, folder, **options))


def test_ptb_xl(tmp_path):
    make_ptb_xl(tmp_path)
    assert lines("ptb_xl", tmp_path) == (
        [
            "ok         ptbxl_database.csv: 20",
            "ok         scp_statements.csv: 1 of 1",
            "ok         reports: 20 of 20",
            "absent     records500: 0 of 20 (files of the table)",
            "ok         records100: 20 of 20",
        ],
        True,  # one of the two rates is enough
    )
    assert not lines("ptb_xl", tmp_path, sampling_rate=500)[1]
    make_ptb_xl(tmp_path, rate=500)
    assert lines("ptb_xl", tmp_path)[1]
    (tmp_path / "records500/00000/00003_hr.dat").unlink()
    (tmp_path / "records500/00000/00005_hr.hea").unlink()
    found, complete = lines("ptb_xl", tmp_path)
    assert "incomplete records500: 18 of 20 (files of the table)" in found and not complete
    (tmp_path / "scp_statements.csv").unlink()
    (finding,) = check_data_set("ptb_xl", tmp_path)
    assert not finding.complete and "scp_statements.csv belongs beside its table" in finding.problem
    assert str(finding).startswith("MISSING    ptbxl_database.csv: 0 (cannot read")


def test_real_folders(test_data):
    found, complete = lines("ptb_xl", test_data / "ptbxl", metadata=["ptbxl_database_extra_rows.csv"])
    assert "incomplete records500: 165 of 685 (files of the table)" in found and not complete
    assert lines("ptb_xl", test_data / "ptbxl100")[0] == [
        "ok         labels.csv: 5000",
        "absent     records500: 0 of 5000 (files of the table)",
        "ok         records100: 5000 of 5000",
    ]
    assert lines("mimic_iv_ecg", test_data / "mimic_iv_ecg")[1]
    found, complete = lines("ecg_qa", test_data / "ecg_qa/ecgqa")
    assert "ok         ptbxl/template/train/*.json: 2" in found and not complete
    assert "MISSING    mimic-iv-ecg/template/train/*.json: 0" in found


def test_mimic_iv_ecg(tmp_path):
    make_mimic(tmp_path, 4, signals=True)
    assert lines("mimic_iv_ecg", tmp_path) == (
        [
            "ok         record_list.csv: 4",
            "ok         machine_measurements.csv: 1 of 1",
            "ok         files: 4 of 4",
        ],
        True,
    )
    next(tmp_path.rglob("*.dat")).unlink()
    assert "incomplete files: 3 of 4 (files of the table)" in lines("mimic_iv_ecg", tmp_path)[0]
    (tmp_path / "machine_measurements.csv").unlink()
    found, complete = lines("mimic_iv_ecg", tmp_path, record_list="other.csv")
    assert found[0].startswith("MISSING    other.csv: 0 (cannot read") and not complete
    assert found[1] == "MISSING    machine_measurements.csv: 0 of 1"


def test_ecg_chat(tmp_path):
    assert lines("ecg_chat", tmp_path) == (["MISSING    pretrain_mimic.json: 0 of 1"], False)
    (tmp_path / "pretrain_mimic.json").write_text(json.dumps([]))
    assert lines("ecg_chat", tmp_path)[1]


def test_what_cannot_be_checked(tmp_path):
    with pytest.raises(
        EcgDataError, match="unknown data set 'synthetic'; these have files to check: ecg_chat, ecg_qa"
    ):
        check_data_set("synthetic", tmp_path)
    with pytest.raises(EcgDataError, match="absent is no folder"):
        check_data_set("ptb_xl", tmp_path / "absent")


@pytest.mark.parametrize(
    ("found", "expected", "problem", "complete"),
    [(3, 3, "", True), (2, 3, "", False), (1, None, "", True), (0, None, "", False), (3, 3, "damaged", False)],
)
def test_complete(found, expected, problem, complete):
    assert Finding("part", found, expected, True, problem).complete is complete
