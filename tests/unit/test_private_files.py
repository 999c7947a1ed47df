"""What files outside of tables say: names of files, texts, pictures, metadata of weights."""

import json
import struct
import time
import zlib

import numpy as np
import pytest
from safetensors.numpy import save_file

from ecgbyte_hf.hub.private_files import binary_problems, name_problems, text_problems
from ecgbyte_hf.hub.private_text import has_token, names_a_patient

LETTERS = "Ab1" * 20


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file's first bytes."""
    written = [struct.pack(">I", len(chunk)) + kind + chunk + bytes(4) for kind, chunk in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


@pytest.mark.parametrize(
    "token",
    [
        "hf_" + LETTERS,
        "ghp_" + LETTERS,
        "github_pat_" + LETTERS,
        "glpat-" + LETTERS,
        "sk-proj-" + LETTERS,
        "sk-ant-" + LETTERS,
        "sk-" + LETTERS,
        "AKIA" + "IOSFODNN7EXAMPLE",
        "AIza" + LETTERS,
        "xoxb-" + LETTERS,
    ],
)
def test_tokens_of_services(token):
    assert has_token(f"key={token} ") and not has_token(f"a{token}") and not has_token(token[:12])


class TestTexts:
    @pytest.mark.parametrize(
        ("text", "what"),
        [
            ("as in files/p1000/p10000032/s40689238", "paths with MIMIC's patient numbers"),
            ("MRN: 88211", "says who a patient is (MRN: ...)"),
            ("Patient ID: 4711, name SMITH^JOHN", "says who a patient is (Patient ID: ...)"),
            ("of\nPatient name: Smith, John\n", "says who a patient is (Patient name: ...)"),
            ("Date of birth: 1.2.1950", "says who a patient is (Date of birth: ...)"),
        ],
    )
    def test_of_cards_and_reports(self, text, what):
        for name in ("README.md", "a/LICENSE", "x.svg", ".eval_results/x.yaml"):
            (problem,) = text_problems(name, text)
            assert problem.startswith(name) and what in problem
        (problem,) = text_problems("eval.json", json.dumps({"rows": [{"note": text}]}))
        assert what in problem and "4711" not in problem and "Smith" not in problem

    @pytest.mark.parametrize(
        "text",
        [
            "patient_id: the patient's number\nsubject_id: int64\n- name: patient_id\n  dtype: int64",
            "Patient ID: unknown. Patient name: The name of the patient in words. MRN: ___",
            "patient_id: 18869 distinct values. Number of patients: 12; patients: 300; age: 56",
            "ecgbyte push prepared someone/x --drop-columns patient_id name",
            "| `patient_id` | 12 |",
            "500 Hz, p < 0.05, p1000000, cap10000032",
        ],
    )
    def test_that_describe_columns(self, text):
        assert text_problems("README.md", text) == text_problems("x.json", json.dumps({"a": text})) == []

    def test_of_programs_and_vocabularies(self):
        assert text_problems("x.py", "patient_id = row7") == []
        assert text_problems("tokenizer.json", json.dumps({"p10000032": 1})) == []
        assert text_problems("report.json", json.dumps({"p10000032": 1})) != []

    def test_time_is_linear(self):
        taken = []
        for size in (20_000, 80_000):
            start = time.process_time()
            names_a_patient("MRN:1-" * (size // 6) + " of")
            for piece in ("Patient name: A", "MRN: a", "MRN: 1 of ", "Patient name: Ab Ab Ab Ab ", "p10000032/"):
                names_a_patient(piece * (size // len(piece)))
            taken.append(time.process_time() - start)
        assert taken[1] < 9 * taken[0] + 0.5


def test_names_of_files():
    (problem,) = name_problems("p1000/p10000032/s40689238.png")
    assert "MIMIC's patient numbers" in problem and "10000032" not in problem
    assert name_problems("records/p1000/00001.png") == []


class TestPictures:
    @pytest.mark.parametrize(
        ("chunk", "what"),
        [
            ((b"tEXt", b"Author\0Ann Smith"), "texts name a person"),
            ((b"tEXt", b"Comment\0Patient ID: 4711"), "says who a patient is"),
            ((b"zTXt", b"Comment\0\0" + zlib.compress(b"Patient ID: 4711")), "says who a patient is"),
            ((b"zTXt", b"Comment\0\0" + zlib.compress(b"/home/ann/secret/x.dat")), "paths of files"),
            ((b"eXIf", b"II*\0" + struct.pack("<IHHHII", 8, 1, 0x013B, 2, 5, 26) + b"Ann\0"), "EXIF names a person"),
        ],
    )
    def test_texts_of_a_png(self, chunk, what, tmp_path):
        (tmp_path / "x.png").write_bytes(png(chunk))
        (problem,) = binary_problems("a/x.png", tmp_path / "x.png")
        assert problem.startswith("a/x.png") and what in problem

    def test_of_matplotlib(self, tmp_path):
        from matplotlib.figure import Figure

        figure = Figure()
        figure.subplots().plot(np.random.default_rng(0).normal(size=500))
        for name in ("x.png", "x.pdf"):
            figure.savefig(tmp_path / name)
            assert binary_problems(name, tmp_path / name) == []
        figure.savefig(tmp_path / "x.pdf", metadata={"Subject": "from /home/ann/secret/x.dat"})
        (problem,) = binary_problems("x.pdf", tmp_path / "x.pdf")
        assert "paths of files on a machine" in problem and "ann" not in problem


class TestWeights:
    def test_metadata(self, tmp_path):
        path = tmp_path / "x.safetensors"
        for noted, what in (
            ({"made_of": "/home/ann/secret/x"}, "paths of files on a machine"),
            ({"key": "hf_" + LETTERS}, "holds a token of the Hub"),
            ({"key": "MRN: 88211"}, "says who a patient is"),
        ):
            save_file({"a": np.zeros(2, np.float32)}, path, metadata=noted)
            (problem,) = binary_problems("x.safetensors", path)
            assert what in problem and "ann" not in problem
        for noted in (None, {"format": "pt", "source": "someone/llama"}):
            save_file({"a": np.zeros(2, np.float32)}, path, metadata=noted)
            assert binary_problems("x.safetensors", path) == []
        path.write_bytes(b"weights")
        assert binary_problems("x.safetensors", path) == []
