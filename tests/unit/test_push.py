"""`ecgbyte push` without a Hub: what a folder is, what goes out, what is cut away, what forbids to publish it."""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.utils import httpx
from safetensors.numpy import load_file, save_file

from ecgbyte_hf import cli
from ecgbyte_hf.data.ecg_parts import note_base
from ecgbyte_hf.data.hub_folder import is_repo_id, local_or_hub_folder, without_tokens
from ecgbyte_hf.hub.cards import render_card, write_card
from ecgbyte_hf.hub.kinds import REPO_TYPES, kind_of
from ecgbyte_hf.hub.private_data import local_paths, scrubbed_json, shortened, table_problems, without_columns
from ecgbyte_hf.hub.push import PushOptions, _check_base, _check_named_base, _complete_card, push_folder
from ecgbyte_hf.hub.staging import stage_folder
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgFileError, EcgHubError
from ecgbyte_hf.training.training_log import write_training_log

TOKEN = "hf_" + "loopbackonly" * 3
CARD = "---\nlicense: apache-2.0\n---\n# A test\n"


def write_table(path: Path, **columns) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def with_card(folder: Path, text: str = CARD) -> Path:
    (folder / "README.md").write_text(text)
    return folder


def problems_of(folder: Path, **options) -> str:
    """Why a folder is not pushed."""
    with pytest.raises(EcgHubError) as caught:
        push_folder(folder, "someone/x", PushOptions(**options), dry_run=True)
    return str(caught.value)


@contextmanager
def push_staged(folder: Path, options: PushOptions):
    """A folder as it would be published, with its card."""
    with tempfile.TemporaryDirectory() as place:
        stage = stage_folder(folder, Path(place), "dataset", dropped_columns=options.dropped_columns)
        _complete_card(stage, folder, "someone/x", options)
        yield stage


@pytest.fixture
def rows(tmp_path):
    """A data set that may go out."""
    write_table(tmp_path / "rows/train.parquet", ecg_id=[1, 2], question=["is it?", "why?"])
    return with_card(tmp_path / "rows")


@pytest.fixture
def llm(small_llm, tmp_path):
    return with_card(shutil.copytree(small_llm, tmp_path / "llm"))


@pytest.fixture
def adapter(llm, tmp_path):
    """Adapter of `llm`, as PEFT and `ecgbyte sft` leave one."""
    folder = tmp_path / "adapter"
    shutil.copytree(llm / "ecg_byte", folder / "ecg_byte")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(llm / name, folder)
    save_file({"lora": np.ones(2, np.float32)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(llm), "r": 8}))
    return with_card(folder)


@pytest.fixture(scope="module")
def two_stage(small_llm, small_prepared, tmp_path_factory):
    """A model with an encoder in front, as `ecgbyte extend-llm` leaves one."""
    from tiny_ecg_llm import save_encoder

    from ecgbyte_hf.data.prompts import EcgPrompt
    from ecgbyte_hf.training.extend_ecg_llm import extend_ecg_llm

    place = tmp_path_factory.mktemp("two-stage")
    base = small_prepared.folder.with_name("tiny-llama")  # that `small_llm` was made of
    prompt = EcgPrompt(max_length=192, reserve=16)
    return extend_ecg_llm(save_encoder(place / "encoder"), str(base), place / "llm", prompt=prompt).folder


@pytest.fixture
def encoder(tmp_path):
    """Files of an encoder with its code; its weights fit no layers."""
    folder = tmp_path / "encoder"
    folder.mkdir()
    auto_map = {"AutoConfig": "configuration_x.XConfig", "AutoModel": "modeling_x.XModel"}
    (folder / "config.json").write_text(json.dumps({"model_type": "ecg_resnet", "auto_map": auto_map}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"feature_extractor_type": "X"}))
    save_file({"layer": np.ones(2, np.float32)}, folder / "model.safetensors")
    (folder / "configuration_x.py").write_text("from .errors_x import Error\n")
    (folder / "modeling_x.py").write_text("from .configuration_x import XConfig\n")
    (folder / "errors_x.py").write_text("class Error(ValueError): pass\n")
    return with_card(folder)


class Hub:
    """A Hub whose only model is what a folder holds."""

    def __init__(self, folder: Path, name: str = "someone/llm", *, is_large: bool = True) -> None:
        self.folder, self.name, self.is_large = folder, name, is_large

    def list_repo_tree(self, name, revision, recursive, repo_type):
        for path in self.folder.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                lfs = SimpleNamespace(sha256=hashlib.sha256(content).hexdigest())
                lfs = lfs if path.suffix == ".safetensors" and self.is_large else None
                blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
                yield SimpleNamespace(path=path.relative_to(self.folder).as_posix(), lfs=lfs, blob_id=blob)

    def hf_hub_download(self, name, file, revision):
        return str(self.folder / file)

    def model_info(self, name):
        if name != self.name:
            request = httpx.Request("GET", "https://nowhere")
            raise RepositoryNotFoundError("no such", response=httpx.Response(404, request=request))


class TestNames:
    def test_of_the_hub(self):
        assert all(is_repo_id(name) for name in ("a/b", "someone/ecg-byte.v2", "A1/b_c"))
        assert not any(is_repo_id(name) for name in ("b", "a/b/c", "/a/b", "./a", "../a", "a/", "a/.b", "a b/c"))

    def test_a_folder_goes_first(self, tmp_path, monkeypatch):
        (tmp_path / "someone/x").mkdir(parents=True)
        monkeypatch.chdir(tmp_path)
        assert local_or_hub_folder("someone/x", made_by="y") == Path("someone/x")
        with pytest.raises(
            EcgFileError, match="^nowhere is not there; expected a folder that `ecgbyte y` wrote, or USER"
        ):
            local_or_hub_folder("nowhere", made_by="ecgbyte y")

    def test_tokens_are_cut(self):
        assert without_tokens(f"a\n {TOKEN} b") == "a hf_... b"


class TestKinds:
    def test_each(self, rows, llm, adapter, encoder, small_ecg_byte, small_prepared):
        found = {
            kind_of(folder): folder for folder in (rows, small_prepared.folder, llm, adapter, encoder, small_ecg_byte)
        }
        assert set(found) == set(REPO_TYPES)
        assert (found["dataset"], found["language_model"]) == (small_prepared.folder, adapter)

    def test_none(self, tmp_path):
        with pytest.raises(EcgHubError, match="no config.json of a model and no Parquet file; expected what"):
            kind_of(tmp_path)
        with pytest.raises(EcgHubError, match="nowhere is not there"):
            kind_of(tmp_path / "nowhere")


class TestPaths:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("/home/ann/ptb-xl", "ptb-xl"),
            ("--data /scratch/a/b --output rows", "--data b --output rows"),
            ("file:///home/ann/x.csv", "x.csv"),
            ("~/ecg/runs", "runs"),
            (r"C:\Users\ann\ptb-xl", "ptb-xl"),
            ("files/p1000/p10000032/s40689238/40689238: no V6", "40689238: no V6"),
            ("/data/mimic/files/p1000/p10000032/s40689238/40689238", "40689238"),
            ("p10000032", "(left out)"),
        ],
    )
    def test_are_cut_to_the_last_part(self, text, expected):
        assert shortened(text) == expected

    @pytest.mark.parametrize(
        "text",
        ["https://physionet.org/content/ptb-xl/1.0.3/", "500/100 Hz", "and/or/both", "someone/llama", "</a>/b/c"],
    )
    def test_what_is_none_stays(self, text):
        assert shortened(text) == text and local_paths(text) == []

    def test_of_json_files(self, tmp_path):
        path = tmp_path / "report.json"
        content = {
            "provenance": {"arguments": {"data": "/home/ann/prepared", "n": 3}},
            "overlap": {"train/test": {"patients": ["17", "18"], "ecgs": [1]}},
            "patients": 5,
            "refused": [{"record": "files/p1000/p10000032/s4/4", "name": "ok"}],
        }
        path.write_text(json.dumps(content))
        clean, changes = scrubbed_json(path)
        assert json.loads(clean) == {
            "provenance": {"arguments": {"data": "prepared", "n": 3}},
            "overlap": {"train/test": {"patients": 2, "ecgs": [1]}},
            "patients": 5,
            "refused": [{"record": "4", "name": "ok"}],
        }
        assert changes[0] == "provenance.arguments.data: a path was cut to 'prepared'" and len(changes) == 3

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("ecg_prompt.json", {"template": "Answer A:/B:/C: {ecg} one of /normal/abnormal"}),
            ("config.json", {"label2id": {"serial murmur": 1, "birth trauma": 2, "account": 3, "NORM": 0}}),
            ("generation_config.json", {"stop_strings": ["/a/b/c", "p10000032"], "patient": "x"}),
        ],
    )
    def test_what_a_model_computes_by_is_not_touched(self, name, content, tmp_path):
        path = tmp_path / name
        path.write_text(json.dumps(content))
        assert scrubbed_json(path) == (None, [])
        path.write_text(json.dumps({**content, "text_config": {"_name_or_path": "/home/ann/llama"}}))
        clean, changes = scrubbed_json(path)
        assert json.loads(clean) == {**content, "text_config": {"_name_or_path": "llama"}}
        assert changes == ["text_config._name_or_path: a path was cut to 'llama'"]

    @pytest.mark.parametrize("content", [{"a": {"b": ["at /home/ann/x"]}}, {"a": {"/home/ann/x": 1}}])
    def test_a_path_in_it_is_a_problem(self, content, llm):
        path = llm / "generation_config.json"
        path.write_text(json.dumps(content))
        text = problems_of(llm)
        assert "generation_config.json: " in text and "has a path of a machine" in text and "ann" not in text

    def test_what_needs_no_change_is_the_same_file(self, tmp_path):
        path = tmp_path / "tokenizer_config.json"
        path.write_text('{"chat_template": "{{ \'/a/b/c\' }}",\n "x": 1}')
        assert scrubbed_json(path) == (None, [])
        path.write_text("{")
        with pytest.raises(EcgDataError, match="tokenizer_config.json is not JSON"):
            scrubbed_json(path)


class TestTables:
    @pytest.mark.parametrize(
        "name", ["patient_id", "subject_id", "SubjectID", "name", "Birth Date", "date_of_birth", "MRN", "hadm_id"]
    )
    def test_a_column_that_identifies(self, name, tmp_path):
        path = write_table(tmp_path / "x.parquet", **{"ecg_id": [1], name: ["7"]})
        assert table_problems(path, shown="x") == [
            f"x: the column {name} identifies patients; leave it out with --drop-columns {name}"
        ]

    def test_inside_of_another(self, tmp_path):
        path = write_table(tmp_path / "x.parquet", facts=[{"age": 50, "mrn": "1"}])
        assert "the column facts identifies patients" in table_problems(path, shown="x")[0]

    def test_a_message_s_name_is_none(self, tmp_path):
        chat = [{"role": "tool", "content": "70 bpm", "name": "heart_rate"}]
        path = write_table(tmp_path / "x.parquet", messages=[chat], facts=[{"name": "qrs", "value": 90}])
        assert table_problems(path, shown="x") == []
        for person in ({"name": "x", "age": 50}, {"name": "x", "mrn": "1"}, {"first_name": "x"}):
            path = write_table(tmp_path / "x.parquet", facts=[[person]])
            assert "the column facts identifies patients" in table_problems(path, shown="x")[0]

    def test_an_empty_column_inside_of_another(self, tmp_path):
        for value, is_found in ((None, False), ("7", True)):
            fact = pa.array(
                [[{"age": 50, "mrn": value}], None], pa.list_(pa.struct({"age": "int64", "mrn": "string"}))
            )
            path = write_table(tmp_path / "x.parquet", ecg_id=[1, 2], facts=fact)
            assert bool(table_problems(path, shown="x")) is is_found

    def test_an_empty_column_does_not(self, tmp_path):
        path = write_table(tmp_path / "x.parquet", patient_id=pa.nulls(3, pa.string()), ecg_id=[1, 2, 3])
        assert table_problems(path, shown="x") == []

    @pytest.mark.parametrize(
        "name",
        "subject_id_hash patient_uuid person_id pid mrn_number patient_ids PatientsName id_patient pat_id "
        "patientidentifier recording_date acquisition_time anon_subject device_serial ecg.patient_id zip ip_address "
        "referring_physician patient_first_name mother_name account_number medical_record email_of_x".split(),
    )
    def test_a_longer_name_that_identifies(self, name, tmp_path):
        path = write_table(tmp_path / "x.parquet", **{name: ["7"]})
        assert f"the column {name} identifies patients" in table_problems(path, shown="x")[0]

    def test_names_that_do_not(self, rows):
        names = (
            "ecg_id sample_id record_id question_id template_id ecg_path filename_hr age sex patient_age device site "
            "lead_names sampling_rate attribute_type heart_axis study_id validated_by_human strat_fold cart_id"
        )
        write_table(rows / "train.parquet", **{name: ["7"] for name in names.split()}, ecg_time=["x"])
        made = push_folder(rows, "someone/x", dry_run=True)
        assert made.notes == [
            "train.parquet: the column ecg_time has dates or times; see that they are not those of a patient"
        ]

    @pytest.mark.parametrize(
        "value",
        ["/home/ann smith/ecg/x.dat", "loaded from /home/ann/ecg/x.dat", "C:/Users/ann/x.dat", r"\\host\share\x.dat"],
    )
    def test_places_of_other_kinds(self, value, tmp_path):
        assert value not in shortened(value) and shortened(value).endswith("x.dat")
        pairs = pa.array([[("file", value)]], pa.map_(pa.string(), pa.string()))
        for number, column in enumerate((pa.array([value]), pa.array([value], pa.string_view()), pairs)):
            path = write_table(tmp_path / f"{number}.parquet", place=column)
            assert "the column place holds paths of files on a machine" in table_problems(path, shown="x")[0]

    def test_what_is_noted_beside_the_columns(self, tmp_path):
        schema = pa.schema([("a", pa.int64())], metadata={"made_of": f"/home/ann/secret/x {TOKEN}"})
        pq.write_table(pa.table({"a": [1]}, schema=schema), tmp_path / "x.parquet")
        token, place = table_problems(tmp_path / "x.parquet", shown="x")
        assert "metadata holds a token of the Hub" in token and "metadata holds paths of files" in place

    @pytest.mark.parametrize(
        ("value", "what"),
        [
            ("files/p1000/p10000032/s40689238/40689238", "paths with MIMIC's patient numbers"),
            ("/home/ann/x", "paths of files on a machine"),
            (TOKEN, "a token of the Hub"),
        ],
    )
    def test_what_a_text_holds(self, value, what, tmp_path):
        for number, column in enumerate(([value], [[value]], [[{"content": value}]])):
            path = write_table(tmp_path / f"{number}.parquet", ecg_id=[1], place=column)
            (problem,) = table_problems(path, shown="x")
            assert f"the column place holds {what}" in problem and value not in problem
        path = write_table(tmp_path / "fine.parquet", place=["records500/00000/00001_hr"])
        assert table_problems(path, shown="x") == []

    def test_reports(self, tmp_path):
        def found(source="", **columns):
            path = write_table(tmp_path / "x.parquet", report=["sinus rhythm"], **columns)
            return table_problems(path, shown="x", source=source)

        assert "the column report holds reports of an unknown source" in found()[0]
        assert "the column report holds free text of MIMIC's reports" in found("mimic_iv_ecg")[0]
        assert "the column report holds free text of MIMIC's reports" in found(rr_interval=[1], p_onset=[2])[0]
        assert found("ptb_xl records500 reports") == found(scp_codes=["NORM"], strat_fold=[1]) == []

    def test_answers_that_are_reports(self, rows):
        write_table(rows / "train.parquet", ecg_id=[1], answer=[["sinus rhythm"]])
        (rows / "report.json").write_text(json.dumps({"source": "mimic_iv_ecg"}))
        assert "the column answer holds free text of MIMIC's reports" in problems_of(rows)
        (rows / "report.json").unlink()
        (rows / "encode.json").write_text(json.dumps({"provenance": {"data_source": "ecg_chat pretrain_mimic"}}))
        assert "the column answer holds free text of MIMIC's reports" in problems_of(rows)
        (rows / "encode.json").write_text(json.dumps({"provenance": {"data_source": "ecg_qa ptbxl-template"}}))
        assert push_folder(rows, "someone/x", dry_run=True).kind == "dataset"

    def test_reports_as_token_ids(self, tmp_path):
        path = write_table(tmp_path / "x.parquet", input_ids=[[1]], labels=[[1]], prompt=["a"], options=[["a"]])
        for source in ("mimic_iv_ecg", "ecg_chat pretrain_mimic"):
            found = table_problems(path, shown="x", source=source)
            assert [line.split()[3] for line in found] == ["input_ids", "labels", "prompt", "options"]
        assert table_problems(path, shown="x", source="ptb_xl records500 reports") == []
        write_table(path, input_ids=[[1]], labels=[[1]])
        assert table_problems(path, shown="x", source="mimic_iv_ecg", holds_raw_ids=True) == []
        write_table(path, ecg_id=[1], input_ids=[[1]])
        assert table_problems(path, shown="x", source="mimic_iv_ecg") == []

    def test_columns_are_left_out(self, tmp_path):
        from datasets import Dataset

        path = tmp_path / "x.parquet"
        Dataset.from_dict({"a": [1, 2], "name": ["x", "y"]}).to_parquet(path)
        gone = without_columns(path, ["name", "other"], tmp_path / "gone.parquet", keep_names=False)
        assert Dataset.from_parquet(str(gone), cache_dir=str(tmp_path)).to_dict() == {"a": [1, 2]}
        blank = without_columns(path, ["name"], tmp_path / "blank.parquet", keep_names=True)
        assert pq.read_table(blank).to_pylist() == [{"a": 1, "name": None}, {"a": 2, "name": None}]

    def test_no_table(self, tmp_path):
        (tmp_path / "x.parquet").write_bytes(b"PAR1 not")
        with pytest.raises(EcgDataError, match="x.parquet is no Parquet file that can be read"):
            table_problems(tmp_path / "x.parquet", shown="x")


class TestDataSets:
    def test_what_may_go_out(self, rows):
        made = push_folder(rows, "someone/x", dry_run=True)
        assert (made.kind, made.url, made.commit) == ("dataset", None, None)
        assert set(made.sizes) == {"README.md", "train.parquet"}
        assert made.sizes["train.parquet"] == (rows / "train.parquet").stat().st_size

    def test_a_patient_blocks_it_and_can_be_left_out(self, rows, capsys):
        write_table(rows / "train.parquet", ecg_id=[1], patient_id=["7"], birth_date=["1950"])
        text = problems_of(rows)
        assert "train.parquet: the column patient_id identifies" in text and "the column birth_date" in text
        given = ["push", str(rows), "someone/x", "--dry-run"]
        assert cli.main(given) == 1
        assert "the column patient_id identifies" in capsys.readouterr().err
        assert cli.main([*given, "--drop-columns", "patient_id", "birth_date"]) == 0
        assert pq.read_schema(rows / "train.parquet").names == ["ecg_id", "patient_id", "birth_date"]

    def test_links(self, rows, tmp_path):
        """Of files they are followed, of folders not: rows of a linked folder would be missing without a word."""
        elsewhere = write_table(tmp_path / "elsewhere/more.parquet", ecg_id=[3], question=["how?"])
        (rows / "linked.parquet").symlink_to(elsewhere)
        assert "linked.parquet" in push_folder(rows, "someone/x", dry_run=True).sizes
        (rows / "inner").mkdir()
        for name, target in {"data": elsewhere.parent, "inner/data": elsewhere.parent}.items():
            (rows / name).symlink_to(target)
            assert f"{name} is a link to a folder, which is not followed: put the folder" in problems_of(rows)
            (rows / name).unlink()
        (rows / "gone.parquet").symlink_to(tmp_path / "nowhere")
        assert "gone.parquet is a link to what is not there" in problems_of(rows)
        (rows / "gone.parquet").unlink()
        for name, target in {".git": elsewhere.parent, "checkpoint-5": tmp_path, "latest": rows / "inner"}.items():
            (rows / name).symlink_to(target)
        (rows / "x.pt").symlink_to(tmp_path / "nowhere")
        left_out = push_folder(rows, "someone/x", dry_run=True).left_out
        assert set(left_out) == {".git", "checkpoint-5", "latest", "x.pt"}
        assert left_out["latest"] == "a link to what is here already"

    def test_a_linked_part_of_a_model(self, llm, tmp_path):
        shutil.move(llm / "ecg_byte", tmp_path / "parts")
        (llm / "ecg_byte").symlink_to(tmp_path / "parts")
        assert problems_of(llm).splitlines()[1].startswith("  - ecg_byte is a link to a folder, which is not followed")

    def test_a_misspelt_column(self, rows):
        text = problems_of(rows, dropped_columns=("ecg_id", "questoin"))
        assert "--drop-columns questoin: no table has this column, expected one of ecg_id, question" in text
        assert "--drop-columns ecg_id" not in text

    def test_json_files_are_admitted_by_name(self, rows):
        for name in ("patients.json", "train.json"):
            (rows / name).write_text("[]")
        (rows / "encode.json").write_text("{}")
        made = push_folder(rows, "someone/x", dry_run=True)
        assert set(made.left_out) == {"patients.json", "train.json"} and "encode.json" in made.sizes

    def test_a_list_of_patients(self, rows):
        (rows / "report.json").write_text(json.dumps({"rows": [{"mrn": 10000032, "age": 50}]}))
        assert "report.json holds a list of objects with 'mrn', which identifies patients" in problems_of(rows)

    def test_numbers_and_keys_of_json_files(self, tmp_path):
        path = tmp_path / "report.json"
        content = {"/home/ann/x.dat": "nan", "patient_id": 10000032, "patients": {"17": 1, "18": 1}, "subjects": 3}
        path.write_text(json.dumps(content))
        clean, _ = scrubbed_json(path)
        assert json.loads(clean) == {"x.dat": "nan", "patient_id": "(left out)", "patients": 2, "subjects": 3}

    def test_a_patient_in_two_splits(self, small_prepared, tmp_path):
        folder = shutil.copytree(small_prepared.folder, tmp_path / "prepared")
        report = json.loads((folder / "report.json").read_text())
        pair = next(name for name, both in report["overlap"].items() if "ecgs" in both)
        report["overlap"][pair]["patients"] = ["17", "23"]
        (folder / "report.json").write_text(json.dumps(report))
        made = push_folder(folder, "someone/x", PushOptions(dropped_columns=("patient_id", "name")), dry_run=True)
        assert "README.md was written" in made.notes

    def test_a_transform_that_is_not_told(self, rows):
        write_table(rows / "train.parquet", signal=[[[0.1, 0.2]]])
        assert "no preprocessor_config.json says how they were cleaned" in problems_of(rows)
        write_table(rows / "train.parquet", prompt=["a"], completion=["b"])
        assert "no encode.json says how they were written" in problems_of(rows)
        (rows / "encode.json").write_text("{}")
        assert push_folder(rows, "someone/x", dry_run=True).kind == "dataset"

    def test_tables_of_different_columns_need_configurations(self, rows):
        write_table(rows / "more/part.parquet", other=[1])
        assert "has no `configs`, and the Parquet files have 2 different sets of columns" in problems_of(rows)
        configs = "configs:\n- {config_name: a, data_files: train.parquet}\n- {config_name: b, data_files: %s}\n"
        with_card(rows, f"---\n{configs % 'more/*.parquet'}---\n")
        assert push_folder(rows, "someone/x", dry_run=True).kind == "dataset"
        with_card(rows, f"---\n{configs % 'records/*.parquet'}---\n")
        assert "`configs` names records/*.parquet, and no file is called so" in problems_of(rows)

    @pytest.mark.parametrize("configs", ["[default]", "default", "{default: train.parquet}"])
    def test_malformed_configurations(self, rows, configs):
        with_card(rows, f"---\nlicense: mit\nconfigs: {configs}\n---\n")
        assert "`configs` must be a list of entries, each with config_name and data_files" in problems_of(rows)

    @pytest.mark.parametrize(
        ("name", "pattern"),
        [
            ("train.parquet", "**/*.parquet"),
            ("data/train.parquet", "data/**/*.parquet"),
            ("data/a/b/train.parquet", "data/**"),
            ("data/train.parquet", "data/*.parquet"),
            ("data/train.parquet", "train.parquet"),
        ],
    )
    def test_patterns_of_configurations(self, name, pattern, tmp_path):
        write_table(tmp_path / "rows" / name, ecg_id=[1])
        header = "---\nlicense: apache-2.0\nconfigs:\n- config_name: x\n  data_files: '{}'\n---\n# A test\n"
        push_folder(with_card(tmp_path / "rows", header.format(pattern)), "someone/x", dry_run=True)
        assert "no file is called so" in problems_of(with_card(tmp_path / "rows", header.format("**/test.parquet")))

    def test_a_prepared_folder(self, small_prepared, tmp_path):
        folder = with_card(shutil.copytree(small_prepared.folder, tmp_path / "prepared"))
        text = problems_of(folder)
        for column in ("patient_id", "name"):
            assert f"records/part-00000.parquet: the column {column} identifies patients" in text


class TestModels:
    def test_whole(self, llm):
        made = push_folder(llm, "someone/x", dry_run=True)
        assert made.kind == "language_model"
        assert {"model.safetensors", "ecg_byte/ecg_byte.json", "ecg_byte/ecg_prompt.json"} <= set(made.sizes)

    @pytest.mark.parametrize(
        ("name", "what"),
        [
            ("model.safetensors", "the weights"),
            ("tokenizer.json", "the language model's own tokenizer"),
            ("ecg_byte/ecg_byte.json", "vocabulary, calibration, sampling rate and lead order"),
            ("ecg_byte/preprocessor_config.json", "the cleaning of recordings"),
            ("ecg_byte/ecg_prompt.json", "the wording of prompts and their length budget"),
        ],
    )
    def test_what_is_missing_is_named(self, llm, name, what):
        (llm / name).unlink()
        text = problems_of(llm, kind="language_model")
        assert f"{name}" in text and "is missing" in text and what in text

    @pytest.mark.parametrize("kind", ["llm", "adapter", "encoder"])
    @pytest.mark.parametrize(
        "damage",
        [
            lambda content: b"weights",
            lambda content: b"",
            lambda content: content[:-3],
            lambda content: content + b"more",
            lambda content: content.replace(b'"F32"', b'"F64"'),
            lambda content: b"\2\0\0\0\0\0\0\0{}",
        ],
    )
    def test_weights_that_do_not_load(self, request, kind, damage):
        (path,) = request.getfixturevalue(kind).glob("*.safetensors")
        path.write_bytes(damage(path.read_bytes()))
        text = problems_of(path.parent, base="someone/llm" if kind == "adapter" else None)
        assert f"{path.name} is truncated, damaged or empty: save" in text

    def test_weights_in_several_files(self, llm):
        tensors = load_file(llm / "model.safetensors")
        (llm / "model.safetensors").unlink()
        names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
        order = sorted(tensors)
        parts = [{name: tensors[name] for name in half} for half in (order[::2], order[1::2])]
        for name, part in zip(names, parts, strict=True):
            save_file(part, llm / name)
        assert "model.safetensors is missing: the weights" in problems_of(llm)  # no loader finds these alone
        index = llm / "model.safetensors.index.json"
        places = {tensor: name for name, part in zip(names, parts, strict=True) for tensor in part}
        index.write_text(json.dumps({"weight_map": places}))
        assert set(names) <= set(push_folder(llm, "someone/x", dry_run=True).sizes)
        save_file({name: parts[1][name] for name in list(parts[1])[1:]}, llm / names[1])
        expected = f"{names[1]} lacks 1 tensors that {index.name} names, such as {next(iter(parts[1]))}"
        assert expected in problems_of(llm)
        (llm / names[1]).unlink()
        assert f"{index.name} names {names[1]}, which is missing" in problems_of(llm)
        index.write_text("{}")
        assert "has no weight_map" in problems_of(llm)

    def test_weights_elsewhere_are_not_the_model_s(self, llm):
        (llm / "model-old").mkdir()
        shutil.move(llm / "model.safetensors", llm / "model-old/x.safetensors")
        assert "model.safetensors is missing: the weights" in problems_of(llm)

    def test_a_tokenizer_of_another_model(self, llm):
        path = llm / "ecg_byte/ecg_byte.json"
        stored = json.loads(path.read_text())
        path.write_text(json.dumps(stored | {"merges": stored["merges"][:50]}))
        text = problems_of(llm)
        assert "ecg_byte" in text and ("different models" in text or "does not load" in text)

    def test_an_adapter_s_base_must_be_on_the_hub(self, adapter, llm):
        text = problems_of(adapter)
        assert "the adapter's base 'llm' is a folder here: push that extended base first and give --base" in text
        assert str(llm) not in text
        made = push_folder(adapter, "someone/x", PushOptions(base="someone/llm"), dry_run=True)
        assert "adapter_config.json: the base model is someone/llm" in made.notes
        assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == str(llm)

    def test_a_folder_that_looks_like_a_name(self, adapter, tmp_path):
        (tmp_path / "runs/llama-ecg").mkdir(parents=True)
        path = adapter / "adapter_config.json"
        path.write_text(json.dumps({"base_model_name_or_path": "runs/llama-ecg"}))
        assert "the adapter's base 'runs/llama-ecg' is a folder here" in problems_of(adapter)
        path.write_text(json.dumps({"base_model_name_or_path": "someone/llama-ecg"}))
        assert push_folder(adapter, "someone/x", dry_run=True).kind == "language_model"

    def test_the_base_on_the_hub_must_be_the_extended_one(self, adapter, llm, tmp_path):
        path = adapter / "adapter_config.json"
        path.write_text(json.dumps({"base_model_name_or_path": "someone/llm"}))
        stage = stage_folder(adapter, tmp_path / "stage", "language_model")
        _check_base(Hub(llm), stage, PushOptions())
        text = (llm / "tokenizer.json").read_text()
        (llm / "tokenizer.json").write_text(text.replace("<|ecg_", "<|x_"))
        with pytest.raises(EcgHubError, match="someone/llm is not the base .* no such ECG tokens"):
            _check_base(Hub(llm), stage, PushOptions())
        (llm / "config.json").unlink()
        with pytest.raises(EcgHubError, match=r"someone/llm holds no config.json"):
            _check_base(Hub(llm), stage, PushOptions())

    @pytest.mark.parametrize("is_large", [True, False])
    def test_another_base_with_the_same_tokens(self, adapter, llm, tmp_path, is_large):
        def check(base="someone/llm", **options):
            with tempfile.TemporaryDirectory() as place:
                stage = stage_folder(adapter, Path(place), "language_model", base=base)
                _check_base(Hub(copy, is_large=is_large), stage, PushOptions(base=base))
                return [note for note in stage.notes if "compared" in note]

        def changed(name, change):
            text = (llm / name).read_text()
            (copy / name).write_text(change(json.loads(text), json.dumps))
            with pytest.raises(EcgHubError, match=f"someone/llm is not the base .* its {name} is another one than"):
                check()
            (copy / name).write_text(text)

        copy = shutil.copytree(llm, tmp_path / "copy")
        assert check() == []
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(config | {"_name_or_path": "x", "transformers_version": "1"}))
        assert check() == []
        changed("config.json", lambda content, dump: dump(content | {"rms_norm_eps": 0.5}))
        changed("tokenizer.json", lambda content, dump: dump(content | {"normalizer": {"type": "Lowercase"}}))
        changed("ecg_byte/ecg_byte.json", lambda content, dump: dump(content | {"merges": content["merges"][:-1]}))
        weights = load_file(copy / "model.safetensors")
        save_file({name: 10 * tensor for name, tensor in weights.items()}, copy / "model.safetensors")
        with pytest.raises(
            EcgHubError, match=r"its model.safetensors is another one than that of the folder llm here"
        ):
            check()
        (copy / "model.safetensors").rename(copy / "model-00001-of-00001.safetensors")
        assert check() == [
            "the weights of someone/llm could not be compared with those of llm: they lie in other files"
        ]
        shutil.rmtree(llm)
        expected = "someone/llm could not be compared with what the adapter was trained on, which is not here"
        assert check() == [expected]

    def test_the_base_on_the_hub_of_one_with_an_encoder(self, two_stage, llm, tmp_path):
        """It must be the model with the encoder: its language model alone has no place for an ECG."""
        folder = shutil.copytree(
            two_stage, tmp_path / "adapter", ignore=shutil.ignore_patterns("config.json", "model*")
        )
        save_file({"lora": np.ones(2, np.float32)}, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(two_stage)}))
        stage = stage_folder(folder, tmp_path / "stage", "language_model", base="someone/llm", base_revision="abc")
        _check_base(Hub(two_stage), stage, PushOptions(base="someone/llm"))
        with pytest.raises(EcgHubError, match=r"someone/llm is not the base .* it has no encoder; push the extended"):
            _check_base(Hub(llm), stage, PushOptions(base="someone/llm"))

    def test_the_base_of_one_with_tokens_may_not_have_an_encoder(self, two_stage, adapter, tmp_path):
        stage = stage_folder(adapter, tmp_path / "stage", "language_model", base="someone/llm")
        with pytest.raises(EcgHubError, match="no such ECG tokens"):
            _check_base(Hub(two_stage), stage, PushOptions(base="someone/llm"))

    @pytest.mark.parametrize("with_encoder", [False, True])
    @pytest.mark.parametrize("noted", ["extend.json", "--base-model"])
    def test_what_a_card_says_it_began_as_is_on_the_hub(self, llm, two_stage, tmp_path, with_encoder, noted):
        folder = shutil.copytree(two_stage, tmp_path / "copy") if with_encoder else llm
        (folder / "README.md").unlink(missing_ok=True)
        options = PushOptions(base_model="someone/llama" if noted == "--base-model" else None)
        if noted == "extend.json":
            note_base(folder, "someone/llama")
        stage = stage_folder(folder, tmp_path / "stage", "language_model")
        _complete_card(stage, folder, "someone/x", options)
        assert "base_model: someone/llama\n" in (stage.folder / "README.md").read_text()
        _check_named_base(Hub(folder, "someone/llama"), stage)
        with pytest.raises(EcgHubError, match="README.md names a base model that is not found: someone/llama is"):
            _check_named_base(Hub(folder, "someone/llame"), stage)

    def test_extending_with_an_encoder_notes_its_base(self, two_stage, small_prepared, tmp_path):
        from tiny_ecg_llm import save_encoder

        from ecgbyte_hf.training.extend_ecg_llm import extend_ecg_llm

        base = shutil.copytree(small_prepared.folder.with_name("tiny-llama"), tmp_path / "base")
        note_base(base, "someone/llama", "abc")
        folder = extend_ecg_llm(save_encoder(tmp_path / "encoder"), str(base), tmp_path / "llm").folder
        noted = json.loads((folder / "extend.json").read_text())
        assert noted == {"base_model": "someone/llama", "revision": "abc"}
        assert not (two_stage / "extend.json").exists()

    def test_with_an_encoder(self, two_stage):
        made = push_folder(two_stage, "someone/x", dry_run=True)
        assert {"modeling_ecg_llm.py", "processor_config.json", "ecg_prompt.json", "README.md"} <= set(made.sizes)
        card = render_card(two_stage)
        assert "with an encoder of ECGs in front" in card and "| kind | ecg_resnet |" in card
        assert "How recordings are cleaned" not in card and "ecg_byte/" not in card

    @pytest.mark.parametrize("name", ["ecg_prompt.json", "processor_config.json", "modeling_ecg_llm.py"])
    def test_what_is_missing_of_one_with_an_encoder(self, two_stage, tmp_path, name):
        folder = shutil.copytree(two_stage, tmp_path / "copy")
        (folder / name).unlink()
        assert name in problems_of(folder)

    def test_an_adapter_of_one_with_an_encoder(self, two_stage, tmp_path):
        folder = tmp_path / "adapter"
        names = ("tokenizer.json", "tokenizer_config.json", "processor_config.json", "ecg_prompt.json")
        shutil.copytree(two_stage, folder, ignore=shutil.ignore_patterns("config.json", "model.safetensors"))
        save_file({"lora": np.ones(2, np.float32)}, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(two_stage)}))
        assert "is a folder here: push that extended base first" in problems_of(folder)
        made = push_folder(folder, "someone/x", PushOptions(base="someone/base"), dry_run=True)
        assert set(names) <= set(made.sizes) and not any(name.startswith("ecg_byte/") for name in made.sizes)
        code = {path.name for path in folder.glob("*.py")}
        for name in (*names[2:], *code):  # as `trl sft` leaves one
            (folder / name).unlink()
        made = push_folder(folder, "someone/x", PushOptions(base="someone/base"), dry_run=True)
        assert {*names, *code} <= set(made.sizes) and "processing_ecg_llm.py" in code
        assert f"{len(code)} files of code were taken from the base model's folder" in made.notes
        # The same of a base on the Hub, which is not seen from here.
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "someone/base"}))
        assert "--ecg" in problems_of(folder)
        made = push_folder(folder, "someone/x", PushOptions(ecg=two_stage), dry_run=True)
        assert {*names, *code} <= set(made.sizes)

    def test_ecg_parts_of_the_base(self, adapter, llm, tmp_path):
        shutil.rmtree(adapter / "ecg_byte")
        options = {"base": "someone/llm"}
        made = push_folder(adapter, "someone/x", PushOptions(**options), dry_run=True)
        assert "ecg_byte/ecg_prompt.json" in made.sizes
        parts = shutil.move(llm / "ecg_byte", tmp_path / "elsewhere" / "ecg_byte")
        assert "ecg_byte/ecg_byte.json is missing" in problems_of(adapter, **options)
        for place in (parts, Path(parts).parent):
            made = push_folder(adapter, "someone/x", PushOptions(**options, ecg=place), dry_run=True)
            assert "ecg_byte/ecg_prompt.json" in made.sizes

    def test_a_revision_of_the_base_is_published(self, adapter, tmp_path):
        path = adapter / "adapter_config.json"
        noted = {"base_model_name_or_path": "someone/llm", "r": 8}
        path.write_text(json.dumps(noted))
        for number, base in enumerate(("someone/llm", None)):
            stage = stage_folder(adapter, tmp_path / str(number), "language_model", base=base, base_revision="abc")
            published = json.loads((stage.folder / "adapter_config.json").read_text())
            assert published == noted | {"revision": "abc"}
            assert stage.notes == ["adapter_config.json: the base model is someone/llm at the revision abc"]
        assert json.loads(path.read_text()) == noted

    def test_a_whole_model_has_no_base(self, llm):
        assert "--base is for an adapter" in problems_of(llm, base="someone/llm")
        assert "--base-revision is for an adapter" in problems_of(llm, base_revision="abc")

    @pytest.mark.parametrize("option", ["base", "base_revision"])
    def test_nor_has_anything_else(self, rows, small_ecg_byte, encoder, option):
        for folder, kind in ((rows, "a data set"), (small_ecg_byte, "a tokenizer"), (encoder, "an encoder")):
            expected = f"are for an adapter, and {folder.name} is the folder of {kind}; leave them out"
            assert expected in problems_of(folder, **{option: "someone/llm"})

    def test_an_encoder(self, encoder):
        assert "errors_x.py" in push_folder(encoder, "someone/x", dry_run=True).sizes
        (encoder / "errors_x.py").unlink()
        assert "config.json: its auto_map needs errors_x.py, which is not in the folder" in problems_of(encoder)

    def test_an_encoder_without_its_shape(self, encoder):
        (encoder / "config.json").unlink()
        assert "config.json is missing: the encoder's shape" in problems_of(encoder, kind="encoder")

    def test_an_encoder_s_way_to_its_input(self, encoder):
        (encoder / "preprocessor_config.json").unlink()
        assert "preprocessor_config.json is missing: how a recording becomes" in problems_of(encoder)

    def test_code_of_another_repository(self, encoder):
        config = json.loads((encoder / "config.json").read_text())
        config["auto_map"]["AutoModel"] = "other/repo--modeling_x.XModel"
        (encoder / "config.json").write_text(json.dumps(config))
        assert "its auto_map names the code of other/repo" in problems_of(encoder)
        del config["auto_map"]
        (encoder / "config.json").write_text(json.dumps(config))
        assert "config.json has no auto_map" in problems_of(encoder)

    def test_what_stays_here(self, llm):
        names = ["training_args.bin", "optimizer.pt", "x.pkl", "checkpoint-5/model.safetensors", "notes.docx"]
        names += [".secret.json", "merged/model.safetensors", "data.parquet", "a/b.npy", "trainer_state.json"]
        for name in names:
            (llm / name).parent.mkdir(exist_ok=True)
            (llm / name).write_bytes(b"{}")
        made = push_folder(llm, "someone/x", dry_run=True)
        assert set(made.left_out) == set(names)
        assert made.left_out["optimizer.pt"] == "may hold a pickle"
        (llm / "pickle.model").write_bytes(b"\x80\x04N.")
        (llm / "archive.model").write_bytes(b"PK\x03\x04")
        (llm / "a/checkpoint-7").mkdir()
        (llm / "a/checkpoint-7/model.safetensors").write_bytes(b"x")
        further = set(push_folder(llm, "someone/x", dry_run=True).left_out) - set(names)
        assert further == {"pickle.model", "archive.model", "a/checkpoint-7/model.safetensors"}
        assert made.left_out["checkpoint-5/model.safetensors"] == "a checkpoint of the training"

    def test_models_inside_of_a_model_stay_here(self, llm, encoder):
        """Such as the best of a training: they are no part of this one."""
        inner = {
            "best/model.safetensors",
            "best/config.json",
            "best/ecg_byte/ecg_byte.json",
            "a/b/adapter_config.json",
        }
        for folder in (llm, encoder):
            for name in inner | {"signal/preprocessor_config.json"}:
                (folder / name).parent.mkdir(exist_ok=True, parents=True)
                (folder / name).write_text("{}")
            made = push_folder(folder, "someone/x", dry_run=True)
            assert set(made.left_out) == inner and "signal/preprocessor_config.json" in made.sizes
            assert made.left_out["best/config.json"] == "a model of its own: push this folder by itself"

    def test_a_token_in_a_file(self, llm):
        (llm / "training_log.json").write_text(json.dumps({"hub_token": TOKEN}))
        text = problems_of(llm)
        assert "training_log.json holds a token of the Hub" in text and TOKEN not in text

    def test_patients_outside_of_tables(self, llm):
        (llm / "training_log.json").write_text(json.dumps({"rows": ["Patient ID: 4711, name SMITH^JOHN"]}))
        (llm / "p1000/p10000032").mkdir(parents=True)
        (llm / "p1000/p10000032/s40689238.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        save_file({"a": np.zeros(1)}, llm / "adapter_x.safetensors", metadata={"from": "/home/ann/secret/x"})
        with_card(llm, f"{CARD}\nof files/p1000/p10000032/s40689238\n")
        text = problems_of(llm)
        assert "training_log.json says who a patient is (Patient ID: ...)" in text and "4711" not in text
        assert "README.md has paths with MIMIC's patient numbers" in text and "10000032" not in text
        assert "its place has MIMIC's patient numbers" in text
        assert "adapter_x.safetensors: its metadata holds paths of files on a machine" in text

    def test_a_card_s_links_into_the_hub(self, llm):
        links = '<img src="/datasets/someone/x/resolve/main/a.png"> [docs](/docs/hub/cards)'
        with_card(llm, f"{CARD}\n{links}\n")
        assert "README.md" in push_folder(llm, "someone/x", dry_run=True).sizes
        for further in ("[x](/home/ann/secret/x)", "at /heart/ann/secret/x.dat"):
            with_card(llm, f"{CARD}\n{links} {further}\n")
            assert "README.md names 1 places on a machine, such as x" in problems_of(llm)

    @pytest.mark.parametrize("name", ["LICENSE", ".eval_results/a.yaml", "chat_template.jinja"])
    def test_any_text_is_looked_through(self, llm, name):
        (llm / name).parent.mkdir(exist_ok=True)
        (llm / name).write_text(f"made at /home/ann/secret/x with {TOKEN}")
        text = problems_of(llm)
        assert f"{name} holds a token of the Hub" in text and f"{name} names 1 places on a machine" in text

    def test_paths_in_a_log_are_cut(self, llm):
        (llm / "training_log.json").write_text(json.dumps({"arguments": {"output_dir": str(llm)}}))
        made = push_folder(llm, "someone/x", dry_run=True)
        assert made.notes[0] == "training_log.json: arguments.output_dir: a path was cut to 'llm'"


class TestCards:
    @pytest.fixture
    def written(self, monkeypatch):
        """Cards by a stand-in for `ecgbyte_hf.hub.cards`."""
        calls = []

        def write_card(folder, *, kind, repo_id, license):
            calls.append((kind, repo_id, license))
            (folder / "README.md").write_text(f"---\nlicense: {license}\n---\n{repo_id}\n")
            return folder / "README.md"

        module = ModuleType("ecgbyte_hf.hub.cards")
        module.write_card = write_card
        monkeypatch.setitem(sys.modules, "ecgbyte_hf.hub.cards", module)
        return calls

    def test_is_written_where_there_is_none(self, rows, written):
        (rows / "README.md").unlink()
        made = push_folder(rows, "someone/x", PushOptions(license="cc-by-4.0"), dry_run=True)
        assert written == [("dataset", "someone/x", "cc-by-4.0")]
        assert "README.md" in made.sizes and made.notes == ["README.md was written"]
        assert not (rows / "README.md").exists()

    def test_or_where_a_trainer_wrote_it(self, llm, written):
        with_card(llm, "---\ntags: [generated_from_trainer]\n---\n")
        push_folder(llm, "someone/x", dry_run=True)
        assert [kind for kind, *_ in written] == ["language_model"]

    def test_is_utf_8(self, rows):
        (rows / "README.md").write_bytes("# Geräte\n".encode("latin-1"))
        assert "README.md is not UTF-8, which the Hub reads; save it as UTF-8" in problems_of(rows)
        assert "README.md is not UTF-8" in problems_of(rows, rewrite_card=True)

    def test_metadata_behind_a_mark_of_the_byte_order(self, rows):
        (rows / "README.md").write_text("\ufeff---\ntags: [x]\n---\n# Mine\n", encoding="utf-8")
        with push_staged(rows, PushOptions(license="mit")) as stage:
            text = (stage.folder / "README.md").read_text(encoding="utf-8")
        assert text == "---\nlicense: mit\ntags: [x]\n---\n# Mine\n"
        assert (rows / "README.md").read_bytes().startswith(b"\xef\xbb\xbf")

    def test_a_person_s_card_is_kept(self, rows, written):
        push_folder(rows, "someone/x", dry_run=True)
        assert written == []
        push_folder(rows, "someone/x", PushOptions(rewrite_card=True), dry_run=True)
        assert len(written) == 1 and (rows / "README.md").read_text() == CARD

    def test_an_old_one_is_told(self, rows, written):
        (rows / "report.json").write_text("{}")
        os.utime(rows / "README.md", (1, 1))
        made = push_folder(rows, "someone/x", dry_run=True)
        assert made.notes == ["README.md is older than the results beside it; --rewrite-card writes it anew"]

    def test_none_can_be_written(self, rows, monkeypatch):
        monkeypatch.setitem(sys.modules, "ecgbyte_hf.hub.cards", None)
        (rows / "README.md").unlink()
        assert "README.md is missing" in problems_of(rows)

    def test_another_licence(self, rows):
        assert "says the licence is 'apache-2.0', and --license 'mit'" in problems_of(rows, license="mit")

    @pytest.mark.parametrize("has_report", [True, False])
    def test_rows_of_mimic_keep_their_own(self, rows, has_report):
        """By the report, or by the columns that no other data set has."""
        columns = {} if has_report else {"rr_interval": [1], "p_onset": [2]}
        write_table(rows / "train.parquet", ecg_id=[1], **columns)
        if has_report:
            (rows / "report.json").write_text(json.dumps({"source": "mimic_iv_ecg"}))
        with_card(rows, "---\nlicense: mit\n---\n# Mine\n")
        assert "got the licence 'mit' for rows of MIMIC-IV-ECG, expected odbl" in problems_of(rows)
        with_card(rows, "# Mine\n")
        assert "README.md names no licence, and it is made of MIMIC-IV-ECG" in problems_of(rows)
        assert "expected odbl" in problems_of(rows, license="mit")
        made = push_folder(rows, "someone/x", PushOptions(license="odbl"), dry_run=True)
        assert "README.md: the licence odbl was written into it" in made.notes
        (rows / "README.md").unlink()
        if not has_report:
            assert "expected odbl" in problems_of(rows, license="mit")

    def test_weights_of_mimic_need_one(self, llm):
        block = {"command": "sft", "data_source": "mimic_iv_ecg", "arguments": {}, "versions": {"ecgbyte-hf": "1"}}
        (llm / "training_log.json").write_text(json.dumps({"provenance": block}))
        with_card(llm, "# Mine\n")
        assert "choose one and give --license" in problems_of(llm)
        made = push_folder(llm, "someone/x", PushOptions(license="llama3.2"), dry_run=True)
        assert any("made of MIMIC-IV-ECG (ODbL 1.0), published as llama3.2" in note for note in made.notes)

    def test_a_given_one_is_written(self, rows):
        with_card(rows, "---\ntags: [x]\n---\n# Mine\n")
        with push_staged(rows, PushOptions(license="mit")) as stage:
            assert (stage.folder / "README.md").read_text() == "---\nlicense: mit\ntags: [x]\n---\n# Mine\n"
        assert (rows / "README.md").read_text() == "---\ntags: [x]\n---\n# Mine\n"

    def test_ours_tells_what_goes_out(self, rows):
        write_table(rows / "train.parquet", ecg_id=[1], patient_id=["7"])
        (rows / "README.md").unlink()
        write_card(rows, repo_id="someone/x", license="cc-by-4.0")
        assert "patient_id" in (rows / "README.md").read_text()
        with push_staged(rows, PushOptions(dropped_columns=("patient_id",))) as stage:
            card = (stage.folder / "README.md").read_text()
        assert "patient_id" not in card and "license: cc-by-4.0" in card

    def test_of_a_whole_model_names_what_it_began_as(self, llm):
        (llm / "README.md").unlink()
        note_base(llm, "someone/llama")
        assert "base_model: someone/llama" in render_card(llm)
        push_folder(llm, "someone/x", PushOptions(base_model="someone/other"), dry_run=True)
        with_card(llm)
        text = problems_of(llm, base_model="someone/other")
        assert "README.md does not name --base-model someone/other; --rewrite-card" in text

    def test_extending_a_model_notes_its_base(self, small_llm, small_prepared, small_ecg_byte, tmp_path):
        from ecgbyte_hf.models.processing_ecg_byte import EcgByteProcessor
        from ecgbyte_hf.training.extend_llm import extend_llm

        base = shutil.copytree(small_prepared.folder.with_name("tiny-llama"), tmp_path / "base")
        note_base(base, "someone/llama")
        extend_llm(str(base), EcgByteProcessor.from_pretrained(small_ecg_byte), tmp_path / "llm")
        assert "base_model: someone/llama" in render_card(tmp_path / "llm")

    def test_the_base_is_noted_from_folder_to_folder(self, tmp_path):
        first, second = tmp_path / "first", tmp_path / "second"
        note_base(first, "someone/llama", "abc")
        note_base(second, first)
        assert json.loads((second / "extend.json").read_text()) == {"base_model": "someone/llama", "revision": "abc"}
        note_base(second, tmp_path)  # that has none
        assert not (second / "extend.json").exists()

    def test_a_place_on_this_machine(self, rows):
        with_card(rows, CARD + "Trained on /home/ann/secret/ptb-xl.\n")
        text = problems_of(rows)
        assert "README.md names 1 places on a machine" in text and "/home/ann" not in text


class TestCommand:
    def test_says_everything(self, llm, capsys):
        (llm / "optimizer.pt").write_bytes(b"x")
        assert cli.main(["push", str(llm), "someone/x", "--dry-run"]) == 0
        screen = capsys.readouterr().out
        size = f"{(llm / 'model.safetensors').stat().st_size:,}"
        assert f"{size}  model.safetensors" in screen
        assert "left out: optimizer.pt (may hold a pickle)" in screen
        assert "every check passed, nothing was uploaded" in screen

    def test_wrong_options(self, rows, capsys):
        assert cli.main(["push", str(rows), "x", "--dry-run"]) == 1
        assert "x is no name on the Hub, expected USER/NAME" in capsys.readouterr().err
        assert cli.main(["push", str(rows), "a/b", "--merge", "--base", "c/d"]) == 2
        assert cli.main(["push", str(rows.parent / "nowhere"), "a/b"]) == 1
        assert "nowhere is not there" in capsys.readouterr().err

    def test_what_was_measured_of_an_adapter_is_not_of_its_merged_model(self, adapter, llm, monkeypatch, capsys):
        from ecgbyte_hf import cli_push

        monkeypatch.setattr(cli_push, "_merged", lambda folder, place: llm)
        given = ["push", str(adapter), "someone/x", "--merge", "--dry-run"]
        assert cli.main(given) == 0 and "card_reports" not in capsys.readouterr().out
        (adapter / "card_reports").mkdir()
        assert cli.main(given) == 0 and "left out: card_reports/ (of the adapter" in capsys.readouterr().out

    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
    def test_a_merged_model_keeps_where_it_came_from(self, llm, tmp_path):
        """Of an adapter by `trl sft`, which notes nothing itself."""
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        from ecgbyte_hf.cli_push import _merged

        adapter = tmp_path / "adapter"
        base = AutoModelForCausalLM.from_pretrained(llm)
        get_peft_model(base, LoraConfig(target_modules=["q_proj"])).save_pretrained(adapter)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(llm / name, adapter)
        note_base(llm, "someone/llama", "abc")
        block = {"command": "convert llm", "arguments": {"file": "x.pt"}, "versions": {"ecgbyte-hf": "1"}}
        (adapter / "conversion.json").write_text(json.dumps({"provenance": block}))
        write_training_log(adapter, [{"step": 1, "loss": 3.25}], {"seed": 4711})
        merged = _merged(adapter, tmp_path / "out")
        assert json.loads((merged / "extend.json").read_text()) == {"base_model": "someone/llama", "revision": "abc"}
        (merged / "README.md").unlink()  # PEFT's
        card = render_card(merged)
        assert "base_model: someone/llama" in card and "Made by `ecgbyte convert llm`" in card
        assert "| seed | 4711 |" in card and push_folder(merged, "someone/x", dry_run=True).kind == "language_model"

    def test_what_a_merged_model_began_as(self, tmp_path):
        from ecgbyte_hf.cli_push import _note_base

        adapter, base, merged = (tmp_path / name for name in ("adapter", "base", "merged"))
        for folder in (adapter, base, merged):
            folder.mkdir()
        noted = []
        config = {"base_model_name_or_path": "someone/llama-ecg", "revision": "abc"}
        (adapter / "adapter_config.json").write_text(json.dumps(config))
        for step in (lambda: None, lambda: note_base(base, "someone/base"), lambda: note_base(adapter, "someone/own")):
            step()
            _note_base(adapter, base, merged)
            noted.append(json.loads((merged / "extend.json").read_text())["base_model"])
        assert noted == ["someone/llama-ecg", "someone/base", "someone/own"]

    def test_kinds_are_those_of_the_code(self):
        from ecgbyte_hf.cli_push import KINDS

        assert KINDS == ("auto", *REPO_TYPES)
