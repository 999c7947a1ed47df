"""The prepared folder: read once, refused with a reason, written whole or not at all, given back exactly."""

import filecmp
import json
import os
import shutil
import signal as signals_of_unix
from types import SimpleNamespace

import numpy as np
import pytest

from ecgbyte_hf.data import preparation as module
from ecgbyte_hf.data.preparation import RecordSource, prepare
from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.simulator import simulate_records
from ecgbyte_hf.data.sources import prepare_synthetic
from ecgbyte_hf.data.workers import in_order
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor
from ecgbyte_hf.signal import records

TWO = ("I", "aVF")


def question(sample_id, *ecg_ids):
    return {
        "sample_id": sample_id,
        "template_id": 1,
        "question_id": 1,
        "question_type": "single-verify",
        "attribute_type": "noise",
        "question": "Noise?",
        "answer": ["yes"],
        "ecg_id": list(ecg_ids),
        "attribute": None,
        "ecg_path": None,
    }


def source(ecg_id, signal, patient="p"):
    return RecordSource(ecg_id, None, patient, signal, 100.0, TWO)


def extractor(**changes):
    return EcgByteFeatureExtractor(**{"profile": "none", "sampling_rate": 100, "leads": TWO, **changes})


def simulated(count, samples=1000):
    made = simulate_records(count, duration=samples / 100, sampling_rate=100.0, leads=TWO)
    return {number: signal for number, _, signal in made}


def run(folder, sources, questions, **changes):
    settings = {
        "feature_extractor": extractor(),
        "template_options": {1: ["no", "yes"]},
        "duration": 10.0,
        "arguments": {},
        **changes,
    }
    return prepare(sources, questions, folder, **settings)


class TestRecords:
    def test_signals_come_back_exactly_and_in_any_order(self, tmp_path):
        made = simulated(150)  # more than two row groups
        prepared = run(tmp_path, (source(i, made[i], f"p{i}") for i in made), {"train": [question(1, 1)]})
        for ecg_id in (150, 1, 64, 65, 2):
            stored = prepared.signal(ecg_id)
            assert stored.dtype == np.float32 and stored.shape == (2, 1000)
            np.testing.assert_array_equal(stored, made[ecg_id])
        assert prepared.ecg_ids == list(range(1, 151))
        assert prepared.patients[77] == "p77"
        assert (prepared.sampling_rate, prepared.leads, prepared.splits) == (100.0, list(TWO), ["train"])
        with pytest.raises(EcgDataError, match="holds no record 151; it has 150"):
            prepared.signal(151)
        with pytest.raises(EcgDataError, match="no split 'test'; it has train"):
            prepared.questions("test")

    def test_signals_are_what_the_feature_extractor_returns(self, test_data, tmp_path):
        path = str(test_data / "ptbxl/records500/00000/00001_hr")
        reference = EcgByteFeatureExtractor()
        prepared = run(
            tmp_path, [RecordSource(1, path)], {"train": [question(1, 1)]}, feature_extractor=reference, duration=4.0
        )
        np.testing.assert_array_equal(prepared.signal(1), reference.clean(records.read_ecg(path))[:, :1000])
        assert prepared.report["records_cut_in_time"] == 1

    def test_each_record_is_read_once_however_many_questions(self, test_data, tmp_path, monkeypatch):
        read, cleaned = [], []
        real_read, real_clean = records.read_ecg, EcgByteFeatureExtractor.clean
        monkeypatch.setattr(records, "read_ecg", lambda path: read.append(path) or real_read(path))
        monkeypatch.setattr(
            EcgByteFeatureExtractor,
            "clean",
            lambda self, record: cleaned.append(record.name) or real_clean(self, record),
        )
        paths = {i: str(test_data / f"ptbxl/records500/00000/0000{i}_hr") for i in (1, 2, 3)}
        rows = [question(n, 1 + n % 3) for n in range(42)] + [question(100, 1, 2)]
        prepared = run(
            tmp_path,
            [RecordSource(i, path) for i, path in paths.items()],
            {"train": rows[:20], "test": rows[20:]},
            feature_extractor=EcgByteFeatureExtractor(),
        )
        assert read == list(paths.values()) and len(cleaned) == 3
        assert prepared.report["questions"] == {"train": 20, "test": 23}

    def test_a_record_that_comes_twice_is_an_error(self, tmp_path):
        signal = simulated(1)[1]
        with pytest.raises(EcgDataError, match="record 5 comes twice"):
            run(tmp_path, [source(5, signal), source(5, signal)], {})

    @pytest.mark.parametrize("duration", [0.0, -1.0, float("nan")])
    def test_a_duration_that_is_none(self, tmp_path, duration):
        with pytest.raises(EcgDataError, match="more than 0 s"):
            run(tmp_path, [], {}, duration=duration)


class TestRefusals:
    def test_are_lines_in_the_report_and_the_job_goes_on(self, test_data, tmp_path, caplog):
        broken = tmp_path / "broken"
        broken.mkdir()
        good = test_data / "ptbxl/records500/00000"
        for name in ("00001_hr", "00002_hr"):
            for ending in (".hea", ".dat"):
                shutil.copy(good / f"{name}{ending}", broken)
        (broken / "00002_hr.dat").unlink()
        mimic = next((test_data / "mimic_iv_ecg").rglob("40130031.hea"))
        flat = np.random.default_rng(0).normal(size=(12, 5000)).astype(np.float32)
        flat[3] = 0.25
        names = EcgByteFeatureExtractor().leads
        sources = [
            RecordSource(1, str(broken / "00001_hr")),
            RecordSource(2, str(broken / "00002_hr")),
            RecordSource(3, str(mimic.with_suffix(""))),
            RecordSource(4, None, None, flat, 500.0, names),
            RecordSource(5, str(broken / "absent")),
            RecordSource(6, None, None, flat[:6], 500.0, names[:6]),
            RecordSource(7, None, None, np.random.default_rng(1).normal(size=(12, 2000)), 500.0, names),
            RecordSource(8, None, None, np.random.default_rng(1).normal(size=(12, 5000)), 500.0, names),
        ]
        rows = [question(1, 1), question(2, 2), question(3, 3, 1), question(4, 8, 1), question(5, 99)]
        prepared = run(
            tmp_path / "out", sources, {"train": rows, "test": []}, feature_extractor=EcgByteFeatureExtractor()
        )
        assert prepared.ecg_ids == [1, 8]
        refused = {line["record"]: (line["error"], line["reason"]) for line in prepared.report["refused"]}
        assert [error for error, _ in refused.values()] == [
            "EcgFileError",
            "SignalError",
            "SignalError",
            "EcgFileError",
            "LeadError",
            "EcgDataError",
        ]
        assert "00002_hr.dat" in refused[str(broken / "00002_hr")][1]
        assert (
            "nan" in refused[str(mimic.with_suffix(""))][1].lower() and "V6" in refused[str(mimic.with_suffix(""))][1]
        )
        assert "flat" in refused["record 4"][1] and names[3] in refused["record 4"][1]
        assert "4.00 s long, 10 s are wanted" in refused["record 7"][1]
        assert [row["sample_id"] for row in prepared.questions("train")] == [1, 4]
        assert prepared.report["questions_without_their_record"] == {"train": 3, "test": 0}
        assert "6 records were refused" in caplog.text and "3 questions were left out" in caplog.text

    def test_allowed_by_name(self, tmp_path):
        signal = simulated(1)[1]
        signal[0] = 0.5
        prepared = run(tmp_path, [source(1, signal)], {}, feature_extractor=extractor(on_problem=["flat"]))
        assert prepared.report["refused"] == [] and prepared.preprocessor["on_problem"] == ["flat"]

    def test_no_record_left_is_an_error_with_the_reasons(self, tmp_path):
        with pytest.raises(EcgDataError, match=r"1 were refused: \{'SignalError': 1\}"):
            run(tmp_path, [source(1, np.zeros((2, 1000)))], {"train": []})
        with pytest.raises(EcgDataError, match="holds no report.json"):
            PreparedData(tmp_path)


class TestProcesses:
    def test_two_give_the_identical_folder(self, tmp_path):
        for folder, count in (("one", 1), ("two", 2)):
            prepare_synthetic(
                tmp_path / folder, feature_extractor=extractor(), num_records=100, num_proc=count, seed=1
            )
        comparison = filecmp.dircmp(tmp_path / "one", tmp_path / "two")
        names = [*comparison.common_files, "questions/train.parquet", "records/part-00000.parquet"]
        assert {"records/part-00000.parquet", "report.json", "preprocessor_config.json"} <= set(names)
        assert not comparison.left_only and not comparison.right_only
        assert filecmp.cmpfiles(tmp_path / "one", tmp_path / "two", names, shallow=False) == (names, [], [])

    def test_sources_are_not_read_far_ahead(self):
        asked = []

        class Pool:
            def submit(self, function, *arguments):
                return SimpleNamespace(result=lambda: function(*arguments))

        sources = (asked.append(number) or number for number in range(1000))
        made = in_order(Pool(), lambda chunk: [-number for number in chunk], sources, num_proc=2, chunk_size=16)
        assert next(made) == 0
        assert len(asked) <= 16 * 6
        assert list(made) == [-number for number in range(1, 1000)]

    def test_refusals_are_in_order_too(self, tmp_path):
        made = simulated(40)
        for number in (3, 20, 39):
            made[number][:] = 0.0
        for count in (1, 2):
            prepared = run(tmp_path / str(count), (source(i, made[i]) for i in made), {}, num_proc=count)
            assert [line["record"] for line in prepared.report["refused"]] == ["record 3", "record 20", "record 39"]

    def test_a_killed_worker_is_an_error_with_advice(self, tmp_path, monkeypatch):
        monkeypatch.setattr(module, "_clean_one", kill_this_process)
        with pytest.raises(EcgDataError, match="use fewer processes"):
            run(tmp_path, [source(1, None)], {}, num_proc=2)


def kill_this_process(*_):
    os.kill(os.getpid(), signals_of_unix.SIGKILL)


class TestOpening:
    @pytest.fixture
    def folder(self, small_prepared, tmp_path):
        return shutil.copytree(small_prepared.folder, tmp_path / "copy")

    @pytest.mark.parametrize("name", ["report.json", "preprocessor_config.json"])
    @pytest.mark.parametrize("content", ["{", "[]", b"\xff"])
    def test_malformed_json(self, folder, name, content):
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(EcgDataError, match=name):
            PreparedData(folder)

    def test_missing_and_truncated_files(self, folder):
        records_file = folder / "records" / "part-00000.parquet"
        records_file.write_bytes(records_file.read_bytes()[:1000])
        with pytest.raises(EcgDataError, match="part-00000.parquet cannot be read"):
            PreparedData(folder)
        records_file.unlink()
        with pytest.raises(EcgDataError, match="records holds no Parquet file"):
            PreparedData(folder)
        (folder / "preprocessor_config.json").unlink()
        with pytest.raises(EcgDataError, match="cannot read .*preprocessor_config.json"):
            PreparedData(folder)

    def test_another_cleaning_is_refused(self, small_prepared):
        small_prepared.check_processor(SimpleNamespace(feature_extractor=extractor()))
        small_prepared.check_processor(SimpleNamespace(feature_extractor=extractor(on_problem=["flat"])))
        for change, message in (
            ({"profile": "reference-low"}, "profile is 'none' here and 'reference-low' there"),
            ({"sampling_rate": 125}, "sampling_rate is 100 here and 125 there"),
            ({"leads": ["aVF", "I"]}, "leads is"),
        ):
            with pytest.raises(EcgDataError, match=message):
                small_prepared.check_processor(SimpleNamespace(feature_extractor=extractor(**change)))


class TestReport:
    def test_says_what_was_done(self, small_prepared):
        report = json.loads((small_prepared.folder / "report.json").read_text())
        assert report["records"] == 40 and report["refused"] == []
        assert report["questions"] == {"train": 540, "validation": 30, "test": 30}
        types = {"single-choose": 10, "single-query": 10, "single-verify": 10}
        assert report["question_types"]["test"] == types
        assert report["overlap"]["train/test"] == {"ecgs": [], "patients": []}
        assert report["provenance"]["arguments"]["seed"] == 3
        assert report["provenance"]["versions"]["numpy"] == np.__version__
        assert small_prepared.train_ecg_ids() == sorted({*range(1, 19), *range(21, 39)})

    def test_one_lead_asks_nothing_about_the_axis(self, tmp_path):
        leads = extractor(leads=["II"])
        prepared = prepare_synthetic(
            tmp_path, feature_extractor=leads, num_records=20, attributes=["rate", "st"], duration=5.0
        )
        assert {row["attribute_type"] for row in prepared.questions("train")} == {"rate", "st"}
        assert prepared.signal(1).shape == (1, 500)
        assert list(prepared.template_options()) and prepared.report["duration_seconds"] == 5.0
