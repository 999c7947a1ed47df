"""What holds for every builder: streams, processes, the cache, and Parquet that needs no code of ours."""

import json
import os

import datasets
import numpy as np
import pytest
from data_set_folders import make_mimic, make_ptb_xl, mimic_rows

import ecgbyte_hf
from ecgbyte_hf.data import BUILDERS
from ecgbyte_hf.data.builder import CarriedError, own_error
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError


def make_ecg_qa(folder):
    for number in range(6):
        items = [
            {
                "template_id": 1,
                "question_id": 2,
                "sample_id": number * 10 + index,
                "question_type": "single-verify",
                "attribute_type": "noise",
                "question": "Is there noise?",
                "answer": ["yes"],
                "ecg_id": [number],
                "attribute": None,
            }
            for index in range(3)
        ]
        path = folder / "ptbxl/template" / ("test" if number == 5 else "train") / f"{number}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(items))


def make_ecg_chat(folder, num_items=40):
    folder.mkdir(exist_ok=True)
    turns = [{"from": "human", "value": "<ecg>\nWhat is it?"}, {"from": "gpt", "value": "Sinus rhythm."}]
    items = []
    for n in range(num_items):
        listed, _ = mimic_rows(40_000_000 + n, 10_000_000 + n)
        items.append({"ecg": listed["path"], "conversations": turns * (1 + n % 2)})
    (folder / "pretrain_mimic.json").write_text(json.dumps(items))


def records_of_mimic(folder):
    make_mimic(folder, signals=True)


def as_lists(row):
    """A stream hands over arrays as they are made."""
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in row.items()}


# Name, configuration, folder, a file that the rows depend on.
CASES = {
    "ptb_xl-records100": ("ptb_xl", "records100", make_ptb_xl, "records100/00000/00003_lr.hea"),
    "ptb_xl-metadata": ("ptb_xl", "metadata", make_ptb_xl, "ptbxl_database.csv"),
    "ptb_xl-reports": ("ptb_xl", "reports", make_ptb_xl, "scp_statements.csv"),
    "mimic_iv_ecg-records": (
        "mimic_iv_ecg",
        "records",
        records_of_mimic,
        "files/p1000/p10000003/s40000007/40000007.dat",
    ),
    "mimic_iv_ecg-metadata": ("mimic_iv_ecg", "metadata", make_mimic, "machine_measurements.csv"),
    "mimic_iv_ecg-reports": ("mimic_iv_ecg", "reports", make_mimic, "record_list.csv"),
    "ecg_qa": ("ecg_qa", "ptbxl-template", make_ecg_qa, "ptbxl/template/train/3.json"),
    "ecg_chat": ("ecg_chat", "pretrain_mimic", make_ecg_chat, "pretrain_mimic.json"),
}


@pytest.fixture(params=CASES)
def case(request, tmp_path, monkeypatch):
    """A data set of several units, so that processes have something to share."""
    for module in ("ptb_xl", "mimic_iv_ecg", "ecg_chat"):
        monkeypatch.setattr(f"ecgbyte_hf.data.{module}.SHARD", 4)
    name, config, make, file = CASES[request.param]
    folder = tmp_path / "source"
    make(folder)

    def load(cache="cache", **options):
        return ecgbyte_hf.load_dataset(name, config, data_dir=folder, cache_dir=str(tmp_path / cache), **options)

    return load, folder / file


def test_a_stream_and_two_processes_give_the_same_rows(case):
    load, _ = case
    built, shared = load(), load(num_proc=2, cache="shared")
    assert {split: rows.to_list() for split, rows in shared.items()} == {k: v.to_list() for k, v in built.items()}
    assert len(shared["train"].cache_files) == 2 and len(built["train"].cache_files) == 1
    streamed = load(streaming=True)
    assert set(streamed) == set(built) and sum(len(rows) for rows in built.values()) >= 18
    for split, rows in built.items():
        assert streamed[split].features == rows.features
        assert [as_lists(row) for row in streamed[split]] == rows.to_list()


def test_nothing_is_built_twice_and_a_changed_file_is_seen(case):
    load, file = case
    first = load()
    assert load()["train"].cache_files == first["train"].cache_files
    os.utime(file, ns=(1, 1))
    again = load()
    assert again["train"].cache_files != first["train"].cache_files
    assert again["train"].to_list() == first["train"].to_list()
    before = file.read_bytes()
    file.unlink()
    if file.suffix == ".json" and file.name != "pretrain_mimic.json" or file.suffix in (".hea", ".dat"):
        file.with_suffix(".hea").unlink(missing_ok=True)
        rows = load()
        assert sum(map(len, rows.values())) < sum(map(len, first.values()))
    else:
        with pytest.raises(EcgDataError, match=file.name):
            load()
    file.write_bytes(before)


def test_parquet_needs_no_code_of_ours(case, tmp_path):
    load, _ = case
    rows = load(split="train")
    rows.to_parquet(tmp_path / "train.parquet")
    read = datasets.load_dataset("parquet", data_files=str(tmp_path / "train.parquet"), split="train")
    assert read.features == rows.features
    assert read.to_list() == rows.to_list()
    if "signal" in rows.features:
        assert rows.features["signal"] == datasets.Array2D(rows.features["signal"].shape, "int16")
        plain = read.with_format("numpy", columns=["signal"], dtype=np.int16)[0]["signal"]
        assert plain.dtype == np.int16 and plain.shape == rows.features["signal"].shape
        assert (plain == np.array(rows[0]["signal"])).all()


def test_an_error_of_ours_survives_a_process():
    error = EcgDataError("line 3 is damaged")
    assert own_error(CarriedError(str(error), error)) is error
    wrapped = ValueError("wrapped")
    wrapped.__cause__ = CarriedError(str(error), error)
    assert own_error(wrapped) is error
    assert own_error(ValueError("another")) is None and own_error(None) is None


def test_options_that_a_builder_does_not_have(tmp_path):
    for name in BUILDERS:
        with pytest.raises(EcgDataError, match=f"{name} has no configuration 'absent'; choose one of "):
            ecgbyte_hf.load_dataset(name, "absent", data_dir=tmp_path)
    make_ptb_xl(tmp_path, 2)
    with pytest.raises(EcgDataError, match="ptb_xl has no option colour"):
        ecgbyte_hf.load_dataset("ptb_xl", "metadata", data_dir=tmp_path, colour="red")
    with pytest.raises(EcgDataError, match="synthetic has no option colour; known: num_records, seed"):
        ecgbyte_hf.load_dataset("synthetic", "labels", colour="red")


def test_slices_and_splits(tmp_path):
    make_ptb_xl(tmp_path)
    rows = ecgbyte_hf.load_dataset("ptb_xl", "metadata", data_dir=tmp_path, split="train[:3]")
    assert rows["ecg_id"][:] == [1, 2, 3]
    everything = ecgbyte_hf.load_dataset("ptb_xl", "metadata", data_dir=tmp_path, split="train+validation+test")
    assert len(everything) == 20
    with pytest.raises(EcgDataError, match="no rows in the split 'dev' here; it has train, validation, test"):
        ecgbyte_hf.load_dataset("ptb_xl", "metadata", data_dir=tmp_path, split="dev")
    with pytest.raises(EcgDataError, match="no rows in the split 'dev' here"):
        ecgbyte_hf.load_dataset("ptb_xl", "metadata", data_dir=tmp_path, split="dev", streaming=True)
