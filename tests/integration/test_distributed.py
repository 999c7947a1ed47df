"""Training on two processes gives the losses and the weights of one with the same batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_ecg_llm import save_encoder

from ecgbyte_hf import cli
from ecgbyte_hf.data.encode import encode_rows
from ecgbyte_hf.data.prompts import EcgPrompt
from ecgbyte_hf.training import sft
from ecgbyte_hf.training.extend_ecg_llm import extend_ecg_llm
from ecgbyte_hf.training.extend_llm import load_prompter
from ecgbyte_hf.training.tiny_llm import make_tiny_llama, texts_of

# TRL and PEFT use the old name, whatever is set; the new one is not known to all versions that setup.py allows.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing. is deprecated:FutureWarning"),
]

ROOT = Path(__file__).parents[2]
CONFIGURATIONS = ROOT / "scripts" / "recipes" / "accelerate"
OPTIONS = {
    "bf16": "false",
    "dtype": "float32",
    "gradient_checkpointing": "false",
    "dataloader_pin_memory": "false",
    "report_to": "none",
    "disable_tqdm": "true",
    "max_steps": 2,
    "logging_steps": 1,
    "learning_rate": 1e-2,
    "dataset_test_split": "validation",
    "eval_strategy": "steps",
    "save_strategy": "steps",
    "eval_steps": 1,
    # The trainer's validation loss is the mean over batches: of single rows, it does not depend on who has which.
    "per_device_eval_batch_size": 1,
    "save_steps": 1,
    "load_best_model_at_end": "true",
    "use_peft": "true",
    "lora_target_modules": "all-linear",
    # Each process draws its own.
    "lora_dropout": 0,
    "merge": "true",
}
# accelerate chooses FSDP for GPUs and their like only, and gives a CPU plain DDP without a word: here it is told that
# the CPU is a GPU. All of the sharding is torch's own, over gloo.
CPU_AS_GPU = """
import sys, torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)
PartialState.set_device = lambda self: setattr(self, "device", torch.device("cpu"))
from ecgbyte_hf.training.sft import train
train(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def rows(small_prepared, small_llm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed") / "rows"
    prompter = load_prompter(small_llm, small_prepared)
    # Answers of one to several words: the two processes have different numbers of tokens to learn from.
    types = ["single-verify", "single-query"]
    encode_rows(small_prepared, folder, prompter, splits=["train", "validation"], question_types=types)
    return folder


def words(**options):
    return [word for name, value in options.items() for word in (f"--{name}", *str(value).split())]


def losses(folder):
    history = json.loads((folder / "training_log.json").read_text())["history"]
    return [entry.get("loss", entry.get("eval_loss")) for entry in history if "train_loss" not in entry]


def assert_same(folder, other):
    assert losses(folder) == pytest.approx(losses(other), rel=1e-5) and len(losses(folder)) == 4
    first, second = (load_file(path / "merged" / "model.safetensors") for path in (folder, other))
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=1e-5, atol=1e-5)


def test_two_processes_are_one_with_twice_the_batch(small_llm, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    given = OPTIONS | {"model_name_or_path": small_llm, "dataset_name": rows, "use_cpu": "true"}
    given["train_ecg_rows"] = "true"
    one, two, resumed = (tmp_path / name for name in ("one", "two", "resumed"))
    sft.train(words(**given, output_dir=one, per_device_train_batch_size=4))
    launched = given | {"accelerate_config": CONFIGURATIONS / "ddp_cpu.yaml", "main_process_port": 0}
    assert cli.main(["sft", *words(**launched, output_dir=two, per_device_train_batch_size=2)]) == 0
    # Written by two processes: each leaves its random numbers.
    assert (two / "checkpoint-2" / "rng_state_1.pth").is_file()
    assert_same(one, two)
    # Begun on two processes, ended on one.
    checkpoint = two / "checkpoint-1"
    sft.train(words(**given, output_dir=resumed, per_device_train_batch_size=4, resume_from_checkpoint=checkpoint))
    assert_same(one, resumed)


def test_so_are_they_of_a_model_with_an_encoder(small_prepared, tmp_path, monkeypatch):
    """Which trains the projector whole, and reads the signals of each process' own rows."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    prompt = EcgPrompt(max_length=192, reserve=16)
    sizes = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "text_vocab_size": 320}
    base = make_tiny_llama(tmp_path / "llama", texts_of(small_prepared, prompt), **sizes)
    encoder = save_encoder(tmp_path / "encoder")
    llm = extend_ecg_llm(encoder, str(base), tmp_path / "llm", prompt=prompt, standardize_on=small_prepared).folder
    prompter = load_prompter(llm, small_prepared)
    types = ["single-verify", "single-query"]
    encode_rows(small_prepared, tmp_path / "rows", prompter, splits=["train", "validation"], question_types=types)
    given = OPTIONS | {"model_name_or_path": llm, "dataset_name": tmp_path / "rows", "use_cpu": "true"}
    one, two = tmp_path / "one", tmp_path / "two"
    sft.train(words(**given, output_dir=one, per_device_train_batch_size=4))
    launched = given | {"accelerate_config": CONFIGURATIONS / "ddp_cpu.yaml", "main_process_port": 0}
    assert cli.main(["sft", *words(**launched, output_dir=two, per_device_train_batch_size=2)]) == 0
    assert_same(one, two)
    before, after = (load_file(folder / "model.safetensors") for folder in (llm, two / "merged"))
    assert not torch.equal(
        before["model.projector.projections.0.weight"], after["model.projector.projections.0.weight"]
    )


def fsdp(folder, given, *, timeout=300):
    script = folder / "cpu_as_gpu.py"
    script.write_text(CPU_AS_GPU)
    launch = ["--config_file", CONFIGURATIONS / "fsdp2.yaml", "--num_processes", "2", "--mixed_precision", "no"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *launch, "--main_process_port", "0", script]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        list(map(str, [*command, *words(**given)])),
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def test_shared_out_by_fsdp2_too(small_llm, rows, tmp_path):
    given = OPTIONS | {"model_name_or_path": small_llm, "dataset_name": rows}
    one, two = tmp_path / "one", tmp_path / "two"
    sft.train(words(**given, use_cpu="true", output_dir=one, per_device_train_batch_size=4))
    ended = fsdp(tmp_path, given | {"output_dir": two, "per_device_train_batch_size": 2})
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert (two / "checkpoint-2" / "pytorch_model_fsdp.bin").is_file()  # FSDP's own file
    assert_same(one, two)


def test_trained_rows_of_a_tied_model_are_refused_with_fsdp(small_llm, monkeypatch):
    from accelerate.utils import DistributedType

    given = {"model_name_or_path": small_llm, "dataset_name": "rows", "bf16": "false", "use_peft": "true"}
    options = sft.parse_options(words(**given, use_cpu="true", train_ecg_rows="true"))[0]
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setattr(options.training.distributed_state, "distributed_type", DistributedType.MULTI_GPU)
    with pytest.raises(sft.EcgError, match="--train_ecg_rows does not go with FSDP"):
        sft._check_distribution(options)
