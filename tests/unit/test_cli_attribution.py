"""`ecgbyte plot attention` and `ecgbyte report`."""

import importlib.util
import json
import shutil

import numpy as np
import pytest
import torch
from attribution_models import LEADS, RATE, make_model, record
from transformers import AutoModelForCausalLM

from ecgbyte_hf.cli import build_parser, main
from ecgbyte_hf.cli_attribution import METHODS as OFFERED
from ecgbyte_hf.evaluation.language_model import EcgLanguageModel
from ecgbyte_hf.interpretation.attribution import METHODS, attribute
from ecgbyte_hf.interpretation.reading import read_question
from ecgbyte_hf.signal.records import read_ecg

QUESTION = "What is the <b>st segment</b> of this ECG?"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    import wfdb

    folder = tmp_path_factory.mktemp("asked")
    signal = record(3).signal
    wfdb.wrsamp(
        "patient",
        fs=RATE,
        units=["mV"] * len(LEADS),
        sig_name=list(LEADS),
        p_signal=signal.T.astype(np.float64),
        fmt=["16"] * len(LEADS),
        write_dir=str(folder),
    )
    return make_model(folder), folder / "patient"


@pytest.fixture(scope="module")
def adapter(files, tmp_path_factory):
    """What `ecgbyte sft --train_ecg_rows` leaves without --merge, and the same merged into one model."""
    peft = pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("adapter")
    base = AutoModelForCausalLM.from_pretrained(files[0])
    rows = [*range(base.config.vocab_size - 80, base.config.vocab_size)]
    torch.manual_seed(5)
    config = peft.LoraConfig(
        r=4, lora_alpha=64, target_modules=["q_proj"], init_lora_weights=False, trainable_token_indices=rows
    )
    model = peft.get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "trainable_tokens_delta" in name:
                parameter.normal_(std=0.2)
    model.save_pretrained(folder / "adapter")
    shutil.copytree(files[0], folder / "merged")
    model.merge_and_unload().save_pretrained(folder / "merged")
    return folder


def asked(files, *more):
    model, path = files
    return ["--model", str(model), "--question", QUESTION, "--device", "cpu", *more], str(path)


def test_methods_are_those_that_there_are():
    assert tuple(METHODS) == OFFERED


def test_a_figure_its_numbers_and_the_check(files, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    options, path = asked(files, "--answer", "st elevation", "--method", "attention", "gradient_x_input")
    output = tmp_path / "map.svg"
    command = ["plot", "attention", "--record", path, *options, "--check", "--draws", "2", "--output", str(output)]
    assert main(command) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "map-attention.svg",
        "map-gradient_x_input.svg",
        "map.json",
        "map.npz",
    ]
    stored = json.loads((tmp_path / "map.json").read_text())
    assert (stored["answer"], stored["answer_was_given"], stored["question"]) == ("st elevation", True, QUESTION)
    assert (
        set(stored["check"]) == {"attention", "gradient_x_input"} and len(stored["check"]["attention"]["random"]) == 2
    )
    assert "run" not in stored["provenance"]["arguments"]
    said = capsys.readouterr().out
    assert "attention: without its top 10 % of samples the answer loses" in said and "answer: st elevation" in said


def test_a_layer_that_is_not_there(files, tmp_path, capsys):
    options, path = asked(files, "--answer", "no", "--layer", "7")
    assert main(["plot", "attention", "--record", path, *options, "--output", str(tmp_path / "map.png")]) == 1
    assert "got layer 7, the model has layers 0 to 1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_wrong_ending_is_refused_before_the_model_is_loaded(tmp_path, capsys):
    nowhere = ["--model", str(tmp_path / "none"), "--question", "?", "--record", str(tmp_path / "none")]
    assert main(["plot", "attention", *nowhere, "--output", "map.gif"]) == 1
    assert "expected a name that ends in .png, .svg, .pdf" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "none"), *nowhere[:4], "--output", "page.pdf"]) == 1
    assert "expected a name that ends in .html" in capsys.readouterr().err


def test_a_page(files, tmp_path, capsys):
    options, path = asked(files, "--answer", "st elevation")
    assert main(["report", path, *options, "--output", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "<title>patient</title>" in page and "&lt;b&gt;st segment&lt;/b&gt;" in page
    assert str(tmp_path) not in page and str(files[0].parent) not in page
    for method in ("attention", "rollout", "gradient_x_input"):
        assert f'<option value="{method}">' in page


# Of peft 0.21 with transformers 5.23, in nobody's hands here.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_an_adapter_is_explained_as_the_merged_model_is(files, adapter, tmp_path):
    methods = ["attention", "rollout", "gradient_x_input"]
    if importlib.util.find_spec("captum"):
        methods.append("integrated_gradients")
    options, path = asked((adapter / "adapter", files[1]), "--answer", "st elevation", "--steps", "4")
    output = tmp_path / "a.png"
    assert main(["plot", "attention", "--record", path, *options, "--method", *methods, "--output", str(output)]) == 0
    expected = {}
    for folder in (adapter / "merged", files[0]):
        model = EcgLanguageModel.load(folder, device="cpu")
        reading = read_question(model, read_ecg(path), QUESTION, answer="st elevation")
        expected[folder] = attribute(model, reading, methods, steps=4)
    with np.load(tmp_path / "a.npz") as made:
        for merged, base in zip(*expected.values(), strict=True):
            largest = np.abs(merged.values).max()
            np.testing.assert_allclose(made[merged.method], merged.values, atol=2e-3 * largest)
            assert np.abs(made[merged.method] - base.values).max() > 0.02 * largest
    options, path = asked((adapter / "adapter", files[1]))
    assert main(["report", path, *options, "--max-new-tokens", "4", "--output", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "with the model adapter" in page and '<option value="rollout">' in page


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_a_model_with_an_encoder_is_refused(files, tmp_path, capsys):
    from tiny_ecg_llm import save_encoder

    from ecgbyte_hf.data.prompts import EcgPrompt
    from ecgbyte_hf.training.extend_ecg_llm import extend_ecg_llm

    peft = pytest.importorskip("peft")
    base = files[0].parent / "base"
    folder = extend_ecg_llm(save_encoder(tmp_path / "encoder"), str(base), tmp_path / "llm", prompt=EcgPrompt()).folder
    config = peft.LoraConfig(r=2, target_modules=["q_proj"])
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config).save_pretrained(tmp_path / "adapter")
    capsys.readouterr()
    for model in (folder, tmp_path / "adapter"):
        options, path = asked((model, files[1]), "--answer", "yes")
        for command in (["plot", "attention", "--record", path], ["report", path]):
            ending = "html" if command[0] == "report" else "png"
            assert main([*command, *options, "--output", str(tmp_path / f"a.{ending}")]) == 1
            error = capsys.readouterr().err.splitlines()[-1]
            assert error.startswith("ecgbyte ") and "the model reads an ECG through an encoder" in error
    assert not list(tmp_path.glob("a.*"))


def test_it_is_one_of_the_plots(capsys):
    assert {"plot", "report"} <= set(build_parser()[1])
    with pytest.raises(SystemExit) as stopped:
        main(["plot", "attention", "--help"])
    assert stopped.value.code == 0
    assert "usage: ecgbyte plot attention" in capsys.readouterr().out
