"""ECG-Chat's builder, on conversations in its layout and on broken ones."""

import json

import pytest
from data_set_folders import make_mimic

import ecgbyte_hf
from ecgbyte_hf.data.ecg_chat import conversation_questions, conversation_row
from ecgbyte_hf.data.questions import QUESTION_FEATURES
from ecgbyte_hf.data.splits import split_of_patient
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError


def item(study=40689238, patient=10000032, turns=None, **changes):
    path = f"files/p{patient // 10000}/p{patient}/s{study}/{study}"
    turns = turns or [("human", "<ecg>\nWhat does the ECG\nshow?"), ("gpt", "Sinus rhythm.\nNormal.")]
    return {"ecg": path, "conversations": [{"from": who, "value": text} for who, text in turns]} | changes


def write(folder, items, name="pretrain_mimic.json"):
    (folder / name).write_text(items if isinstance(items, str) else json.dumps(items), encoding="utf-8")


def load(folder, **options):
    return ecgbyte_hf.load_dataset("ecg_chat", "pretrain_mimic", data_dir=folder, **options)


def test_a_row(tmp_path):
    turns = [
        ("human", "What is it?\n<ecg>"),
        ("gpt", "Sinus rhythm"),
        ("human", "And\nthe axis?"),
        ("gpt", " normal\n"),
    ]
    write(tmp_path, [item(), item(turns=turns)])
    rows = load(tmp_path, split=split_of_patient("10000032"))
    assert {name: rows.features[name] for name in QUESTION_FEATURES} == QUESTION_FEATURES
    assert rows[0] == {
        "sample_id": 0,
        "template_id": 2003,
        "question_id": 2003,
        "question_type": "conversation",
        "attribute_type": "conversation",
        "question": "What does the ECGshow?",
        "answer": ["Sinus rhythm.\nNormal."],
        "ecg_id": [40689238],
        "attribute": None,
        "ecg_path": ["files/p1000/p10000032/s40689238/40689238"],
        "messages": [
            {"role": "user", "content": "What does the ECG\nshow?"},
            {"role": "assistant", "content": "Sinus rhythm.\nNormal."},
        ],
    }
    assert rows[1]["question"] == "What is it?" and rows[1]["answer"] == ["Sinus rhythm"]
    assert [(message["role"], message["content"]) for message in rows[1]["messages"]] == [
        ("user", "What is it?"),
        ("assistant", "Sinus rhythm"),
        ("user", "And\nthe axis?"),
        ("assistant", "normal"),
    ]


@pytest.mark.parametrize("prefix", ["", "/data/mimic/", "mimic-iv-ecg/1.0/"])
def test_paths(prefix):
    one = item()
    for path in (prefix + one["ecg"], (prefix + one["ecg"]).replace("/", "\\")):
        assert conversation_row(one | {"ecg": path}, 3, "file")["ecg_path"] == [one["ecg"]]


def test_splits_are_those_of_mimic(tmp_path):
    items = [item(40_000_000 + n, 10_000_000 + n // 2) for n in range(200)]
    write(tmp_path, items)
    data = load(tmp_path, seed=3)
    for split, rows in data.items():
        patients = {path.split("/")[2][1:] for row in rows for path in row["ecg_path"]}
        assert {split_of_patient(patient, 3) for patient in patients} == {split}
    assert sum(len(rows) for rows in data.values()) == 200 and len(data) == 3
    assert 110 < len(data["train"]) < 170


def test_patients_that_ecg_qa_tests_on(tmp_path):
    write(tmp_path, [item(40_000_000 + n, 10_000_000 + n // 2) for n in range(20)])
    make_mimic(tmp_path / "mimic", 20)
    (tmp_path / "mimic-iv-ecg").mkdir()
    (tmp_path / "mimic-iv-ecg/test_ecgs.tsv").write_text("".join(f"{n}\t{40_000_000 + n}\n" for n in range(0, 20, 4)))
    with pytest.raises(EcgDataError, match="ecg_qa_dir without record_list"):
        load(tmp_path, ecg_qa_dir=str(tmp_path))
    options = {"ecg_qa_dir": str(tmp_path), "record_list": str(tmp_path / "mimic/record_list.csv")}
    tested = {row["ecg_id"][0] for row in load(tmp_path, split="test", **options)}
    assert tested >= {40_000_000 + n for n in range(20) if n % 4 in (0, 1)}


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("[{", "not a JSON file"),
        ("[" * 100_000, "not a JSON file"),
        ("{}", "expected a list of conversations"),
        ("[]", "expected a list of conversations"),
        ([item(), "text"], "item 1 is 'text'"),
        ([item(), item(ecg=5)], "item 1 is .*with the path of its ECG"),
        ([item(ecg="files/p1000/p10000032/s1/2")], "item 0: ecg is 'files/p1000/p10000032/s1/2'"),
        ([item(ecg="records500/00000/00001_hr")], "item 0: ecg is"),
        ([item(conversations=None)], "item 0: got None as conversations"),
        ([item(turns=[("human", "alone")])], "expected a list of two turns"),
        ([item(turns=[("gpt", "a"), ("human", "b")])], "item 0: its first turns are of gpt, human"),
        ([item(turns=[("human", "a"), ("cat", "b")])], "item 0, turn 1 is .*expected 'from'"),
        ([item(turns=[("human", "a"), ("gpt", None)])], "item 0, turn 1 is .*and 'value' with text"),
        ([item(conversations=["a", "b"])], "item 0, turn 0 is 'a'"),
    ],
)
def test_malformed_items_are_named(tmp_path, items, message):
    write(tmp_path, items)
    with pytest.raises(EcgDataError, match=message) as caught:
        load(tmp_path)
    assert "pretrain_mimic.json" in str(caught.value)


def test_other_files(tmp_path):
    with pytest.raises(EcgDataError, match="cannot read .*pretrain_mimic.json: No such file.*another file with file="):
        load(tmp_path)
    write(tmp_path, [item()], "mine.json")
    assert sum(len(rows) for rows in load(tmp_path, file="mine.json").values()) == 1


TALK = [
    ("human", "<ecg>\nRhythm?"),
    ("gpt", "sinus"),
    ("human", "Rate?"),
    ("gpt", "70"),
    ("human", "Axis?"),
    ("gpt", "ok"),
]


class TestTurns:
    ROW = conversation_row(item(turns=TALK), 5, "file")

    def asked(self, turns):
        return [
            (row["sample_id"], row["question"], row["answer"], [turn["content"] for turn in row.get("history") or []])
            for row in conversation_questions(self.ROW, turns)
        ]

    def test_what_is_made_of_a_conversation(self):
        assert self.asked("first") == [(5, "Rhythm?", ["sinus"], [])]
        alone = [(5000, "Rhythm?", ["sinus"], []), (5001, "Rate?", ["70"], []), (5002, "Axis?", ["ok"], [])]
        assert self.asked("separate") == alone
        before = [[], ["Rhythm?", "sinus"], ["Rhythm?", "sinus", "Rate?", "70"]]
        assert self.asked("history") == [(*row[:3], said) for row, said in zip(alone, before, strict=True)]
        assert self.asked("all") == [(5, "Axis?", ["ok"], before[2])]
        for turns in ("first", "separate", "history", "all"):
            for row in conversation_questions(self.ROW, turns):
                assert "messages" not in row and row["ecg_id"] == [40689238]

    @pytest.mark.parametrize(
        "turns",
        [TALK[:3], [*TALK[:2], *TALK[3:]], [*TALK[:2], ("system", "x"), TALK[3]], [*TALK[:2], TALK[0], TALK[2]]],
    )
    def test_other_orders_are_named(self, turns):
        row = conversation_row(item(turns=turns), 9, "file")
        assert len(conversation_questions(row, "first")) == 1
        for choice in ("separate", "history", "all"):
            with pytest.raises(EcgDataError, match="sample 9: got turns of user, assistant, "):
                conversation_questions(row, choice)

    def test_are_in_a_prepared_folder_and_its_windows(self, tmp_path):
        from ecgbyte_hf.data.sources import prepare_ecg_chat
        from ecgbyte_hf.data.windows import WindowedData
        from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor

        make_mimic(tmp_path / "mimic", 6, signals=True)
        items = [item(40_000_000 + n, 10_000_000 + n // 2, TALK[: 2 + 2 * (n % 3)]) for n in range(6)]
        write(tmp_path, items, "instruct.json")
        prepared = prepare_ecg_chat(
            tmp_path / "prepared",
            data_dir=tmp_path,
            signals_dir=tmp_path / "mimic",
            file="instruct.json",
            feature_extractor=EcgByteFeatureExtractor(profile="none", sampling_rate=50, on_problem=["amplitude"]),
        )
        assert prepared.report["source"] == "ecg_chat instruct"
        rows = [row for split in prepared.splits for row in prepared.questions(split)]
        assert len(rows) == 6
        for row in rows:
            made = conversation_row(items[row["sample_id"]], row["sample_id"], "file")
            assert row == made
            assert len(conversation_questions(row, "history")) == 1 + row["sample_id"] % 3
        windows = WindowedData(prepared.folder, 5.0)
        cut = [
            one
            for split in prepared.splits
            for row in windows.questions(split)
            for one in conversation_questions(row, "separate")
        ]
        assert len({row["sample_id"] for row in cut}) == len(cut) == 2 * (1 + 2 + 3) * 2
