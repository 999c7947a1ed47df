"""Questions about PTB-XL's labels: their words, their templates, whom they are asked of; and the folds they go by."""

import csv
from collections import Counter

import pytest
from data_set_folders import make_ptb_xl, ptb_xl_row

from ecgbyte_hf import cli, cli_data
from ecgbyte_hf.data.label_questions import (
    LABEL_SETS,
    SUPERCLASSES,
    VERIFY_SETS,
    count_labels,
    label_questions,
    label_template_options,
)
from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.questions import question_table
from ecgbyte_hf.data.sources import Division, LabelOptions, prepare_ptb_xl
from ecgbyte_hf.data.splits import Folds
from ecgbyte_hf.evaluation.scoring import gold_answer, parse_answer
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor

VERIFY = list(VERIFY_SETS)


def record(ecg_id=3, superclass=("MI",), subclass=("IMI",), form=(), rhythm=("SR",)):
    return {
        "ecg_id": ecg_id,
        "superclass": list(superclass),
        "subclass": list(subclass),
        "form": list(form),
        "rhythm": list(rhythm),
    }


class TestQuestions:
    def test_the_superclasses_by_default(self):
        rows = list(label_questions([record(superclass=["CD", "MI"]), record(4, superclass=[])]))
        assert [row["answer"][0] for row in rows] == ["no", "yes", "no", "yes", "no"]
        assert {row["ecg_id"][0] for row in rows} == {3}
        assert set(label_template_options()) == {row["template_id"] for row in rows} == set(range(2101, 2106))
        assert [row["attribute"] for row in rows] == [[name] for name in SUPERCLASSES]

    def test_every_set(self):
        rows = list(label_questions([record(form=["PVC", "STD_"])], LABEL_SETS))
        kinds = Counter((row["question_type"], row["attribute_type"]) for row in rows)
        assert kinds == {
            ("single-verify", "diagnostic_superclass"): 5,
            ("single-verify", "diagnostic_subclass"): 23,
            ("single-verify", "form"): 19,
            ("single-verify", "rhythm"): 12,
            ("single-query", "diagnostic_superclass"): 1,
        }
        yes = {(row["attribute_type"], *row["attribute"]) for row in rows if row["answer"] == ["yes"]}
        assert yes == {
            ("diagnostic_superclass", "MI"),
            ("diagnostic_subclass", "IMI"),
            ("form", "PVC"),
            ("form", "STD_"),
            ("rhythm", "SR"),
        }
        texts = {row["question"]: row["answer"] for row in rows}
        assert texts["Does this ECG show a ventricular premature complex?"] == ["yes"]
        assert texts["Does this ECG show atrial fibrillation?"] == ["no"]
        assert len({row["sample_id"] for row in rows}) == len({row["template_id"] for row in rows}) == len(rows) == 60
        assert all(row["question_id"] == row["template_id"] for row in rows)

    def test_templates_stay_where_they_are(self):
        """A prepared folder and a model's answers are known by them."""
        asked = {row["template_id"]: row["question"] for row in label_questions([record(form=["PVC"])], LABEL_SETS)}
        assert asked[2102] == "Does this ECG show myocardial infarction?"
        assert asked[2113] == "Does this ECG show inferior myocardial infarction?"
        assert asked[2133] == "Does this ECG show right atrial enlargement?"
        assert asked[2141] == "Does this ECG show an abnormal QRS complex?"
        assert asked[2159] == "Does this ECG show digitalis effect?"
        assert asked[2161] == "Does this ECG show sinus rhythm?"
        assert asked[2172] == "Does this ECG show a pacemaker rhythm?"
        assert asked[2181] == (
            "Which of normal ECG, myocardial infarction, ST/T changes, conduction disturbance and hypertrophy does "
            "this ECG show?"
        )

    def test_the_same_words_for_the_same_label_alone(self):
        codes = {}
        for labels in VERIFY_SETS.values():
            for code, name in labels.names.items():
                codes.setdefault(name, set()).add(code)
        assert [sorted(found) for found in codes.values() if len(found) > 1] == []

    def test_a_number_is_that_of_the_question_whatever_else_is_asked(self):
        everything = {row["sample_id"]: row for row in label_questions([record(), record(4)], LABEL_SETS)}
        for row in label_questions([record(4), record()], ["which", "rhythm"]):
            assert everything[row["sample_id"]] == row

    def test_a_record_is_asked_about_the_sets_it_has_labels_of(self):
        def sets(one):
            return {(row["question_type"], row["attribute_type"]) for row in label_questions([one], LABEL_SETS)}

        assert {kind for _, kind in sets(record(form=[]))} == {
            "diagnostic_superclass",
            "diagnostic_subclass",
            "rhythm",
        }
        assert sets(record(superclass=[], subclass=[], form=["PVC"], rhythm=[])) == {("single-verify", "form")}
        assert sets(record(superclass=[], subclass=[], form=[], rhythm=[])) == set()

    def test_which_superclasses(self):
        [row] = label_questions([record(superclass=["STTC", "NORM"])], ["which"])
        assert row["answer"] == ["normal ECG", "ST/T changes"] and row["attribute"] == list(SUPERCLASSES)
        options = label_template_options(["which"])[row["template_id"]]
        assert options[0] == "normal ECG" and options[-1] == "none"
        assert parse_answer("normal ECG, ST/T changes", options) == gold_answer(row)

    def test_negatives(self):
        records = [record(number, form=["PVC", "PAC"]) for number in range(300)]
        rows = list(label_questions(records, VERIFY, negatives=2, seed=1))
        counts = Counter((row["ecg_id"][0], row["attribute_type"], row["answer"][0]) for row in rows)
        assert {count for (_, _, answer), count in counts.items() if answer == "no"} == {2}
        of_first = {kind: count for (number, kind, answer), count in counts.items() if (number, answer) == (0, "yes")}
        assert of_first == {"diagnostic_superclass": 1, "diagnostic_subclass": 1, "form": 2, "rhythm": 1}
        drawn = Counter(row["attribute"][0] for row in rows if row["attribute_type"] == "rhythm")
        assert drawn.pop("SR") == 300 and len(drawn) == 11 and all(25 < count < 90 for count in drawn.values())
        everything = {row["sample_id"]: row for row in label_questions(records, VERIFY)}
        assert all(everything[row["sample_id"]] == row for row in rows)

    def test_the_draw_depends_on_the_seed_and_the_record(self):
        def drawn(records, seed, sets=VERIFY):
            return [row["sample_id"] for row in label_questions(records, sets, negatives=1, seed=seed)]

        records = [record(number) for number in range(20)]
        assert drawn(records, 0) == drawn(records, 0) != drawn(records, 1)
        assert set(drawn(records[5:6], 0)) <= set(drawn(records, 0))
        assert set(drawn(records, 0, ["rhythm"])) <= set(drawn(records, 0))

    def test_more_negatives_than_there_are(self):
        assert len(list(label_questions([record()], negatives=40))) == 5

    def test_what_cannot_be_asked(self):
        with pytest.raises(EcgDataError, match=r"got the label sets axis; known: superclass, subclass, form, rhythm"):
            list(label_questions([record()], ["superclass", "axis"]))
        with pytest.raises(EcgDataError, match="got the label sets none; known"):
            label_template_options([])
        with pytest.raises(EcgDataError, match="ECG 3 has the rhythm XYZ, which no question names"):
            list(label_questions([record(rhythm=["SR", "XYZ"])], ["rhythm"]))
        with pytest.raises(EcgDataError, match="expected at least 1"):
            list(label_questions([record()], negatives=0))

    def test_counts(self):
        rows = label_questions([record(superclass=["MI", "CD"]), record(4)], ["superclass", "which"])
        assert count_labels({"train": question_table(rows), "test": question_table([])}) == {
            "train": {
                "superclass": {
                    "records": 2,
                    "questions": 10,
                    "yes": {"NORM": 0, "MI": 2, "STTC": 0, "CD": 1, "HYP": 0},
                },
                "which": {"records": 2, "questions": 2, "yes": {"MI": 2, "CD": 1}},
            },
            "test": {},
        }


def test_every_label_of_the_statements_has_a_name(test_data):
    with open(test_data / "ptbxl/scp_statements.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = {"superclass": "diagnostic_class", "subclass": "diagnostic_subclass"}
    for name, labels in VERIFY_SETS.items():
        if name in columns:
            there = {row[columns[name]] for row in rows} - {""}
        else:
            there = {row[""] for row in rows if row[name] == "1.0"}
        assert set(labels.names) == there, name


@pytest.fixture(scope="module")
def ptb_xl(tmp_path_factory):
    """40 records at 100 Hz, four of each fold; every fifth has a form label, every second an infarction."""
    folder = tmp_path_factory.mktemp("ptb-xl")
    rows = []
    for number in range(1, 41):
        codes = {"IMI" if number % 2 else "NORM": 100.0, "SR": 0.0} | ({"ABQRS": 0.0} if number % 5 == 0 else {})
        rows.append(ptb_xl_row(number, scp_codes=str(codes), patient_id=f"{number}.0"))
    make_ptb_xl(folder, rows=rows)
    return folder


def prepare(ptb_xl, folder, **options):
    extractor = EcgByteFeatureExtractor(profile="none", sampling_rate=100)
    return prepare_ptb_xl(folder, data_dir=ptb_xl, sampling_rate=100, feature_extractor=extractor, **options)


class TestFolder:
    def test_folds_and_counts(self, ptb_xl, tmp_path):
        prepared = prepare(
            ptb_xl,
            tmp_path,
            questions="labels",
            labels=LabelOptions(LABEL_SETS, negatives=2),
            folds=Folds(test=9, validation=8),
        )
        assert prepared.splits == ["test", "train", "validation"] and prepared.report["records"] == 36
        fold = {number: number % 10 + 1 for number in range(1, 41)}
        for split, folds in {"train": range(1, 8), "validation": [8], "test": [9]}.items():
            assert {fold[row["ecg_id"][0]] for row in prepared.questions(split)} == set(folds)
        report = prepared.report
        assert report["folds"] == {"train": [1, 2, 3, 4, 5, 6, 7], "validation": [8], "test": [9]}
        assert report["records_of_other_folds"] == 4
        assert report["label_options"] == {"label_sets": list(LABEL_SETS), "negatives": 2}
        assert report["records_without_label"]["test"] == dict.fromkeys(LABEL_SETS, 0) | {"form": 4}
        # Everything is asked in test and validation, two negatives of each set in training.
        assert report["labels"]["test"]["rhythm"]["questions"] == 4 * 12
        assert report["labels"]["validation"]["subclass"]["questions"] == 4 * 23
        assert report["labels"]["train"]["rhythm"]["questions"] == 28 * 3
        assert report["labels"]["train"]["form"] == {
            "records": 8,
            "questions": 24,
            "yes": report["labels"]["train"]["form"]["yes"],
        }
        assert report["labels"]["train"]["form"]["yes"]["ABQRS"] == 8
        assert report["labels"]["train"]["which"]["yes"] == {"MI": 12, "NORM": 16}
        assert len(prepared.template_options()) == 60

    def test_the_usual_folds(self, ptb_xl, tmp_path):
        prepared = prepare(ptb_xl, tmp_path, questions="labels", division=Division(fraction=0.9))
        assert prepared.report["folds"] == {"train": list(range(1, 9)), "validation": [9], "test": [10]}
        labels = prepared.report["labels"]["train"]["superclass"]
        assert labels["questions"] == prepared.report["questions"]["train"] == 5 * labels["records"]
        assert 20 <= labels["records"] < 32  # counted after the division

    def test_reports_by_folds(self, ptb_xl, tmp_path):
        prepared = prepare(ptb_xl, tmp_path, folds=Folds(test=10, train=[1, 2]))
        asked = {split: {row["ecg_id"][0] % 10 + 1 for row in prepared.questions(split)} for split in prepared.splits}
        assert asked == {"train": {1, 2}, "test": {10}}

    def test_folds_that_do_not_go(self, ptb_xl, tmp_path):
        with pytest.raises(EcgDataError, match="got the paper's splits and a choice of folds"):
            prepare(ptb_xl, tmp_path, folds=Folds(test=9), division=Division(splits="reference"))

    def test_an_empty_fold(self, test_data, tmp_path):
        with pytest.raises(EcgDataError, match=r"no record is in the folds \[10\] for test; the tables have .*8, 9\]"):
            prepare(test_data / "ptbxl100", tmp_path, questions="labels", folds=Folds(test=10))

    def test_command(self, ptb_xl, tmp_path, capsys):
        command = ["prepare", "ptb_xl", "--data-dir", str(ptb_xl), "--rate", "100", "--sampling-rate", "100"]
        command += ["--profile", "none", "--leads", "I", "II", "--output", str(tmp_path / "p")]
        for surplus in (["--label-sets", "form"], ["--negatives", "3"], ["--validation-fold", "8"]):
            assert cli.main([*command, *surplus]) == 2
            assert f"{surplus[0]} has no meaning here" in capsys.readouterr().err
        labels = ["--questions", "labels", "--label-sets", "which", "superclass", "--negatives", "1"]
        assert cli.main([*command, *labels, "--test-fold", "9", "--train-folds", "1", "2", "3"]) == 0
        prepared = PreparedData(tmp_path / "p")
        assert prepared.report["folds"] == {"train": [1, 2, 3], "test": [9]}
        assert prepared.report["questions"] == {"train": 12 * 3, "test": 4 * 6}
        assert cli_data.LABEL_SETS == LABEL_SETS
