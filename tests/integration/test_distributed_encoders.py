"""Pretraining an encoder on two processes gives the losses and weights of one with the same batch."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from ecgbyte_hf.models.modeling_ecg_resnet import EcgResNetForPreTraining
from ecgbyte_hf.models.modeling_ecg_vit import EcgVitDecoder
from ecgbyte_hf.training import pretrain_encoder as module
from ecgbyte_hf.training.pretrain_encoder import PretrainOptions, pretrain_encoder
from ecgbyte_hf.training.start_encoder import EncoderStart, encoder_named, load_parts

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CONFIGURATION = ROOT / "scripts" / "recipes" / "accelerate" / "ddp_cpu.yaml"
NAMES = ("merl-resnet", "clip", "vit")
SCRIPT = """
import sys
from ecgbyte_hf.data.prepared import PreparedData
from test_distributed_encoders import pretrain
pretrain(PreparedData(sys.argv[1]), sys.argv[2], batch_size=4)
"""


def pretrain(prepared, output, *, batch_size):
    """Two steps of each encoder with the same batch, whoever has which half.

    Batch normalisation and dropout see each process' own ECGs, so they stay as in evaluation, and the mask of a ViT is
    one for all. Where a gradient is zero but for rounding, Adam would make a step of that: so plain descent.
    """
    switch, draw = EcgResNetForPreTraining.train, EcgVitDecoder.draw_mask

    def always_the_same(self, batch, device):
        self.training = False
        return draw(self, 1, device).repeat(batch, 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TrainingArguments", partial(module.TrainingArguments, optim="sgd"))
        patch.setattr(EcgResNetForPreTraining, "train", lambda self, mode=True: switch(self, False))
        patch.setattr(EcgVitDecoder, "draw_mask", always_the_same)
        for name in NAMES:
            options = PretrainOptions(
                max_steps=2,
                batch_size=batch_size,
                eval_steps=1,
                logging_steps=1,
                schedule="constant",
                learning_rate=0.1,
                use_cpu=True,
            )
            texts = None if name == "vit" else "labels"
            start = EncoderStart(tiny=(16, 1))
            pretrain_encoder(
                prepared, Path(output) / name, encoder_named(name), texts=texts, start=start, options=options
            )


def history(folder):
    entries = json.loads((folder / "training_log.json").read_text())["history"]
    return [{name: value for name, value in entry.items() if "loss" in name} for entry in entries[:-1]]


def test_two_processes_are_one_with_twice_the_batch(small_prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    one, two = tmp_path / "one", tmp_path / "two"
    pretrain(small_prepared, one, batch_size=8)
    (tmp_path / "train.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", CONFIGURATION]
    command += ["--main_process_port", "0", tmp_path / "train.py", small_prepared.folder, two]
    places = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    ended = subprocess.run(
        list(map(str, command)),
        env={**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    for name in NAMES:
        assert (two / name / "checkpoint-2" / "rng_state_1.pth").is_file()  # two processes were there
        for entry, other in zip(history(one / name), history(two / name), strict=True):
            assert entry == pytest.approx(other, rel=1e-4)
        assert len(history(one / name)) == 4
        first, second = (load_parts(folder / name).model.state_dict() for folder in (one, two))
        for key, value in first.items():
            torch.testing.assert_close(second[key], value, rtol=1e-4, atol=1e-5, msg=key)
