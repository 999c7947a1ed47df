"""Cards: only what files say, metadata as the Hub reads it, and examples that run."""

import hashlib
import json
import random
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import wfdb
import yaml
from huggingface_hub import DatasetCard, ModelCard

from ecgbyte_hf import cli
from ecgbyte_hf.data.fingerprints import model_fingerprints, weights_fingerprint
from ecgbyte_hf.evaluation.report_files import eval_results
from ecgbyte_hf.hub import cards, source_data
from ecgbyte_hf.hub.card_sources import CardSources, looks_like_path, made_with
from ecgbyte_hf.hub.cards import CardOptions, render_card, write_card
from ecgbyte_hf.hub.dataset_card import data_set_files
from ecgbyte_hf.hub.kinds import kind_of
from ecgbyte_hf.hub.private_text import local_paths
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgFileError
from ecgbyte_hf.provenance import provenance
from ecgbyte_hf.training.row_origin import origin_of_rows
from ecgbyte_hf.training.training_log import write_training_log

NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)*(?:e[-+]?\d+)?")
HISTORY = [
    {"step": 2, "loss": 3.25, "learning_rate": 1e-4},
    {"step": 4, "loss": 1.125, "learning_rate": 5e-5},
    {"step": 4, "eval_loss": 1.5, "eval_runtime": 1.0},
]


def evaluation(folder: Path) -> dict:
    """A report about a model as `evaluate_predictions` writes it, as far as tables and cards read it."""

    def match(value):
        score = {"value": value, "n": 20, "ci95": [value - 0.125, value + 0.125]}
        return {
            "overall": value,
            "n": 20,
            "ci95": [value - 0.125, value + 0.125],
            "by_type": {"single-verify": score},
            "by_attribute": {"rhythm": score},
            "unparsed": 0.0,
        }

    return {
        "split": "test",
        "exact_match": match(0.75),
        "controls": {"majority": match(0.5), "shuffled": match(0.4375)},
        "best_control": "majority",
        "difference_to_best_control": {"value": 0.25, "ci95": [0.125, 0.375]},
        "answers_at_limit": {"model": 0, "shuffled": 0},
        "provenance": provenance(
            "evaluate",
            {"predictions": "/home/somebody/answers.jsonl", "seed": 0},
            data_source="synthetic",
            model={"fingerprints": model_fingerprints(folder), "view": "true", "perturbations": []},
        ),
    }


@pytest.fixture(scope="module")
def trained(small_llm, tmp_path_factory):
    """A language model's folder as `ecgbyte sft` leaves it, with the report of an evaluation beside it."""
    folder = shutil.copytree(small_llm, tmp_path_factory.mktemp("cards") / "ecg-llm")
    options = {"learning_rate": 1e-4, "max_steps": 4, "use_peft": False, "lora_r": 16, "hub_token": "hf_secretsecret"}
    block = provenance("sft", {**options, "model_name_or_path": "/home/x"})
    (folder / "training_log.json").write_text(json.dumps({"history": HISTORY, "provenance": block}))
    (folder / "evaluation.json").write_text(json.dumps(evaluation(folder)))
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    from tiny_encoders import resnet_config

    from ecgbyte_hf import EcgResNetForPreTraining

    folder = tmp_path_factory.mktemp("cards") / "encoder"
    EcgResNetForPreTraining(resnet_config()).save_pretrained(folder)
    block = provenance("pretrain-encoder", {"epochs": 2}, data_source="ptb_xl records500 reports")
    (folder / "training_log.json").write_text(json.dumps({"history": HISTORY, "provenance": block}))
    systems = {name: probed(value) for name, value in (("encoder", 0.8125), ("random", 0.5625))}
    block = provenance("probe-encoder", {"encoder": "/home/somebody/encoder", "draws": 3})
    block["weights"] = weights_fingerprint(folder)
    report = {"split": "test", "systems": systems, "chance": {"macro_auc": 0.5}, "provenance": block}
    (folder / "probe.json").write_text(json.dumps(report))
    return folder


def probed(value: float) -> dict:
    score = {"macro_auc": {"value": value, "ci95": [value - 0.125, value + 0.125], "labels": 5}}
    return {"linear": {"0.1": score | {"records": 440}, "1": score | {"records": 4400}}, "zero_shot": score}


@pytest.fixture(scope="module")
def folders(small_ecg_byte, small_prepared, encoder, trained):
    return {
        "tokenizer": small_ecg_byte,
        "dataset": small_prepared.folder,
        "encoder": encoder,
        "language_model": trained,
    }


@pytest.fixture
def recording(tmp_path, monkeypatch):
    """The current folder holds `my-ecg`, with all leads."""
    monkeypatch.chdir(tmp_path)
    signal = np.sin(np.arange(5000) / 30.0)[:, None] * np.linspace(0.5, 1.5, 12)
    names = ["I", "II", "III", "aVR", "aVL", "aVF", *(f"V{number}" for number in range(1, 7))]
    wfdb.wrsamp("my-ecg", fs=500, units=["mV"] * 12, sig_name=names, p_signal=signal, fmt=["16"] * 12)


def body_of(card: str) -> str:
    """What people read: neither the header nor the mark at the end."""
    return card.split("\n---\n", 1)[1].partition("<!-- Written by")[0]


def fixed_numbers() -> set[str]:
    """What every card may say whatever it is about: the numbers of the templates and of the licences."""
    data = [value for value in vars(source_data).values() if isinstance(value, source_data.SourceData)]
    texts = [*(path.read_text() for path in cards.template_folder().iterdir()), *map(str, data)]
    return set(NUMBER.findall("\n".join(texts)))


def numbers_of(card: str) -> set[str]:
    return set(NUMBER.findall(body_of(card))) - fixed_numbers()


def leaves(content):
    if isinstance(content, dict):
        for value in content.values():
            yield from leaves(value)
    elif isinstance(content, list):
        yield len(content)
        for value in content:
            yield from leaves(value)
    else:
        yield content


def forms(value) -> set[str]:
    """How a card may write a value of a file."""
    if isinstance(value, bool) or value is None:
        return set()
    if isinstance(value, str):
        return set(NUMBER.findall(value))
    return {str(value), cards._num(value)} | ({cards._percent(value)} if isinstance(value, float) else set())


def told(folder: Path) -> set[str]:
    """All numbers that the files of a folder hold, as a card may write them."""
    numbers: set[str] = set()
    for path in folder.rglob("*.json"):
        for value in leaves(json.loads(path.read_text())):
            numbers |= forms(value)
    for path in folder.rglob("*.parquet"):
        numbers.add(str(pq.read_metadata(path).num_rows))
        numbers |= forms(hashlib.sha256(path.read_bytes()).hexdigest()[:16])
    return numbers


@pytest.mark.parametrize("kind", cards.KINDS)
def test_every_number_is_in_a_file(kind, folders):
    numbers = numbers_of(render_card(folders[kind]))
    assert numbers, "the card tells nothing"
    assert numbers <= told(folders[kind])


@pytest.mark.parametrize("kind", ["tokenizer", "language_model", "encoder", "dataset"])
def test_other_files_give_other_numbers(kind, folders, tmp_path):
    """With every figure of the reports replaced by one that is nowhere else, the card has the new ones alone."""
    folder = shutil.copytree(folders[kind], tmp_path / "copy")
    rng = random.Random(0)

    def other(value):
        if isinstance(value, dict):
            return {name: other(one) for name, one in value.items()}
        if isinstance(value, list):
            return [other(one) for one in value]
        if isinstance(value, float):
            return rng.uniform(0.01, 0.99)
        return rng.randrange(10_000, 99_999) if isinstance(value, int) and not isinstance(value, bool) else value

    for path in folder.glob("*.json"):
        stored = json.loads(path.read_text())
        if "provenance" in stored:
            path.write_text(json.dumps(other(stored)))
    numbers = numbers_of(render_card(folder))
    assert numbers <= told(folder) and len(numbers - numbers_of(render_card(folders[kind]))) > 7


@pytest.mark.parametrize("kind", cards.KINDS)
def test_the_examples_run(kind, folders, recording):
    folder = shutil.copytree(folders[kind], "repo")
    # Written into the folder too: its header says which files are which split.
    body = write_card(folder, repo_id="user/name").read_text().replace("user/name", str(Path("repo").resolve()))
    names: dict = {}
    blocks = re.findall(r"```python\n(.*?)```", body, re.DOTALL)
    for block in blocks:
        exec(compile(block, kind, "exec"), names)
    commands = [line for block in re.findall(r"```bash\n(.*?)```", body, re.DOTALL) for line in block.splitlines()]
    for command in commands:
        assert cli.main(shlex.split(command)[1:]) == 0
    assert len(blocks) == 1 and len(commands) == (kind in ("tokenizer", "language_model"))
    if kind == "tokenizer":
        assert list(names["ids"]) == list(names["tokens"]["input_ids"])
        assert Path("tokens.png").stat().st_size > 1000
    if kind == "encoder":
        assert names["features"].shape == (2, 16)
    if kind == "dataset":
        assert names["rows"]["records"].num_rows == 40


@pytest.mark.parametrize("kind", cards.KINDS)
def test_lines_are_short_and_name_no_place(kind, folders):
    text = render_card(folders[kind], options=CardOptions("user/name", "apache-2.0"))
    assert max(map(len, text.splitlines())) <= 300
    prose = [line for line in body_of(text).splitlines() if not line.startswith(("|", "#", " ", "ids", "record"))]
    assert len(prose) > 20 and sum(len(line) > 118 for line in prose) <= 2  # of the examples
    assert str(folders[kind].parent) not in text and local_paths(text, rooted=True) == []
    assert "\n\n\n" not in body_of(text)
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["license"] == "apache-2.0" and {"ecg", "medical", "research"} <= set(head["tags"])


def test_long_lines_are_divided_between_words():
    words = "word " * 100
    assert cards._wrapped("- " + words + "end").splitlines()[1].startswith("  word")
    for whole in ("| " + words, "# " + words, "https://" + "x" * 200):
        assert cards._wrapped(whole) == whole
    assert max(map(len, cards._wrapped(words).splitlines())) <= 118


def test_the_example_of_an_encoder_cleans_a_recording(folders, recording):
    from ecgbyte_hf import EcgByteFeatureExtractor

    folder = shutil.copytree(folders["encoder"], "repo")
    EcgByteFeatureExtractor(profile="none", sampling_rate=250).save_pretrained(folder)
    body = render_card(folder, options=CardOptions("user/name")).replace("user/name", str(Path("repo").resolve()))
    names: dict = {}
    exec(compile(re.findall(r"```python\n(.*?)```", body, re.DOTALL)[0], "encoder", "exec"), names)
    assert names["signals"].shape == (1, 12, 2500) and names["features"].shape == (1, 16)


class TestMetadata:
    """The header, read as the Hub's client reads it."""

    def test_of_a_model(self, folders):
        options = CardOptions("user/name", "llama3.2", base_model="meta-llama/Llama-3.2-1B", datasets=("user/rows",))
        data = ModelCard(render_card(folders["language_model"], options=options)).data
        assert (data.license, data.library_name, data.pipeline_tag) == ("llama3.2", "transformers", "text-generation")
        assert (data.base_model, data.base_model_relation) == ("meta-llama/Llama-3.2-1B", "finetune")
        assert data.datasets == ["user/rows"]
        first = data.eval_results[0]
        assert (first.metric_value, first.dataset_name, first.dataset_split) == (0.75, "synthetic", "test")
        assert data.model_name == "name" and first.metric_args["best_control"] == "majority"

    def test_of_an_adapter(self, tmp_path):
        (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "user/extended"}')
        data = ModelCard(render_card(tmp_path)).data
        assert (data.library_name, data.base_model, data.base_model_relation) == ("peft", "user/extended", "adapter")
        (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "/home/somebody/extended"}')
        card = render_card(tmp_path)
        assert "base_model" not in ModelCard(card).data.to_dict() and "/home" not in card
        assert "The base model's name on the Hub" in card

    def test_of_a_data_set(self, folders):
        data = DatasetCard(render_card(folders["dataset"])).data
        questions, records = data.configs
        assert [one["split"] for one in questions["data_files"]] == ["train", "validation", "test"]
        assert questions["default"] and records["data_files"][0]["path"] == ["records/part-00000.parquet"]
        assert data.dataset_info[0]["splits"][0]["num_examples"] == 540
        assert data.task_categories == ["question-answering"] and data.size_categories == ["n<1K"]

    def test_of_a_single_configuration(self, tmp_path):
        for name in ("train-00000-of-00002", "train-00001-of-00002", "test"):
            pq.write_table(pa.table({"prompt": ["a", "b"]}), tmp_path / f"{name}.parquet")
        (tmp_path / ".train.parquet").write_bytes(b"half of one")
        files = data_set_files(tmp_path)
        found = [(one.config, one.name, one.rows) for one in files.splits]
        assert found == [("default", "train", 4), ("default", "test", 2)]
        pq.write_table(pa.table({"other": [1]}), tmp_path / "valid.parquet")
        with pytest.raises(EcgDataError, match="different columns"):
            data_set_files(tmp_path).dataset_info()

    def test_of_a_column_that_nothing_reads(self, tmp_path):
        column = pa.array([[("a", "b")]], pa.map_(pa.string(), pa.string()))
        pq.write_table(pa.table({"facts": column}), tmp_path / "train.parquet")
        with pytest.raises(EcgDataError, match="'default' has a column that `datasets` does not read"):
            data_set_files(tmp_path).dataset_info()

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"repo_id": "name"}, "got the repository 'name', expected USER/NAME"),
            ({"base_model": "/home/x"}, "got the base model"),
            ({"datasets": ("x",)}, "got the data set 'x'"),
            ({"license": "Apache 2.0"}, "one of the Hub's names in lower case"),
            ({"license": "other"}, "needs its name"),
            ({"license_link": "LICENSE"}, "only that has a name and a link"),
        ],
    )
    def test_names_that_the_hub_does_not_take(self, given, message):
        with pytest.raises(EcgDataError, match=message):
            CardOptions(**given)

    def test_results_for_the_hub(self, folders, tmp_path):
        folder = shutil.copytree(folders["language_model"], tmp_path / "copy")
        (folder / ".eval_results").mkdir()
        place = folder / ".eval_results" / "ecg-qa.yaml"
        place.write_text(yaml.safe_dump(eval_results(evaluation(folder), dataset_id="user/ecg-qa")))
        assert "| user/ecg-qa | exact_match | 0.75 | split test, n=20" in render_card(folder)
        place.write_text("- value: 1")
        with pytest.raises(EcgDataError, match="ecg-qa.yaml: no results"):
            render_card(folder)


class TestLicences:
    """What may be shared depends on what something was made of."""

    @pytest.mark.parametrize(
        ("source", "given", "expected"),
        [
            ("ptb_xl records500 labels", None, "cc-by-4.0"),
            ("ecg_qa ptbxl-template", None, "cc-by-4.0"),
            ("mimic_iv_ecg", None, "odbl"),
            ("ecg_qa mimic-iv-ecg-template", None, "odbl"),
            ("ecg_chat pretrain_mimic", None, None),
            ("synthetic", None, None),
            ("synthetic", "mit", "mit"),
            (None, None, None),
        ],
    )
    def test_of_rows(self, source, given, expected):
        assert source_data.data_set_license(source_data.source_data(source), given) == expected

    def test_of_a_database_that_keeps_its_own(self):
        with pytest.raises(EcgDataError, match="expected odbl"):
            source_data.data_set_license(source_data.source_data("mimic_iv_ecg"), "mit")

    def test_are_told(self, folders, tmp_path):
        folder = shutil.copytree(folders["encoder"], tmp_path / "copy")
        card = render_card(folder)
        assert "https://physionet.org/content/ptb-xl/1.0.3/" in card and "Wagner, P." in card
        log = json.loads((folder / "training_log.json").read_text())
        log["provenance"]["data_source"] = "mimic_iv_ecg"
        (folder / "encode.json").write_text(json.dumps({"provenance": log["provenance"] | {"command": "encode"}}))
        card = render_card(folder)
        assert "Made from `mimic_iv_ecg`, `ptb_xl records500 reports`" in card and "Wagner, P." in card
        assert "https://opendatacommons.org/licenses/odbl/1-0/" in card and "may not be shared" in card
        assert "Not a medical device" in card and "2412.14373" in card


class TestSources:
    """Which files a card is filled from."""

    def test_the_runs_say_which_data_they_were_made_from(self, folders, tmp_path):
        assert CardSources.find(folders["tokenizer"]).sources == ("synthetic",)
        assert CardSources.find(folders["language_model"]).sources == ()  # only judged on one
        (tmp_path / "encode.json").write_text(
            json.dumps({"provenance": {"data_hash": {"train": "a"}, "data_source": "mimic_iv_ecg"}})
        )
        log = json.loads(write_training_log(tmp_path / "model", [], {}, origin=origin_of_rows(tmp_path)).read_text())
        assert log["provenance"]["data_source"] == "mimic_iv_ecg" and log["provenance"]["data_hash"] == {"train": "a"}

    def test_what_is_missing_is_said(self, folders, tmp_path):
        folder = shutil.copytree(folders["tokenizer"], tmp_path / "copy")
        assert "## How well it fits" in render_card(folder)
        (folder / "training.json").unlink()
        card = render_card(folder)
        assert "## How well it fits" not in card and "there is no training.json of `ecgbyte train-tokenizer`" in card
        assert "Not recorded: which data set it was made from" in card

    def test_reports_of_other_data_are_refused(self, folders, tmp_path):
        report = json.loads((folders["dataset"] / "report.json").read_text())
        (tmp_path / "same.json").write_text(json.dumps(report))
        assert "| num_records | 40 |" in render_card(folders["tokenizer"], sources=[tmp_path / "same.json"])
        report["data_hash"]["train"] = "0123456789abcdef"
        (tmp_path / "other.json").write_text(json.dumps(report))
        with pytest.raises(EcgDataError, match="about different data .split train."):
            render_card(folders["tokenizer"], sources=[tmp_path / "other.json"])
        with pytest.raises(EcgDataError, match="is no report of an ecgbyte command, or not there"):
            CardSources.find(folders["tokenizer"], [tmp_path / "absent.json"])

    def test_no_place_and_no_secret_is_told(self, folders):
        card = render_card(folders["language_model"])
        assert "/home" not in card and "hf_secret" not in card and "lora_r" not in card
        assert "| learning_rate | 0.0001 |" in card

    def test_arguments(self):
        block = {"arguments": {"a": {"b": "/x/y.json", "c": None}, "seed": 0, "names": [], "is_on": False}}
        assert made_with(block) == {"a.b": "y.json", "seed": 0}

    @pytest.mark.parametrize("text", ["/a", "~/a", "./a", "../a", "C:\\a", "C:/a", "\\\\host\\a"])
    def test_places(self, text):
        assert looks_like_path(text) and not looks_like_path("user/name")

    def test_texts_open_nothing(self):
        assert cards._text("a`<b>|\n# [x](y)") == "ab # x(y)"

    def test_what_was_measured_of_an_encoder(self, folders):
        lines = render_card(folders["encoder"]).splitlines()
        start = lines.index("| | records | encoder | random |")
        cells = lines[start + 2].strip("| ").split(" | ")
        assert cells == ["linear probe, share 0.1", "440", "0.8125 (0.6875 to 0.9375)", "0.5625 (0.4375 to 0.6875)"]
        assert lines[start + 4].startswith("| zero-shot |  | 0.8125 (")

    def test_a_conversion_is_told(self, folders, tmp_path):
        folder = shutil.copytree(folders["tokenizer"], tmp_path / "copy")
        (folder / "training.json").unlink()
        block = provenance("convert tokenizer", {"file": "/home/x/tokenizer.pkl"})
        (folder / "conversion.json").write_text(json.dumps({"provenance": block}))
        card = render_card(folder)
        assert "Made by `ecgbyte convert tokenizer`" in card and "| file | tokenizer.pkl |" in card
        assert "there is no training.json" not in card

    @pytest.mark.parametrize("kind", cards.KINDS)
    def test_kinds(self, kind, folders):
        assert kind_of(folders[kind]) == kind
        with pytest.raises(EcgDataError, match="unknown kind 'poem'; known: tokenizer"):
            render_card(folders[kind], kind="poem")


class TestFile:
    """Where a card is written, and whose it is."""

    def test_a_card_of_ones_own_stays(self, folders, tmp_path):
        folder = shutil.copytree(folders["tokenizer"], tmp_path / "copy")
        path = write_card(folder, repo_id="user/name", license="mit")
        assert path == folder / "README.md" and ModelCard.load(path).data.license == "mit"
        write_card(folder, kind="tokenizer")  # ours may be written anew
        path.write_text("# My tokenizer\n")
        with pytest.raises(EcgDataError, match="was written or changed by somebody"):
            write_card(folder)
        assert cli.main(["card", str(folder)]) == 1 and path.read_text() == "# My tokenizer\n"
        assert cli.main(["card", str(folder), "--output", str(tmp_path / "card.md")]) == 0
        assert cli.main(["card", str(folder), "--overwrite"]) == 0
        assert path.read_text() == (tmp_path / "card.md").read_text()
        path.write_text("---\ntags:\n- generated_from_trainer\n---\n\n# Model Card\n")  # TRL's
        assert write_card(folder) == path

    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
    def test_what_trl_and_peft_write_is_nobody_s(self, folders, tmp_path):
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM
        from trl.trainer.utils import generate_model_card

        path = tmp_path / "adapter" / "README.md"
        model = AutoModelForCausalLM.from_pretrained(folders["language_model"])
        adapter = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
        adapter.save_pretrained(path.parent)
        assert "[More Information Needed]" in path.read_text() and not cards.has_own_card(path)
        filled_in = path.read_text().replace("[More Information Needed]", "Not of children.", 1)
        path.write_text(filled_in)
        assert cards.has_own_card(path)
        path.unlink()
        given = {"base_model": "a", "model_name": "b", "hub_model_id": "c/b", "dataset_name": None, "tags": []}
        card = generate_model_card(**given, wandb_url=None, trackio_url=None, comet_url=None, trainer_name="SFT")
        card.save(path)
        adapter.save_pretrained(path.parent)  # edits what is there
        written = path.read_text()
        assert "generated_from_trainer" not in written and not cards.has_own_card(path)
        for changed in (
            written + "\nNot of children.\n",
            written.replace("## Quick start", "## Limits"),
            written.replace('"user", "content": question', '"user", "content": "My own."').replace("print(", "show("),
            written.replace("It has been", "Of my patients. It has been"),
        ):
            path.write_text(changed)
            assert changed != written and cards.has_own_card(path)
            with pytest.raises(EcgDataError, match="was written or changed by somebody"):
                write_card(path.parent)
        trls = {"base_model": "runs/my base", "dataset_name": ["a/b", "c/d"], "paper_id": "1", "paper_title": "T"}
        trls |= {"trainer_citation": "@article{x,\n  title = {{Y}},\n}", "wandb_url": "https://w.ai/r"}
        generate_model_card(**{**given, "trackio_url": None, "comet_url": None, "trainer_name": "SFT", **trls}).save(
            path
        )
        assert not cards.has_own_card(path)
        path.write_text("# Mine\n\n[More Information Needed]\n")
        assert cards.has_own_card(path)

    def test_templates_are_part_of_the_package(self, tmp_path):
        root = cards.template_folder().parent
        command = [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", str(tmp_path)]
        subprocess.run(command, cwd=root, check=True, capture_output=True)
        copied = {path.name for path in (tmp_path / "ecgbyte_hf" / "hub_cards").iterdir()}
        assert copied == {path.name for path in cards.template_folder().iterdir()} >= {"parts.jinja"}

    def test_templates_are_found_in_an_installed_package(self, monkeypatch, tmp_path):
        package = tmp_path / "site-packages" / "ecgbyte_hf"
        shutil.copytree(cards.template_folder(), package / "hub_cards")
        monkeypatch.setattr(cards, "__file__", str(package / "hub" / "cards.py"))
        assert cards.template_folder() == package / "hub_cards"
        shutil.rmtree(package / "hub_cards")
        with pytest.raises(EcgFileError, match="install ecgbyte-hf again"):
            cards.template_folder()
