"""What a stranger's file may try, in one table: each input and the refusal that it gets.

`python tests/unit/test_hostile_inputs.py` prints the table in Markdown. The readers' own tests look further into each
format.
"""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.prompts import EcgPrompt
from ecgbyte_hf.data.record_metadata import read_metadata
from ecgbyte_hf.hub.cards import render_card
from ecgbyte_hf.models import vocabulary_ecg_byte
from ecgbyte_hf.models.errors_ecg_byte import (
    CalibrationError,
    EcgDataError,
    EcgError,
    EcgFileError,
    LeadError,
    SamplingRateError,
    VocabularyError,
)
from ecgbyte_hf.models.vocabulary_ecg_byte import read_ecg_byte_file
from ecgbyte_hf.signal.records import read_ecg

DEEP = "[" * 100_000
WFDB = "rec 2 500 5\nrec.dat 16 200(0)/mV 16 0 0 0 0 I\nrec.dat 16 200(0)/mV 16 0 0 0 0 V1\n"
LAUGHS = '<!DOCTYPE R [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;">]>'
OUTSIDE = '<!DOCTYPE R [<!ENTITY secret SYSTEM "file:///etc/hostname">]>'
XML_ROOTS = {"aECG": "AnnotatedECG", "MUSE": "RestingECG", "Philips": "restingecgdata"}
GIVEN: dict[str, Any] = {"sampling_rate": 500, "lead_names": ["I", "V1"], "units": "mV"}

Try = Callable[[Path], object]


class Hostile(NamedTuple):
    """An input: what it is, what makes it and tries to use it in an empty folder, and what must come of that."""

    what: str
    attempt: Try
    error: type[EcgError]
    message: str


def wfdb_header(header: str) -> Try:
    def attempt(folder: Path) -> object:
        (folder / "rec.hea").write_text(header)
        (folder / "rec.dat").write_bytes(bytes(20))
        return read_ecg(folder / "rec")

    return attempt


def link_outside(folder: Path) -> object:
    (folder / "inside").mkdir()
    (folder / "secret.dat").write_bytes(bytes(20))
    (folder / "inside" / "rec.hea").write_text(WFDB)
    (folder / "inside" / "rec.dat").symlink_to(folder / "secret.dat")
    return read_ecg(folder / "inside" / "rec")


def xml(root: str, prolog: str, use: str) -> Try:
    def attempt(folder: Path) -> object:
        (folder / "ecg.xml").write_text(f"{prolog}<{root}><x>{use}</x></{root}>")
        return read_ecg(folder / "ecg.xml")

    return attempt


def content(name: str, data: bytes, **given: Any) -> Try:
    def attempt(folder: Path) -> object:
        (folder / name).write_bytes(data)
        return read_ecg(folder / name, **given)

    return attempt


def sparse(name: str, size: int, read: Try) -> Try:
    """A file that says it is large and takes no room on the disk."""

    def attempt(folder: Path) -> object:
        with (folder / name).open("wb") as file:
            file.truncate(size)
        return read(folder / name)

    return attempt


def npy(shape: tuple[int, ...], kind: str = "<f8") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64)


def edf(records: int, samples: int) -> bytes:
    fields = ("0", "X", "X", "01.01.30", "00.00.00", "512", "", str(records), "1", "1")
    widths = (8, 80, 80, 8, 8, 8, 44, 8, 8, 4)
    head = "".join(text.ljust(width) for text, width in zip(fields, widths, strict=True))
    channel = ("I", "", "mV", "-1", "1", "-32768", "32767", "", str(samples), "")
    of_channel = "".join(
        text.ljust(width) for text, width in zip(channel, (16, 80, 8, 8, 8, 8, 8, 80, 8, 32), strict=True)
    )
    return (head + of_channel).encode("ascii") + bytes(100)


def mat_4(rows: int, columns: int) -> bytes:
    return struct.pack("<5i", 0, rows, columns, 0, 5) + b"data\0" + bytes(64)


def dicom(folder: Path) -> object:
    import test_read_dicom

    group = test_read_dicom.group()
    group.NumberOfWaveformSamples = 2**31 - 1
    test_read_dicom.write(folder / "ecg.dcm", group)
    return read_ecg(folder / "ecg.dcm")


def scp(folder: Path) -> object:
    (folder / "ecg.scp").write_bytes(struct.pack("<HI", 0, 2**32 - 1) + bytes(40))
    return read_ecg(folder / "ecg.scp")


def vocabulary(**changes: Any) -> Try:
    def attempt(folder: Path) -> object:
        stored = {
            "version": 1,
            "alphabet": "abcdefghijklmnopqrstuvwxyz",
            "algorithm": "greedy",
            "lead_boundary": "cross",
            "sampling_rate": 250,
            "leads": ["I"],
            "calibration": {"method": "percentile", "low": -1.0, "high": 1.0},
            "merges": [[0, 1]],
        }
        (folder / "ecg_byte.json").write_text(json.dumps(stored | changes))
        return load_vocabulary(folder / "ecg_byte.json")

    return attempt


def load_vocabulary(path: Path) -> object:
    from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer

    return EcgByteTokenizer(ecg_byte_file=path)


def text_file(name: str, text: str, read: Try) -> Try:
    def attempt(folder: Path) -> object:
        (folder / name).write_text(text)
        return read(folder)

    return attempt


def header(what: str, old: str, new: str, message: str) -> Hostile:
    return Hostile(f"WFDB header {what}", wfdb_header(WFDB.replace(old, new)), EcgFileError, message)


def array(what: str, name: str, data: bytes, message: str) -> Hostile:
    return Hostile(what, content(name, data, **GIVEN), EcgFileError, message)


def vocabulary_with(what: str, error: type[EcgError], message: str, **changes: Any) -> Hostile:
    return Hostile(f"ecg_byte.json {what}", vocabulary(**changes), error, message)


def prompt(what: str, text: str, message: str) -> Hostile:
    return Hostile(
        f"ecg_prompt.json {what}", text_file("ecg_prompt.json", text, EcgPrompt.load), EcgDataError, message
    )


DOUBLING = [[0, 0], *([token, token] for token in range(26, 86))]
NOT_A_NUMBER = {"method": "percentile", "low": float("nan"), "high": 1.0}

READERS = [
    header(f"that names {name}", "rec.dat", name, "with a plain file name")
    for name in ("../rec.dat", "/etc/passwd", "http://127.0.0.1:1/rec.dat", "file:///etc/passwd")
]
READERS += [
    Hostile("WFDB signal file that is a link out of the folder", link_outside, EcgFileError, "rec.dat"),
    header("of 10^17 samples", "500 5", f"500 {10**17}", "truncated"),
    header("of 10^9 - 1 signals", "rec 2", f"rec {10**9 - 1}", "expected"),
    array("NumPy array of 10^12 numbers in 64 bytes", "a.npy", npy((10**6, 10**6)), "truncated"),
    array("NumPy array of objects, a pickle", "a.npy", npy((2, 4), "|O"), "pickles"),
    Hostile("EDF header of 10^7 data records", content("a.edf", edf(10**7, 10**7)), EcgFileError, "truncated"),
    array("MATLAB matrix of 2^31 x 2^31", "a.mat", mat_4(2**31 - 1, 2**31 - 1), "truncated"),
    Hostile("DICOM waveform of 2^31 samples", dicom, EcgFileError, "truncated"),
    Hostile("SCP-ECG of 4 GB, as its header says", scp, EcgFileError, "truncated"),
]
for maker, root in XML_ROOTS.items():
    READERS += [
        Hostile(f"{maker} XML with a billion laughs", xml(root, LAUGHS, "&c;"), EcgFileError, "has an entity"),
        Hostile(f"{maker} XML with an external entity", xml(root, OUTSIDE, "&secret;"), EcgFileError, "has an entity"),
    ]

JSON_FILES = [
    Hostile("ecg_byte.json of 1 TB", sparse("a.json", 10**12, read_ecg_byte_file), VocabularyError, "at most"),
    Hostile(
        "ecg_byte.json of nested lists",
        text_file("a.json", DEEP, lambda folder: read_ecg_byte_file(folder / "a.json")),
        VocabularyError,
        "not a JSON file",
    ),
    vocabulary_with("whose tokens double 60 times", VocabularyError, "symbols", merges=DOUBLING),
    vocabulary_with("with a negative id", VocabularyError, "ecg_byte.json: ", merges=[[-1, 0]]),
    vocabulary_with("with an id of 10^30", VocabularyError, "ecg_byte.json: ", merges=[[10**30, 0]]),
    vocabulary_with("with a merge of later ids", VocabularyError, "ecg_byte.json: ", merges=[[40, 41]]),
    vocabulary_with("with merges that are a text", VocabularyError, "list of pairs", merges="ab" * 1000),
    vocabulary_with("with NaN in the calibration", CalibrationError, "finite", calibration=NOT_A_NUMBER),
    vocabulary_with("with an infinite rate", SamplingRateError, "positive number", sampling_rate=float("inf")),
    vocabulary_with("with leads that are numbers", LeadError, "different lead names", leads=[1, 2]),
    vocabulary_with("of version 10^9", VocabularyError, "upgrade ecgbyte-hf", version=10**9),
    prompt("of nested lists", DEEP, "not an ECG prompt"),
    prompt("with an attribute in a placeholder", json.dumps({"template": "{ecg.a} {question}"}), "placeholders"),
]


@pytest.mark.parametrize("case", [*READERS, *JSON_FILES], ids=lambda case: case.what)
def test_is_refused(case, tmp_path):
    with pytest.raises(case.error, match=case.message) as caught:
        case.attempt(tmp_path)
    assert "\n" not in str(caught.value), "one line"


class TestPreparedFolder:
    """A prepared folder in which one file was exchanged."""

    @pytest.fixture
    def folder(self, small_prepared, tmp_path):
        return shutil.copytree(small_prepared.folder, tmp_path / "copy")

    @pytest.mark.parametrize(
        ("name", "text", "error"),
        [
            ("report.json", DEEP, EcgDataError),
            ("report.json", '{"questions": [1]}', EcgDataError),
            ("preprocessor_config.json", '{"sampling_rate": "fast", "leads": ["I"]}', SamplingRateError),
            ("preprocessor_config.json", '{"sampling_rate": 100, "leads": "I"}', LeadError),
        ],
    )
    def test_json(self, folder, name, text, error):
        (folder / name).write_text(text)
        with pytest.raises(error, match=name):
            PreparedData(folder)

    @pytest.mark.parametrize("text", ['{"x": ["yes"]}', '{"1": "yes"}', '{"1": [1]}'])
    def test_template_options(self, folder, text):
        (folder / "template_options.json").write_text(text)
        with pytest.raises(EcgDataError, match="list of answers for a template's number"):
            PreparedData(folder).template_options()

    def test_questions_without_a_column(self, folder):
        path = folder / "questions" / "train.parquet"
        pq.write_table(pq.read_table(path).drop_columns(["ecg_id"]), path)
        prepared = PreparedData(folder)
        for use in (prepared.train_ecg_ids, lambda: prepared.questions("train")):
            with pytest.raises(EcgDataError, match="train.parquet cannot be read: it has no column 'ecg_id'|No match"):
                use()

    def test_questions_of_another_kind(self, folder):
        path = folder / "questions" / "train.parquet"
        table = pq.read_table(path)
        column = table.column_names.index("ecg_id")
        numbers = pa.array([float(row[0]) for row in table.column("ecg_id").to_pylist()])
        pq.write_table(table.set_column(column, "ecg_id", numbers), path)
        with pytest.raises(EcgDataError, match="column 'ecg_id' is double, expected list"):
            PreparedData(folder).train_ecg_ids()

    def test_questions_that_are_cut_short(self, folder):
        path = folder / "questions" / "test.parquet"
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(EcgDataError, match="test.parquet cannot be read"):
            PreparedData(folder).questions("test")

    def test_metadata_of_another_kind(self, tmp_path):
        pq.write_table(pa.table({"ecg_id": [[1]], "age": [[1.0]]}), tmp_path / "metadata.parquet")
        with pytest.raises(EcgDataError, match="metadata.parquet is damaged"):
            read_metadata(tmp_path / "metadata.parquet")


class TestWeights:
    """Files of weights that end early or whose header promises too much."""

    @pytest.mark.parametrize("size", [4, 100, -10])
    def test_a_language_model(self, small_llm, tmp_path, size):
        from ecgbyte_hf.evaluation.language_model import EcgLanguageModel

        folder = shutil.copytree(small_llm, tmp_path / "model")
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:size])
        with pytest.raises(EcgFileError, match="its weights cannot be read .*; a file of them is truncated") as caught:
            EcgLanguageModel.load(folder)
        assert "\n" not in str(caught.value)

    def test_an_encoder(self, tmp_path):
        from tiny_encoders import resnet_config

        from ecgbyte_hf import EcgResNetForPreTraining, EcgResNetModel

        EcgResNetForPreTraining(resnet_config()).save_pretrained(tmp_path)
        weights = tmp_path / "model.safetensors"
        weights.write_bytes(struct.pack("<Q", 10**15) + weights.read_bytes()[8:])  # the length of the header
        with pytest.raises(EcgFileError, match="its weights cannot be read"):
            EcgResNetModel.from_pretrained(tmp_path)


def test_a_report_that_is_none_makes_no_card(tmp_path):
    """A card quotes files: one that a stranger made may be damaged, or quote things that break a page."""
    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(EcgDataError, match="not Parquet, or damaged"):
        render_card(tmp_path)
    pq.write_table(pa.table({"question": ["a"]}), tmp_path / "train.parquet")
    (tmp_path / "encode.json").write_text(json.dumps({"provenance": {"command": "encode"}, "splits": {"train": 1}}))
    with pytest.raises(EcgDataError, match="a report is not as its command writes it"):
        render_card(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    report = {"provenance": {"command": "evaluate"}, "exact_match": [1]}
    (tmp_path / "report.json").write_text(json.dumps(report))
    with pytest.raises(EcgDataError, match="does not say which model it is about"):
        render_card(tmp_path)
    report["provenance"]["model"] = [1]
    (tmp_path / "report.json").write_text(json.dumps(report))
    with pytest.raises(EcgDataError):
        render_card(tmp_path)


class TestVersions:
    """Files of an older and of a newer format."""

    @pytest.fixture
    def path(self, tmp_path):
        vocabulary()(tmp_path)
        return tmp_path / "ecg_byte.json"

    def test_an_older_one_is_migrated(self, path, monkeypatch):
        def with_note(stored):
            return {**stored, "algorithm": "bpe"}

        monkeypatch.setattr(vocabulary_ecg_byte, "FORMAT_VERSION", 3)
        monkeypatch.setattr(vocabulary_ecg_byte, "MIGRATIONS", {1: with_note, 2: dict})
        stored = read_ecg_byte_file(path)
        assert (stored["version"], stored["algorithm"]) == (3, "bpe")

    def test_an_older_one_without_a_way_says_what_to_do(self, path, monkeypatch):
        monkeypatch.setattr(vocabulary_ecg_byte, "FORMAT_VERSION", 2)
        with pytest.raises(VocabularyError, match="version 1; this ecgbyte_hf reads version 2; save it again"):
            read_ecg_byte_file(path)

    @pytest.mark.parametrize("version", [2, 1.5, True, "1"])
    def test_a_newer_or_strange_one_is_refused(self, path, version):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"version": version}))
        with pytest.raises(VocabularyError, match="upgrade ecgbyte-hf"):
            read_ecg_byte_file(path)


def table() -> str:
    """The cases above in Markdown."""
    lines = ["| input | refused by |", "| --- | --- |"]
    lines += [f"| {case.what} | `{case.error.__name__}` |" for case in (*READERS, *JSON_FILES)]
    return "\n".join(lines)


if __name__ == "__main__":
    import sys

    sys.stdout.write(f"{table()}\n")
