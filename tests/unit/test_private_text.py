"""What keeps a column from going out, and what does not: texts, JSON, XML, and files as bytes."""

import io
import json
import struct
import time
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from ecgbyte_hf.hub.private_data import table_problems
from ecgbyte_hf.hub.private_text import PATHS, SUBJECTS, TOKENS, column_problem, local_paths, shortened

TOKEN = "hf_" + "loopbackonly" * 3
#: A path -> what it is cut to in a JSON file of ours.
SPACED = {
    "/Users/First Last/ecg/x.dat": "x.dat",
    "/home/first van last/x.dat": "x.dat",
    "/srv/Heart Clinic/ecg/x.dat": "x.dat",
    "/Heart/Ward 7/My ECGs/x.dat": "x.dat",
    r"C:\Users\First Last\My ECGs\x.dat": "x.dat",
    r"D:\Heart Clinic\x.dat": "x.dat",
    "C:/Users/First Last/x.dat": "x.dat",
    r"\\server\Heart Clinic\x.dat": "x.dat",
    "~/ecg/x.dat": "x.dat",
    "file:///data/ecg/x.dat": "x.dat",
}


def exif(order: str, tag: int, *, size: int = 5) -> bytes:
    """A JPEG's first bytes, with one tag."""
    mark = b"II*\x00" if order == "<" else b"MM\x00*"
    entry = struct.pack(f"{order}HHII", tag, 2, size, 26)
    return b"\xff\xd8\xff\xe1\x00\x30Exif\x00\x00" + mark + struct.pack(f"{order}IH", 8, 1) + entry + b"\x00Ann\x00"


def dicom(tag: bytes, kind: bytes, value: bytes) -> bytes:
    return bytes(128) + b"DICM" + tag + kind + struct.pack("<H", len(value)) + value + bytes(64)


def tiff(order: str, tag: int, *, inside: bool = False) -> bytes:
    """A TIFF header with one tag, in its first directory or in the one that this points to."""
    mark = b"II*\x00" if order == "<" else b"MM\x00*"
    first = struct.pack(f"{order}HHHIII", 1, 0x8769, 4, 1, 26, 0) if inside else b""
    own = struct.pack(f"{order}HHHIII", 1, tag, 2, 5, 60, 0)
    return mark + struct.pack(f"{order}I", 8) + first + own + b"Ann\x00"


def png(kind: bytes, chunk: bytes) -> bytes:
    """A PNG file's first bytes with one chunk."""
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(chunk)) + kind + chunk + bytes(4)


def webp(chunk: bytes) -> bytes:
    return b"RIFF\x00\x01\x00\x00WEBPEXIF" + struct.pack("<I", len(chunk)) + chunk


def implicit(group: int, element: int, value: bytes) -> bytes:
    """A DICOM file without kinds of values, as its default transfer syntax writes it."""
    return bytes(128) + b"DICM" + struct.pack("<HHI", group, element, len(value)) + value + bytes(64)


class TestPaths:
    @pytest.mark.parametrize("path", SPACED)
    def test_with_spaces_are_found_and_cut(self, path):
        assert column_problem(pa.array(["fine", path])) == PATHS
        assert column_problem(pa.array([path.encode()])) in (PATHS, None)  # in bytes more has to fit
        assert shortened(path) == SPACED[path]

    @pytest.mark.parametrize("path", [path for path in SPACED if path != "/Heart/Ward 7/My ECGs/x.dat"])
    def test_inside_of_a_text(self, path):
        assert column_problem(pa.array([f"it was loaded from {path} yesterday"])) == PATHS
        assert column_problem(pa.array([json.dumps({"note": f"see {path}"})])) == PATHS
        assert column_problem(pa.array([repr({"note": f"see {path}"})])) == PATHS

    def test_in_bytes(self):
        for path in ("/Users/First Last/ecgs", r"C:\Users\First Last\x.dat", r"\\server\Heart Clinic\ecgs"):
            assert column_problem(pa.array([b"\x00\xff" + path.encode() + b"\x00\xfe"])) == PATHS

    def test_in_command_lines(self):
        line = r"--data /Users/First Last/runs/data --log C:\Users\First Last\log.txt --output rows"
        assert shortened(line) == "--data data --log log.txt --output rows"
        assert local_paths(line) == ["/Users/First Last/runs/data", r"C:\Users\First Last\log.txt"]

    @pytest.mark.parametrize(
        "text",
        [
            "500/100 Hz, 25 mm/s and/or 10 mm/mV",
            "records500/00000/00001_hr",
            "https://physionet.org/content/ptb-xl/1.0.3/ and https://x.org/home/a b/c.html",
            "V1/V2/V3, I: normal. II:/ ",
            "p < 0.05 / n = 3 / 4",
            "a \\\\ b, \\frac{1}{2}",
            "<|ecg_start|><|ecg_17|><|ecg_end|> Is it</think>",
            "the patient is 56 years old; patients: 3; case of AV block",
            '{"NORM": 100.0, "patients": 12, "patient_age": 56, "name": "rhythm", "doctor": "yes"}',
            "{'SR': 0.0, 'patient_id': None, 'mrn': ''}",
            "Doctor: what is it? Patient: my chest hurts.",
            "Patient ID: ___, MRN: unknown, DOB: [removed]",
            "A:/yes",
            "Answer A:/B:/C: {ecg}",
            r"A:\ntest\nB:\ntest2",
            r"C:\normal ECG",
            "/normal/abnormal",
            "case number: 12 of 300 beats",
            "<name>x</name><svg><g>1</g></svg>",
            "",
            None,
        ],
    )
    def test_what_is_none(self, text):
        assert column_problem(pa.array([text], pa.string())) is None
        assert column_problem(pa.array([None if text is None else text.encode()], pa.binary())) is None
        if text:
            assert shortened(text) == text

    def test_a_new_line_that_was_written_out_is_none(self):
        assert column_problem(pa.array(["Q:\\nIs the rhythm regular?\\nA:\\nYes"])) is None
        assert column_problem(pa.array(["C:\\new\\x.dat"])) == PATHS
        template = "{{ 'Q:\\n' }}{{ question }}\\nA:\\n"
        assert local_paths(template) == [] and shortened(template) == template
        assert local_paths(r"at C:\new\x.dat now") == [r"C:\new\x.dat"]


class TestPatients:
    @pytest.mark.parametrize(
        ("text", "what"),
        [
            ('{"facts": [{"patient_id": 17}]}', "holds JSON with 'patient_id'"),
            ('{"rows": "[{\\"mrn\\": \\"A-17\\"}]"}', "holds JSON with 'mrn'"),
            ('{"patients": {"17": 1}}', "holds JSON with 'patients'"),
            ("{'maiden_name': 'Doe'}", "holds JSON with 'maiden_name'"),
            ('answer {"subject_id": 17, "x": 1} end', 'says who a patient is (subject_id":'),
            ('{"path": "files/p1000/p10000032/s40689238/40689238"}', SUBJECTS),
            (json.dumps({"a": {"b": [TOKEN]}}), TOKENS),
            ("Patient ID: A17", "says who a patient is (Patient ID:"),
            ("# mrn = 17", "says who a patient is (mrn ="),
            ("Geburtsdatum: 1.1.1950", "says who a patient is (Geburtsdatum:"),
            ("<a><PatientLastName>Smith</PatientLastName></a>", "holds XML with 'PatientLastName'"),
            ('<hl7:DateofBirth type="x">1950</hl7:DateofBirth>', "holds XML with 'DateofBirth'"),
        ],
    )
    def test_in_texts_and_in_the_same_as_bytes(self, text, what):
        for column in (pa.array(["fine", text]), pa.array([b"fine", text.encode()])):
            assert column_problem(column).startswith(what)

    def test_a_wfdb_header(self):
        header = b"00001_hr 12 500 5000\n00001_hr.dat 16 1000(0)/mV 16 0 -115 23 0 I\n#<age>: 56 <sex>: M\n"
        assert column_problem(pa.array([header])) is None
        assert "Patient ID" in column_problem(pa.array([header + b"# Patient ID: 15709\n"]))
        assert column_problem(pa.array([header + b"# from /data/Heart Clinic/raw/1.dat\n"])) == PATHS

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_pictures(self, order):
        for tag in (0x013B, 0x8825, 0xA430):
            assert "EXIF names a person or a place" in column_problem(pa.array([exif(order, tag)]))
        for harmless in (exif(order, 0x0112), exif(order, 0x013B, size=0), exif(order, 0x8825)[:20]):
            assert column_problem(pa.array([harmless])) is None

    def test_dicom_and_edf(self):
        name = b"\x10\x00\x10\x00"
        assert "DICOM files that name" in column_problem(pa.array([dicom(name, b"PN", b"Doe^Jane")]))
        assert column_problem(pa.array([dicom(name, b"PN", b"")])) is None
        assert column_problem(pa.array([dicom(b"\x08\x00\x10\x00", b"PN", b"Doe^Jane")])) is None
        for patient, found in ((b"A17 F 02-MAY-1951 Doe_Jane", True), (b"X F X X", False), (b"X X X X", False)):
            file = b"0       " + patient.ljust(80) + b"Startdate X X X X".ljust(80)
            assert (column_problem(pa.array([file])) is not None) is found

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_pictures_of_other_kinds(self, order):
        for inside in (False, True):
            for write in (bytes, lambda header: png(b"eXIf", header), webp, lambda header: webp(b"Exif\0\0" + header)):
                for tag, found in ((0x013B, True), (0xA430, True), (0x0112, False)):
                    problem = column_problem(pa.array([write(tiff(order, tag, inside=inside))]))
                    assert (problem is not None and "EXIF names a person" in problem) is found

    def test_texts_of_a_png(self):
        packed = zlib.compress(b"Ann Smith")
        for kind, chunk in (
            (b"tEXt", b"Author\0Ann Smith"),
            (b"tEXt", b"Patient Name\0Smith"),
            (b"zTXt", b"Author\0\0" + packed),
            (b"iTXt", b"Author\0\x01\0en\0Autor\0" + packed),
            (b"iTXt", b"Author\0\0\0\0\0Ann Smith"),
        ):
            assert "texts name a person" in column_problem(pa.array([png(kind, chunk)]))
        for chunk in (b"Software\0Matplotlib 3.9, https://matplotlib.org/", b"Author\0", b"Author\0\0\0\0\0"):
            kind = b"iTXt" if chunk.endswith(bytes(5)) else b"tEXt"
            assert column_problem(pa.array([png(kind, chunk)])) is None

    @pytest.mark.parametrize(
        ("group", "element", "kind"),
        [
            (0x10, 0x10, b"PN"),
            (0x10, 0x20, b"LO"),
            (0x10, 0x30, b"DA"),
            (0x10, 0x1001, b"PN"),
            (0x10, 0x1040, b"LO"),
            (0x10, 0x2154, b"SH"),
            (0x08, 0x90, b"PN"),
        ],
    )
    def test_dicom_elements(self, group, element, kind):
        tag = struct.pack("<HH", group, element)
        assert "DICOM files that name" in column_problem(pa.array([implicit(group, element, b"1950 Doe")]))
        assert "DICOM files that name" in column_problem(pa.array([dicom(tag, kind, b"1950 Doe")]))
        for value in (b"", b"ANONYMOUS ", b"XXX^XX", b"\x01\x02\x03\x04"):
            assert column_problem(pa.array([implicit(group, element, value)])) is None
            assert column_problem(pa.array([dicom(tag, kind, value)])) is None

    @pytest.mark.parametrize(
        "text",
        [
            '<a><birthTime value="19500203"/></a>',
            '<trialSubject classCode="RESSBJ"><id root="2.16" extension="S-4711"/></trialSubject>',
            "<subjectDemographicPerson>\n<name use='L'>JD</name></subjectDemographicPerson>",
            "<patient><name><prefix>Dr</prefix></name></patient>",
            '<name><family value="Smith"/></name>',
            "<name><given>Jane</given></name>",
            '<hl7:record patientID="4711" x="1"/>',
            "<r><PatientLastName>Müller</PatientLastName></r>",
        ],
    )
    def test_xml_of_other_kinds(self, text):
        encoded = [text.encode(one) for one in ("utf-8", "latin-1", "utf-16", "utf-16-le", "utf-16-be")]
        for column in (pa.array([text]), *(pa.array([one]) for one in encoded)):
            assert "XML with" in column_problem(column)

    @pytest.mark.parametrize(
        "text",
        [
            '<trialSubject><id root="2.16"/></trialSubject><id extension="ecg-1"/><name>x</name>',
            '<birthTime nullFlavor="MSK"/><birthTime value=""/><PatientID value="unknown"/>',
            '<subjectDemographicPerson><name nullFlavor="MSK"/><age value="56"/></subjectDemographicPerson>',
            '<svg xmlns="http://www.w3.org/2000/svg" width="3"><text name="x" font-family="Arial">I</text></svg>',
            '{"resourceType": "Observation", "code": {"text": "ECG"}, "subject": {"display": "x"}}',
        ],
    )
    def test_xml_that_names_nobody(self, text):
        for column in (pa.array([text]), pa.array([text.encode()]), pa.array([text.encode("utf-16")])):
            assert column_problem(column) is None

    @pytest.mark.parametrize(
        "content",
        [
            {"resourceType": "Patient", "name": [{"text": "x"}]},
            {"entry": [{"name": [{"family": "Smith", "given": ["Jane"]}]}]},
            {"resourceType": "Observation", "subject": {"reference": "Patient/4711"}},
        ],
    )
    def test_json_of_fhir(self, content):
        assert "as FHIR writes one" in column_problem(pa.array([json.dumps(content)]))

    def test_comments_of_a_wfdb_header(self):
        header = "00001 12 500 5000\n00001.dat 16 1000(0)/mV 16 0 -115 23 0 I\n"
        for comment in ("# Patient: 4711", "#Name: Smith", "# <name>: Smith", "# Patient: Müller"):
            for column in (pa.array([header + comment]), pa.array([(header + comment).encode("latin-1")])):
                assert column_problem(column) == "holds WFDB headers that name a patient"
        for comment in ("# Patient: unknown", "#Age: 56", "# Patient 1"):
            assert column_problem(pa.array([header + comment])) is None
        assert column_problem(pa.array(["# Patient: a woman of 67 years\nHer ECG ..."])) is None

    @pytest.mark.parametrize("value", ["/Users/First Last/ecg/x.dat", '{"mrn": 17}'])
    def test_wherever_it_is(self, value, tmp_path):
        text, raw = pa.array([value, "a"]), pa.array([value.encode(), b"a"])
        for number, column in enumerate(
            (
                text,
                raw,
                text.dictionary_encode(),
                raw.cast(pa.large_binary()),
                pa.array([value.encode()], pa.binary(len(value))),
                text.cast(pa.string_view()),
                pa.array([[["b"], [value]]]),
                pa.array([[[b"b"], [value.encode()]]]),
                pa.array([{"a": 1, "b": {"c": [value]}}]),
                pa.array([[{"bytes": value.encode(), "path": "x"}]]),
                pa.array([[("k", value)]], pa.map_(pa.string(), pa.string())),
                pa.array([[value, "b"]], pa.list_(pa.string(), 2)),
                pa.array([[value]], pa.large_list(pa.large_string())),
            )
        ):
            path = tmp_path / f"{number}.parquet"
            pq.write_table(pa.table({"ecg_id": range(len(column)), "facts": column}), path)
            (problem,) = table_problems(path, shown="x")
            assert problem.startswith("x: the column facts ") and problem.endswith("--drop-columns facts"), column.type
            assert "First" not in problem and "17" not in problem
        for column in (pa.array([[value]], pa.list_view(pa.string())), pa.array([value]).cast(pa.json_())):
            assert column_problem(column) is not None


class TestRealData:
    """No column of public data is kept back without a reason."""

    def test_ptb_xl_and_mimic(self, test_data):
        names = ("ptbxl/ptbxl_database.csv", "ptbxl100/labels.csv", "mimic_iv_ecg/machine_measurements.csv")
        for name in names:
            table = pyarrow.csv.read_csv(test_data / name)
            for column in table.column_names:
                assert column_problem(table.column(column).cast(pa.string())) is None, (name, column)
        paths = pyarrow.csv.read_csv(test_data / "mimic_iv_ecg/record_list.csv").column("path")
        assert column_problem(paths) == SUBJECTS

    def test_ecg_qa(self, test_data):
        files = sorted((test_data / "ecg_qa/ecgqa").rglob("*.json"))
        rows = [row for path in files for row in json.loads(path.read_text())]
        assert len(rows) == 790
        for write in (json.dumps, repr, lambda row: f"Q: {row['question']}\nA: {row['answer']}"):
            assert column_problem(pa.array([write(row) for row in rows])) is None

    def test_recordings_as_bytes(self, test_data):
        for ending, count in ((".hea", 200), (".dat", 40)):
            files = sorted((test_data / "ptbxl/records500").rglob(f"*{ending}"))[:count]
            assert len(files) > 30
            assert column_problem(pa.array([path.read_bytes() for path in files])) is None

    def test_files_that_name_their_patient(self, test_data):
        files = ("dicom/waveform_ecg.dcm", "ge_muse/musePHI_muse_ecg1.xml", "aecg/LIRYC_hl7aecg_100hz.xml")
        for name in files:
            assert column_problem(pa.array([(test_data / "ood" / name).read_bytes()])) is not None, name


def test_noise_is_nothing():
    noise = np.random.default_rng(0)
    assert column_problem(pa.array([noise.bytes(1 << 18) for _ in range(8)])) is None
    buffer = io.BytesIO()
    np.savez_compressed(buffer, noise.normal(size=50_000))
    assert column_problem(pa.array([buffer.getvalue()])) is None


def test_time_is_linear():
    """Four times the text takes no sixteen times: what RE2 and bounded patterns promise."""
    pieces = [
        "/home/",
        "\\",
        "\\\\a",
        "a ",
        "C:\\",
        '"a',
        '\\"',
        "<x ",
        "/",
        "Patient ",
        "{",
        "p1",
        '<a b="',
        "<a b='c' ",
        "<patient>",
        "# name",
    ]
    taken = []
    for size in (10_000, 40_000):
        texts = [piece * (size // len(piece)) for piece in pieces]
        start = time.process_time()
        for text in texts:
            column_problem(pa.array([text]))
            column_problem(pa.array([text.encode()]))
            shortened(text)
        taken.append(time.process_time() - start)
    assert taken[1] < 9 * taken[0] + 0.5
