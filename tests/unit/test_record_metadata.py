"""Age, sex, device and site: read from PTB-XL's table, kept with the records, given back by ECG and by window."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from data_set_folders import make_ptb_xl, ptb_xl_row, write_table

from ecgbyte_hf.data.preparation import RecordSource, prepare
from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.record_metadata import read_ptb_xl_metadata
from ecgbyte_hf.data.sources import prepare_ecg_qa, prepare_ptb_xl
from ecgbyte_hf.data.windows import WindowedData
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor

OLD = {"age": 90.0, "sex": "male", "device": "CS-12", "site": "2"}


def extractor():
    return EcgByteFeatureExtractor(profile="none", sampling_rate=100, leads=["II"])


def question(ecg_id):
    return {"sample_id": ecg_id, "question_type": "report", "ecg_id": [ecg_id], "answer": ["normal"]}


def run(folder, metadata, **options):
    signals = np.random.default_rng(0).normal(size=(3, 1, 1000))
    signals[1, 0, 5] = np.nan  # refused
    sources = [RecordSource(7 + n, None, "p", signal, 100.0, ("II",)) for n, signal in enumerate(signals)]
    return prepare(
        sources,
        {"test": [question(7), question(9)]},
        folder,
        feature_extractor=extractor(),
        template_options={},
        duration=10.0,
        arguments={},
        metadata=metadata,
        **options,
    )


class TestTable:
    def test_ptb_xl_columns(self, tmp_path):
        rows = [
            ptb_xl_row(1, age="300.0", sex="0", device=" CS-12 ", site="2.0"),
            ptb_xl_row(2, age="", sex="1.0", device="", site="abc"),
            ptb_xl_row(3, age="", sex="", device="", site=""),
        ]
        write_table(tmp_path / "t.csv", rows)
        assert read_ptb_xl_metadata([tmp_path / "t.csv"]) == {
            1: OLD,
            2: {"age": None, "sex": "female", "device": None, "site": "abc"},
        }

    def test_a_table_without_these_columns(self, tmp_path):
        write_table(tmp_path / "labels.csv", [{"ecg_id": 1, "patient_id": 2}])
        assert read_ptb_xl_metadata([tmp_path / "labels.csv"]) == {}

    @pytest.mark.parametrize(
        "changes, message",
        [({"sex": "2"}, "line 2: sex is '2'"), ({"age": "old"}, "age is 'old'"), ({"age": "-1"}, "age is '-1'")],
    )
    def test_what_is_none(self, tmp_path, changes, message):
        write_table(tmp_path / "t.csv", [ptb_xl_row(1, **changes)])
        with pytest.raises(EcgDataError, match=message):
            read_ptb_xl_metadata([tmp_path / "t.csv"])


class TestPrepared:
    def test_it_comes_back_without_refused_records(self, tmp_path):
        known = {7: OLD, 8: OLD, 9: {**OLD, "age": None}, 10: OLD}
        prepared = run(tmp_path, known)
        assert prepared.metadata() == {7: OLD, 9: {**OLD, "age": None}}
        assert prepared.ecg_ids == [7, 9]

    def test_windows_have_that_of_their_record(self, tmp_path):
        run(tmp_path, {9: OLD})
        assert WindowedData(tmp_path, 5.0).metadata() == {18: OLD, 19: OLD}

    def test_nothing_known_leaves_no_file(self, tmp_path):
        prepared = run(tmp_path, None)
        assert prepared.metadata() == {} and not (tmp_path / "metadata.parquet").exists()

    def test_another_metadata_is_another_job(self, tmp_path):
        run(tmp_path, {7: OLD})
        with pytest.raises(EcgDataError, match="another job"):
            run(tmp_path, {7: {**OLD, "age": 50.0}})
        prepared = run(tmp_path, None, overwrite=True)
        assert prepared.metadata() == {} and not (tmp_path / "metadata.parquet").exists()

    def test_a_lost_file_is_seen(self, tmp_path):
        run(tmp_path, {7: OLD})
        (tmp_path / "metadata.parquet").unlink()
        with pytest.raises(EcgDataError, match="not all the files"):
            run(tmp_path, {7: OLD})

    def test_a_damaged_file(self, tmp_path):
        run(tmp_path, {7: OLD})
        (tmp_path / "metadata.parquet").write_bytes(b"PAR1")
        with pytest.raises(EcgDataError, match="is damaged"):
            PreparedData(tmp_path).metadata()


class TestBuilders:
    def test_ptb_xl_labels(self, tmp_path):
        rows = [ptb_xl_row(n, patient_id=f"{n}.0", age=str(40 + n), sex=str(n % 2), site="3.0") for n in range(1, 11)]
        make_ptb_xl(tmp_path / "ptbxl", rows=rows)
        prepared = prepare_ptb_xl(
            tmp_path / "p",
            data_dir=tmp_path / "ptbxl",
            sampling_rate=100,
            questions="labels",
            feature_extractor=extractor(),
        )
        known = prepared.metadata()
        assert list(known) == list(range(1, 11))
        assert known[3] == {"age": 43.0, "sex": "female", "device": "CS-12   E", "site": "3"}
        assert pq.read_table(tmp_path / "p" / "metadata.parquet").column_names[:3] == ["ecg_id", "age", "sex"]

    def test_ecg_qa_on_ptb_xl(self, test_data, tmp_path):
        prepared = prepare_ecg_qa(
            tmp_path,
            data_dir=test_data / "ecg_qa/ecgqa",
            signals_dir=test_data / "ptbxl",
            feature_extractor=EcgByteFeatureExtractor(profile="none", sampling_rate=500, leads=["II"]),
        )
        known = prepared.metadata()
        # The table at hand has the records up to 500.
        assert sorted(known) == [ecg_id for ecg_id in prepared.ecg_ids if ecg_id <= 500] and len(known) > 100
        assert (known[2]["age"], known[2]["sex"], known[2]["device"]) == (19.0, "male", "CS-12   E")
