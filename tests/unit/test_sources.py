"""`prepare` of each data set on real files: which records, which questions, which splits."""

import json
import re

import numpy as np
import pytest

from ecgbyte_hf import cli
from ecgbyte_hf.data import load_dataset
from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.questions import QUESTION_FEATURES, question_table
from ecgbyte_hf.data.sources import (
    HELD_OUT_SPLIT,
    Division,
    prepare_ecg_chat,
    prepare_ecg_qa,
    prepare_mimic_iv_ecg,
    prepare_ptb_xl,
)
from ecgbyte_hf.data.splits import split_of_fold, split_of_patient
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor
from ecgbyte_hf.signal.records import read_ecg


@pytest.fixture
def bare():
    """Reads and orders the leads, so that a record takes no time."""
    return EcgByteFeatureExtractor(profile="none", sampling_rate=500)


@pytest.fixture(scope="module")
def reports(test_data, tmp_path_factory):
    return prepare_ptb_xl(
        tmp_path_factory.mktemp("ptb_xl") / "prepared",
        data_dir=test_data / "ptbxl",
        metadata=[test_data / "ptbxl/ptbxl_database_extra_rows.csv"],
        feature_extractor=EcgByteFeatureExtractor(profile="none", sampling_rate=500),
    )


class TestPtbXl:
    def test_every_record_at_hand_with_its_report(self, reports, test_data):
        assert reports.report["records"] == len(reports.ecg_ids) == 165  # of 180, 15 have no report in the tables
        rows = {row["ecg_id"][0]: row for split in reports.splits for row in reports.questions(split)}
        assert set(rows) == set(reports.ecg_ids)
        assert rows[1]["answer"] == ["sinusrhythmus periphere niederspannung"]
        assert rows[1]["question"] == "Could you please help me explain my ECG?"
        record = read_ecg(test_data / "ptbxl/records500/00000/00001_hr")
        order = [record.lead_names.index(name) for name in ("I", "II", "III", "AVL", "AVR", "AVF")]
        np.testing.assert_array_equal(reports.signal(1)[:6], record.signal[order].astype(np.float32))

    def test_splits_are_the_folds(self, reports, test_data):
        metadata = load_dataset(
            "ptb_xl", "metadata", data_dir=test_data / "ptbxl", metadata=["ptbxl_database_extra_rows.csv"]
        )
        fold = {row["ecg_id"]: row["strat_fold"] for rows in metadata.values() for row in rows}
        for split in reports.splits:
            assert {split_of_fold(fold[row["ecg_id"][0]]) for row in reports.questions(split)} == {split}
        for pair, shared in reports.report["overlap"].items():
            if pair != "unknown_patients":
                assert shared == {"ecgs": [], "patients": []}, pair

    def test_labels_at_100_hz(self, test_data, tmp_path):
        prepared = prepare_ptb_xl(
            tmp_path,
            data_dir=test_data / "ptbxl100",
            sampling_rate=100,
            questions="labels",
            division=Division(fraction=0.02, seed=3),
            feature_extractor=EcgByteFeatureExtractor(profile="none", sampling_rate=100),
        )
        assert prepared.splits == ["train", "validation"]  # the folder has no fold 10
        assert 60 < prepared.report["records"] < 140
        assert prepared.signal(prepared.ecg_ids[0]).shape == (12, 1000)
        rows = [row for split in prepared.splits for row in prepared.questions(split)]
        assert len(rows) == 5 * len({row["ecg_id"][0] for row in rows})
        metadata = load_dataset("ptb_xl", "metadata", data_dir=test_data / "ptbxl100")
        labels = {row["ecg_id"]: row["superclass"] for split in metadata.values() for row in split}
        for row in rows:
            assert (row["answer"] == ["yes"]) == (row["attribute"][0] in labels[row["ecg_id"][0]])
            assert prepared.template_options()[row["template_id"]] == ["no", "yes"]
        assert prepared.report["questions_outside_fraction"]["train"] > 15_000

    def test_the_papers_folds(self, test_data, tmp_path, bare):
        prepared = prepare_ptb_xl(
            tmp_path, data_dir=test_data / "ptbxl", division=Division(splits="reference"), feature_extractor=bare
        )
        assert set(prepared.splits) == {"train", "validation", "test"}
        assert prepared.report["splits"] == "reference" and prepared.report["folds"]["test"] == [9, 10]
        assert prepared.report["provenance"]["arguments"]["division"]["splits"] == "reference"

    def test_reports_in_english(self, test_data, tmp_path, bare, monkeypatch):
        """What the model is, and that it translates, is tested in test_translation.py."""
        from ecgbyte_hf.data import ptb_xl

        asked = []

        class Translator:
            def __init__(self, model, **options):
                asked.append(model)

            def translate(self, texts):
                return [f"english: {text}" for text in texts]

        monkeypatch.setattr(ptb_xl, "ReportTranslator", Translator)
        prepared = prepare_ptb_xl(
            tmp_path, data_dir=test_data / "ptbxl", translation_model="some/model", feature_extractor=bare
        )
        answers = [row["answer"][0] for split in prepared.splits for row in prepared.questions(split)]
        assert asked == ["some/model"] and all(text.startswith("english: ") for text in answers)
        assert "english: sinusrhythmus periphere niederspannung" in answers

    def test_other_rates_and_questions(self, test_data, tmp_path, bare):
        for change in ({"sampling_rate": 250}, {"questions": "forms"}):
            with pytest.raises(EcgDataError, match="expected 500 or 100 and 'reports' or 'labels'"):
                prepare_ptb_xl(tmp_path, data_dir=test_data / "ptbxl", feature_extractor=bare, **change)


@pytest.fixture(scope="module")
def prepared(test_data, tmp_path_factory):
    return prepare_mimic_iv_ecg(
        tmp_path_factory.mktemp("mimic") / "prepared",
        data_dir=test_data / "mimic_iv_ecg",
        feature_extractor=EcgByteFeatureExtractor(profile="none", sampling_rate=500),
    )


class TestMimic:
    def test_every_record_but_the_one_with_nan(self, prepared):
        assert prepared.report["records"] == 69
        (refused,) = prepared.report["refused"]
        assert refused["ecg_id"] == 40130031 and "5 in V6" in refused["reason"]

    def test_by_patient(self, prepared):
        for split in prepared.splits:
            for row in prepared.questions(split):
                assert split_of_patient(prepared.patients[row["ecg_id"][0]]) == split
                assert row["question_type"] == "report" and row["answer"][0]

    def test_leads_are_found_by_name(self, prepared, test_data):
        """MIMIC-IV-ECG has aVR, aVF, aVL in this order, PTB-XL aVR, aVL, aVF: the reference takes both alike."""
        path = next((test_data / "mimic_iv_ecg").rglob("44326091.hea")).with_suffix("")
        record = read_ecg(path)
        for lead in ("aVL", "aVR", "aVF"):
            stored = prepared.signal(44326091)[prepared.leads.index(lead)]
            np.testing.assert_array_equal(stored, record.signal[record.lead_names.index(lead)].astype(np.float32))

    def test_patients_that_ecg_qa_tests_on(self, test_data, tmp_path, bare, prepared):
        study = prepared.questions("train")[0]["ecg_id"][0]
        patient = prepared.patients[study]
        (tmp_path / "ecgqa/mimic-iv-ecg").mkdir(parents=True)
        (tmp_path / "ecgqa/mimic-iv-ecg/test_ecgs.tsv").write_text(f"0\t{study}\n")
        again = prepare_mimic_iv_ecg(
            tmp_path / "out",
            data_dir=test_data / "mimic_iv_ecg",
            ecg_qa_dir=tmp_path / "ecgqa",
            feature_extractor=bare,
        )
        where = {ecg_id: split for split in again.splits for row in again.questions(split) for ecg_id in row["ecg_id"]}
        assert {where[ecg_id] for ecg_id in again.ecg_ids if again.patients[ecg_id] == patient} == {"test"}


def test_ecg_chat(test_data, tmp_path, bare):
    paths = sorted(path.with_suffix("") for path in (test_data / "mimic_iv_ecg/files").rglob("*.hea"))[:20]
    conversations = [
        {
            "ecg": str(path.relative_to(test_data / "mimic_iv_ecg")),
            "conversations": [
                {"from": "human", "value": "<ecg>\nWhat is the rhythm?"},
                {"from": "gpt", "value": f"Rhythm of {path.name}."},
            ],
        }
        for path in paths
    ]
    (tmp_path / "pretrain_mimic.json").write_text(json.dumps(conversations))
    prepared = prepare_ecg_chat(
        tmp_path / "prepared", data_dir=tmp_path, signals_dir=test_data / "mimic_iv_ecg", feature_extractor=bare
    )
    rows = [row for split in prepared.splits for row in prepared.questions(split)]
    assert {row["ecg_id"][0]: row["answer"] for row in rows} == {
        int(path.name): [f"Rhythm of {path.name}."] for path in paths if path.name not in ("40130031",)
    }
    for split in prepared.splits:
        for row in prepared.questions(split):
            assert split_of_patient(prepared.patients[row["ecg_id"][0]]) == split


class TestEcgQaOnMimic:
    def test_a_comparison_of_two_records(self, test_data, tmp_path, bare):
        item = {
            "template_id": 1,
            "question_id": 2,
            "question_type": "comparison_consecutive-verify",
            "attribute_type": "noise",
            "question": "Is it new?",
            "answer": ["yes"],
            "attribute": ["noise"],
        }
        studies = [int(path.stem) for path in sorted((test_data / "mimic_iv_ecg/files").rglob("*.hea"))]
        studies.remove(40130031)
        items = [{**item, "sample_id": 0, "ecg_id": studies[:2]}, {**item, "sample_id": 1, "ecg_id": [1, studies[2]]}]
        folder = tmp_path / "mimic-iv-ecg"
        (folder / "template/train").mkdir(parents=True)
        (folder / "template/train/0.json").write_text(json.dumps(items))
        (folder / "answers_for_each_template.csv").write_text("template_id,classes\n1,\"['no', 'yes']\"\n")
        prepared = prepare_ecg_qa(
            tmp_path / "prepared",
            data_dir=tmp_path,
            signals_dir=test_data / "mimic_iv_ecg",
            config="mimic-iv-ecg-template",
            feature_extractor=bare,
        )
        assert [row["ecg_id"] for row in prepared.questions("train")] == [studies[:2]]
        assert prepared.ecg_ids == sorted(studies[:3])
        assert prepared.report["records_not_there"] == 1
        assert prepared.report["questions_without_their_record"] == {"train": 1}
        assert None not in prepared.patients.values()


class TestDivision:
    PATIENTS = {number: str(number // 2) for number in range(200)}

    @staticmethod
    def table(ecg_ids, question_type="single-verify"):
        rows = [
            {**dict.fromkeys(QUESTION_FEATURES), "sample_id": n, "question_type": question_type, "ecg_id": ids}
            for n, ids in enumerate(ecg_ids)
        ]
        return question_table(rows)

    def test_shared_patients_leave_training(self, caplog):
        tables = {"train": self.table([[0], [2], [2, 4]]), "test": self.table([[1], [5]])}
        divided, notes = Division().apply(tables, self.PATIENTS)
        assert [divided[name]["ecg_id"].to_pylist() for name in ("train", "test")] == [[[2]], [[1], [5]]]
        assert notes["questions_of_patients_in_a_later_split"] == {"train": 2, "test": 0}
        assert "their patient is in a later split" in caplog.text
        as_published, notes = Division(splits="published").apply(tables, self.PATIENTS)
        assert as_published["train"].num_rows == 3 and "questions_of_patients_in_a_later_split" not in notes

    def test_the_papers_splits_mix_patients_and_say_so(self, caplog):
        tables = {"train": self.table([[n] for n in range(100)]), "test": self.table([[n] for n in range(100, 200)])}
        divided, _ = Division(splits="reference", seed=1).apply(tables, self.PATIENTS)
        assert {name: table.num_rows for name, table in divided.items()} == {
            "train": 140,
            "validation": 24,
            "test": 36,
        }
        assert "not comparable" in caplog.text

    def test_fraction_then_held_out(self):
        tables = {"train": self.table([[n] for n in range(200)] * 3)}
        divided, notes = Division(fraction=0.5, held_out_fraction=0.2, seed=2).apply(tables, self.PATIENTS)
        kept, held = (divided[name] for name in ("train", HELD_OUT_SPLIT))
        assert kept.num_rows + held.num_rows + notes["questions_outside_fraction"]["train"] == 600
        people = [{self.PATIENTS[ids[0]] for ids in table["ecg_id"].to_pylist()} for table in (kept, held)]
        assert not people[0] & people[1] and len(people[1]) == pytest.approx(10, abs=6)

    def test_types(self):
        tables = {"train": self.table([[0]]), "test": self.table([[3]], "comparison_irrelevant-query")}
        divided, _ = Division(question_types=("paper",)).apply(tables, self.PATIENTS)
        assert [divided[name].num_rows for name in ("train", "test")] == [1, 0]
        divided, _ = Division(question_types=["comparison_irrelevant-query"]).apply(tables, self.PATIENTS)
        assert [divided[name].num_rows for name in ("train", "test")] == [0, 1]

    @pytest.mark.parametrize("types", [["single-verif"], ["single-verify", "single-query"], []])
    def test_types_that_are_not_there(self, types):
        with pytest.raises(EcgDataError, match="those that are there: single-verify"):
            Division(question_types=types).apply({"train": self.table([[0]])}, {})

    def test_an_unknown_one(self):
        with pytest.raises(EcgDataError, match="expected one of disjoint, published, reference"):
            Division(splits="random").apply({}, {})


class TestCommand:
    def test_ptb_xl_and_its_check(self, test_data, tmp_path, capsys):
        command = ["prepare", "ptb_xl", "--data-dir", str(test_data / "ptbxl")]
        assert cli.main([*command, "--check"]) == 1
        out = capsys.readouterr().out
        assert re.search(r"incomplete\s+records500: 1\d\d of 500", out) and "scp_statements.csv: 1 of 1" in out
        labels = ("prepare", "ptb_xl", "--data-dir", str(test_data / "ptbxl100"), "--rate", "100", "--check")
        assert cli.main([*labels]) == 0  # records500 is not there, and not needed
        assert "records100: 5000 of 5000" in capsys.readouterr().out
        more = ["--output", str(tmp_path / "p"), "--fraction", "0.1", "--num-proc", "2", "--records-per-part", "16"]
        assert cli.main([*command, *more]) == 0
        assert "shared by train/test: 0 ECGs, 0 patients" in capsys.readouterr().out
        assert 5 <= len(PreparedData(tmp_path / "p").ecg_ids) < 40
        assert "records of the tables have no question" not in capsys.readouterr().out
        assert cli.main([*command, *more]) == 0
        assert "nothing was left to do" in capsys.readouterr().out
        assert cli.main([*command, *more, "--seed", "1"]) == 1
        assert "--overwrite" in capsys.readouterr().err

    def test_options_that_are_missing(self, capsys):
        for arguments in (
            ["mimic_iv_ecg", "--output", "o"],
            ["ecg_chat", "--data-dir", "d"],
            ["synthetic", "--check"],
        ):
            assert cli.main(["prepare", *arguments]) == 2
            assert "needs --" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("arguments", "surplus"),
        [
            ("ecg_qa --rate 100 --translate x", "--translate, --rate"),
            ("synthetic --data-dir d", "--data-dir"),
            ("ptb_xl --questions labels --translate", "--translate"),
            ("mimic_iv_ecg --records 5 --tasks 3", "--records, --tasks"),
            ("ptb_xl --engine local --num-proc 2", "--num-proc"),
        ],
    )
    def test_options_without_a_meaning_are_refused(self, capsys, arguments, surplus):
        assert cli.main(["prepare", *arguments.split(), "--output", "o"]) == 2
        assert f": {surplus} has no meaning here" in capsys.readouterr().err

    def test_one_list_of_records(self, capsys):
        command = ["prepare", "mimic_iv_ecg", "--data-dir", "d", "--output", "o", "--metadata", "a", "b"]
        assert cli.main(command) == 2 and "give one --metadata" in capsys.readouterr().err

    def test_check_of_questions_and_their_recordings(self, test_data, capsys):
        command = ["prepare", "ecg_qa", "--check", "--data-dir", str(test_data / "ecg_qa/ecgqa")]
        assert cli.main(command) == 0
        out = capsys.readouterr().out
        assert "ptbxl/template/train/*.json" in out and "mimic" not in out and "paraphrased" not in out
        assert cli.main([*command, "--signals-dir", str(test_data / "ptbxl")]) == 1
        assert "records500: " in capsys.readouterr().out

    def test_slurm_needs_a_partition(self, test_data, tmp_path, capsys):
        command = ["prepare", "ptb_xl", "--data-dir", str(test_data / "ptbxl"), "--output", str(tmp_path / "o")]
        assert cli.main([*command, "--engine", "slurm"]) == 1
        assert "--slurm-partition" in capsys.readouterr().err
