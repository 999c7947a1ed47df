"""Splits by patient, and the report of what splits share."""

import csv
import random

import pytest

from ecgbyte_hf.data.sources import read_patients
from ecgbyte_hf.data.splits import (
    Folds,
    hold_out_patients,
    keep_fraction,
    overlap_report,
    patient_fraction,
    resplit_rows,
    split_of_fold,
    split_of_patient,
    without_shared_patients,
)
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

SIDES = ("kept", "held_out", "straddling")


def row(*ecg_ids):
    return list(ecg_ids)


def divided(rows, patients, **settings):
    """The questions on each side."""
    sides = hold_out_patients(rows, patients, **settings)
    return [[one for one, where in zip(rows, sides, strict=True) if where == name] for name in SIDES]


class TestHoldOut:
    def test_no_patient_is_on_both_sides_and_every_row_is_somewhere_once(self):
        draw = random.Random(0)
        patients = {ecg_id: str(draw.randrange(200)) if draw.random() < 0.9 else None for ecg_id in range(1000)}
        rows = [row(*draw.sample(range(1000), draw.choice([1, 1, 2]))) for _ in range(3000)]
        kept, held_out, straddling = divided(rows, patients, fraction=0.3, seed=1)
        ids = sorted(map(id, kept + held_out + straddling))
        assert ids == sorted(map(id, rows))

        def people(some):
            return {patients[i] or f"ecg {i}" for one in some for i in one}

        assert not people(kept) & people(held_out)
        assert len(people(held_out)) / len(people(rows)) == pytest.approx(0.3, abs=0.06)
        for one in straddling:
            assert len(one) == 2
            alone = [divided([row(i)], patients, fraction=0.3, seed=1) for i in one]
            assert sorted(len(side) for _, side, _ in alone) == [0, 1]

    def test_a_patient_is_where_it_is_whatever_else_there_is(self):
        patients = {number: str(number) for number in range(100)}
        alone = [i for i in range(100) if divided([row(i)], patients, fraction=0.4, seed=2)[1]]
        together = divided([row(i) for i in range(100)], patients, fraction=0.4, seed=2)[1]
        assert [one[0] for one in together] == alone
        other = divided([row(i) for i in range(100)], patients, fraction=0.4, seed=3)[1]
        assert other != together

    def test_an_ecg_without_patient_is_one_of_its_own(self):
        rows = [row(i) for i in range(200)]
        _, held_out, _ = divided(rows, dict.fromkeys(range(200)), fraction=0.5, seed=0)
        assert 60 < len(held_out) < 140
        assert divided(rows, {}, fraction=0.5, seed=0)[1] == held_out

    def test_known_value(self):
        # sha256("0:15709"), first 8 bytes, over 2**64: the division must not change with the version.
        assert patient_fraction("15709", 0) == pytest.approx(0.0581106329, abs=1e-10)

    @pytest.mark.parametrize("fraction", [-0.1, 1.0, 5, float("nan")])
    def test_a_share_that_is_none(self, fraction):
        with pytest.raises(EcgDataError, match="share"):
            hold_out_patients([], {}, fraction=fraction, seed=0)


def test_overlap_report():
    patients = {1: "a", 2: "b", 3: "a", 4: None}
    report = overlap_report({"train": [row(1), row(2, 4)], "test": [row(3), row(2)], "other": [row(5)]}, patients)
    assert report == {
        "train/test": {"ecgs": [2], "patients": ["a", "b"]},
        "train/other": {"ecgs": [], "patients": []},
        "test/other": {"ecgs": [], "patients": []},
        "unknown_patients": {"train": 1, "test": 0, "other": 1},
    }


class TestPatients:
    def test_ptb_xl(self, test_data):
        path = test_data / "ptbxl/ptbxl_database.csv"
        patients = read_patients([path])
        with path.open(encoding="utf-8") as file:
            expected = {int(line["ecg_id"]): line["patient_id"] for line in csv.DictReader(file)}
        assert set(patients) == set(expected) and len(patients) == 500
        assert patients[1] == "15709" and expected[1] == "15709.0"
        assert all(float(expected[i]) == float(patients[i]) for i in patients)

    def test_tables_are_joined_and_empty_is_unknown(self, tmp_path):
        (tmp_path / "a.csv").write_text("ecg_id,patient_id,age\n1,7.0,50\n2,,60\n")
        (tmp_path / "b.csv").write_text("patient_id,ecg_id\n8,3\n7,1\n")
        assert read_patients([tmp_path / "a.csv", tmp_path / "b.csv"]) == {1: "7", 2: None, 3: "8"}

    def test_as_a_spreadsheet_saves_it(self, tmp_path):
        (tmp_path / "a.csv").write_text("\ufeffecg_id,patient_id\n1,7\n", encoding="utf-8")
        assert read_patients([tmp_path / "a.csv"]) == {1: "7"}

    def test_a_field_without_end(self, tmp_path):
        (tmp_path / "a.csv").write_text("ecg_id,patient_id\n1," + "7" * 200_000 + "\n")
        with pytest.raises(EcgDataError, match="not a CSV table"):
            read_patients([tmp_path / "a.csv"])

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("ecg_id,age\n1,50\n", "expected columns ecg_id and patient_id"),
            ("ecg_id,patient_id\n1\n", "line 2: got"),
            ("ecg_id,patient_id\nx,3\n", "line 2: got"),
            ("ecg_id,patient_id\n1,inf\n", "line 2: got"),
            ("ecg_id,patient_id\n1,3\n1,4\n", "ECG 1 has the patients 3 and 4"),
        ],
    )
    def test_malformed_tables(self, tmp_path, text, message):
        path = tmp_path / "a.csv"
        path.write_text(text)
        with pytest.raises(EcgDataError, match=message):
            read_patients([path])

    def test_missing_or_binary_table(self, tmp_path):
        with pytest.raises(EcgDataError, match="cannot read .*absent.csv"):
            read_patients([tmp_path / "absent.csv"])
        (tmp_path / "a.csv").write_bytes(b"ecg_id,patient_id\n\xff,1\n")
        with pytest.raises(EcgDataError, match="not UTF-8"):
            read_patients([tmp_path / "a.csv"])


class TestSplitOfPatient:
    def test_shares(self):
        splits = [split_of_patient(str(patient)) for patient in range(20_000)]
        shares = [splits.count(name) / len(splits) for name in ("train", "validation", "test")]
        assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.01)

    def test_patients_tested_on_elsewhere_are_tested_on_here(self):
        patients = [str(patient) for patient in range(100)]
        assert {split_of_patient(patient, 0, set(patients)) for patient in patients} == {"test"}

    def test_another_seed_divides_otherwise(self):
        divided = [[split_of_patient(str(patient), seed) for patient in range(200)] for seed in (0, 0, 1)]
        assert divided[0] == divided[1] != divided[2]


class TestSplitOfFold:
    def test_recommended(self):
        assert [split_of_fold(fold) for fold in range(1, 11)] == ["train"] * 8 + ["validation", "test"]

    def test_of_the_paper(self):
        of_paper = [split_of_fold(fold, reference=True) for fold in range(1, 11)]
        assert of_paper == ["train"] * 7 + ["validation", "test", "test"]

    @pytest.mark.parametrize("fold", [0, 11, -1])
    def test_no_such_fold(self, fold):
        with pytest.raises(EcgDataError, match="expected 1 to 10"):
            split_of_fold(fold)

    def test_chosen_ones(self):
        choosing, final = Folds(test=9, validation=8), Folds(test=9)
        assert choosing.to_dict() == {"train": [1, 2, 3, 4, 5, 6, 7], "validation": [8], "test": [9]}
        assert final.to_dict() == {"train": [1, 2, 3, 4, 5, 6, 7, 8], "test": [9]}
        assert Folds(test=1, validation=2, train=[9, 10]).to_dict() == {
            "train": [9, 10],
            "validation": [2],
            "test": [1],
        }
        assert [choosing.split_of(fold) for fold in (1, 8, 9, 10)] == ["train", "validation", "test", None]

    @pytest.mark.parametrize(
        ("folds", "message"),
        [
            ({"test": 11}, "got the fold 11"),
            ({"test": 9, "train": [0]}, "got the fold 0"),
            ({"test": 9, "validation": 9}, "each of them once"),
            ({"test": 9, "train": [8, 9]}, "each of them once"),
        ],
    )
    def test_chosen_ones_that_cannot_be(self, folds, message):
        with pytest.raises(EcgDataError, match=message):
            Folds(**folds)


class TestFraction:
    PATIENTS = {number: str(number // 3) for number in range(3000)}

    def test_all_questions_of_a_patient_or_none(self):
        rows = [row(number) for number in range(3000)] * 2
        kept = keep_fraction(rows, self.PATIENTS, fraction=0.25, seed=0)
        assert kept[:3000] == kept[3000:]
        by_patient = [set(kept[first : first + 3]) for first in range(0, 3000, 3)]
        assert all(len(decisions) == 1 for decisions in by_patient)
        assert sum(decisions == {True} for decisions in by_patient) / 1000 == pytest.approx(0.25, abs=0.04)

    def test_a_comparison_needs_both(self):
        alone = keep_fraction([row(0), row(3)], self.PATIENTS, fraction=0.5, seed=1)
        assert keep_fraction([row(0, 3), row(3, 0)], self.PATIENTS, fraction=0.5, seed=1) == [all(alone)] * 2

    def test_more_contains_less(self):
        rows = [row(number) for number in range(3000)]
        quarter, half, whole = (keep_fraction(rows, self.PATIENTS, fraction=f, seed=2) for f in (0.25, 0.5, 1.0))
        assert all(half[index] for index, kept in enumerate(quarter) if kept) and all(whole)

    def test_is_no_part_of_the_split(self):
        """Of the training patients, whose number for the split is small, a quarter too, and not all."""
        train = [n for n in range(3000) if split_of_patient(self.PATIENTS[n]) == "train"]
        kept = keep_fraction([row(n) for n in train], self.PATIENTS, fraction=0.25, seed=0)
        assert sum(kept) / len(kept) == pytest.approx(0.25, abs=0.05)

    @pytest.mark.parametrize("fraction", [0.0, -1.0, 1.1, float("nan")])
    def test_a_share_that_is_none(self, fraction):
        with pytest.raises(EcgDataError, match="share"):
            keep_fraction([], {}, fraction=fraction, seed=0)


class TestSharedPatients:
    def test_training_gives_way(self):
        patients = {1: "a", 2: "b", 3: "a", 4: None, 5: "c", 6: "c"}
        splits = {
            "train": [row(1), row(2), row(2, 1), row(4), row(5)],
            "validation": [row(6), row(3)],
            "test": [row(3), row(4, 3)],
        }
        keep = without_shared_patients(splits, patients)
        assert keep == {"train": [False, True, False, False, False], "validation": [True, False], "test": [True] * 2}
        left = {name: [ids for ids, stays in zip(splits[name], keep[name], strict=True) if stays] for name in splits}
        for pair, shared in overlap_report(left, patients).items():
            if pair != "unknown_patients":
                assert shared == {"ecgs": [], "patients": []}

    def test_what_a_dropped_question_would_have_taken_is_free(self):
        """The second patient of a comparison that validation loses stays in training."""
        patients = {1: "a", 2: "b"}
        keep = without_shared_patients({"test": [row(1)], "validation": [row(1, 2)], "train": [row(2)]}, patients)
        assert keep == {"test": [True], "validation": [False], "train": [True]}


def test_resplit_of_the_paper():
    names = resplit_rows(1000, 3)
    assert [names.count(name) for name in ("train", "validation", "test")] == [700, 120, 180]
    assert names == resplit_rows(1000, 3) != resplit_rows(1000, 4)
    assert resplit_rows(0, 0) == []
