"""The log and the loss curve of a training."""

import json
import sys

import pytest
import torch
from datasets import Dataset

from ecgbyte_hf.data.fingerprints import weights_fingerprint
from ecgbyte_hf.data.questions import rows_hash
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.training.row_origin import origin_of_rows
from ecgbyte_hf.training.training_log import (
    copy_log_for_merged,
    count_parameters,
    losses,
    plot_loss,
    write_training_log,
)

HISTORY = [
    {"loss": 3.0, "step": 1},
    {"loss": 2.0, "step": 2},
    {"eval_loss": 2.5, "step": 2},
    {"loss": 1.0, "step": 3},
    {"eval_loss": 2.75, "step": 3},
    {"train_loss": 2.0, "step": 3},
]


def test_losses_by_step():
    assert losses(HISTORY, "loss") == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert losses(HISTORY, "eval_loss") == [(2, 2.5), (3, 2.75)]


def test_figure_shows_both_and_the_best():
    (axis,) = plot_loss(HISTORY).axes
    drawn = [list(zip(*line.get_data(), strict=True)) for line in axis.lines]
    assert drawn == [[(1, 3.0), (2, 2.0), (3, 1.0)], [(2, 2.5), (3, 2.75)], [(2, 2.5)]]
    assert axis.get_title() == "lowest validation loss 2.5000 at step 2"
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["training", "validation"]


def test_one_step_is_a_point():
    (axis,) = plot_loss(HISTORY[:1]).axes
    assert any(line.get_marker() == "o" for line in axis.lines)


def test_nothing_logged():
    with pytest.raises(EcgDataError, match="no training loss was logged"):
        plot_loss(HISTORY[-1:])


def test_files(tmp_path):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "encode.json").write_text('{"provenance": {"data_hash": {"train": "abc"}}}')
    path = write_training_log(tmp_path, HISTORY, {"learning_rate": 1e-3}, origin=origin_of_rows(tmp_path / "rows"))
    content = json.loads(path.read_text())
    assert path.name == "training_log.json" and content["history"] == HISTORY
    assert content["provenance"]["arguments"] == {"learning_rate": 1e-3}
    assert content["provenance"]["data_hash"] == {"train": "abc"}
    assert (tmp_path / "loss.png").read_bytes()[:4] == b"\x89PNG"


def test_which_weights_it_is_about(tmp_path):
    import numpy as np
    from safetensors.numpy import save_file

    for name in ("adapter", "merged"):
        (tmp_path / name).mkdir()
        save_file({name: np.ones(2, np.float32)}, tmp_path / name / f"{name}.safetensors")
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    assert copy_log_for_merged(adapter, merged) is None
    both = {"weights": weights_fingerprint(adapter), "merged_weights": weights_fingerprint(merged)}
    block = json.loads(write_training_log(adapter, HISTORY, {}, merged=merged).read_text())["provenance"]
    assert both.items() <= block.items()
    block = json.loads(write_training_log(adapter, HISTORY, {}).read_text())["provenance"]
    assert block["weights"] == both["weights"] and "merged_weights" not in block
    assert both.items() <= json.loads(copy_log_for_merged(adapter, merged).read_text())["provenance"].items()
    save_file({"adapter": np.zeros(2, np.float32)}, adapter / "adapter.safetensors")
    assert "merged_weights" not in json.loads(copy_log_for_merged(adapter, merged).read_text())["provenance"]


class TestOriginOfRows:
    """That of rows on the Hub is in tests/integration/test_hub.py."""

    def test_of_a_folder(self, tmp_path):
        assert origin_of_rows(tmp_path) == {"data_hash": None, "data_source": None, "rows_hash": None}
        rows = Dataset.from_dict({"prompt": ["a", "b"]})
        found = origin_of_rows(tmp_path, {"train": rows, "streamed": rows.to_iterable_dataset()})
        assert found["rows_hash"] == {"train": rows_hash([{"prompt": "a"}, {"prompt": "b"}])}
        block = {"data_hash": {"train": "abc"}, "data_source": "ptb_xl"}
        (tmp_path / "encode.json").write_text(json.dumps({"provenance": block}))
        assert origin_of_rows(tmp_path, {"train": rows}) == block

    def test_of_nothing_that_is_known(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert origin_of_rows("rows/that/are/nowhere") == origin_of_rows("user/rows") == {}


def test_without_matplotlib(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    write_training_log(tmp_path, HISTORY, {})
    assert (tmp_path / "training_log.json").is_file() and not (tmp_path / "loss.png").exists()
    assert "pip install 'ecgbyte-hf[plot]'" in caplog.text


def test_parameters(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 3))
    model[0].requires_grad_(False)
    assert count_parameters(model) == {"trainable": 4 * 3 + 3, "all": 4 * 3 + 3 + 3 * 4 + 4}
    model.append(model[1])
    assert count_parameters(model)["trainable"] == 15
    path = write_training_log(tmp_path, HISTORY, {}, model=model)
    assert json.loads(path.read_text())["parameters"] == {"trainable": 15, "all": 31}


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing. is deprecated:FutureWarning")
def test_parameters_under_peft_are_counted_once():
    """A module that is trained whole has a copy, and its original is no part of what runs."""
    from peft import LoraConfig, get_peft_model
    from tiny_ecg_llm import make_language_model

    model = make_language_model()
    before = count_parameters(model)["all"]
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["model.norm"], trainable_token_indices=[5, 6])
    adapted = get_peft_model(model, config)
    lora, tokens = 2 * 2 * (2 * 32), 2 * 32  # two layers of rank 2, two rows
    assert count_parameters(adapted) == {"trainable": lora + tokens + 32, "all": before + lora + tokens}
