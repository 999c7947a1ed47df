"""`ecgbyte plot attention` and `ecgbyte report`."""

import json

import numpy as np
import pytest
from attribution_models import LEADS, RATE, make_model, record

from ecgbyte_hf.cli import build_parser, main
from ecgbyte_hf.cli_attribution import METHODS as OFFERED
from ecgbyte_hf.interpretation.attribution import METHODS

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


def test_it_is_one_of_the_plots(capsys):
    assert {"plot", "report"} <= set(build_parser()[1])
    with pytest.raises(SystemExit) as stopped:
        main(["plot", "attention", "--help"])
    assert stopped.value.code == 0
    assert "usage: ecgbyte plot attention" in capsys.readouterr().out
