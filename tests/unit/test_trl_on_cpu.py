"""The output layer is applied where there is a label, and nothing else changes."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from trl.trainer import utils

from ecgbyte_hf.training.trl_on_cpu import labelled_positions_only


class CountingKernel:
    """Stands for TRL's kernel and notes how many positions it gets."""

    def __init__(self, kernel):
        self.kernel = kernel
        self.positions = []

    def apply(self, hidden_states, *others):
        self.positions.append(len(hidden_states))
        return self.kernel.apply(hidden_states, *others)


@pytest.fixture
def kernel(monkeypatch):
    counting = CountingKernel(utils._ChunkedLogProbFunction)
    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", counting)
    return counting


def step(labels):
    """Loss and gradient of one batch."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=50, **sizes))
    utils.add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    ids = torch.randint(0, 50, labels.shape, generator=torch.Generator().manual_seed(1))
    output = model(input_ids=ids, labels=labels, fused_lm_head=True)
    output.loss.backward()
    return output.loss.detach(), output.entropy, {name: part.grad for name, part in model.named_parameters()}


def test_same_loss_and_gradient_from_fewer_positions(kernel):
    labels = torch.full((3, 40), -100)
    labels[0, 7], labels[1, 30:32], labels[2, 39] = 5, 6, 7
    plain = step(labels)
    with labelled_positions_only():
        picked = step(labels)
    assert kernel.positions == [3 * 39, 4]
    assert torch.allclose(plain[0], picked[0], atol=1e-6) and torch.allclose(plain[1], picked[1], atol=1e-6)
    for name, gradient in plain[2].items():
        assert torch.allclose(gradient, picked[2][name], atol=1e-6), name
    step(labels)
    assert kernel.positions[-1] == 3 * 39  # it is over


def test_a_batch_without_labels(kernel):
    with labelled_positions_only():
        loss, _, gradients = step(torch.full((1, 8), -100))
    assert kernel.positions == [0] and loss == 0.0
    assert all(float(gradient.abs().sum()) == 0.0 for gradient in gradients.values())


def test_a_trl_without_the_switch_is_left_alone(kernel, monkeypatch):
    labels = torch.full((1, 8), -100)
    labels[0, 3] = 1
    plain = utils._use_triton
    monkeypatch.delattr(utils, "_use_triton")
    with labelled_positions_only():
        assert not hasattr(utils, "_use_triton")
    monkeypatch.setattr(utils, "_use_triton", plain, raising=False)
    step(labels)
    assert kernel.positions == [7]


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")
def test_training_goes_through_it(kernel, small_prepared, small_llm, tmp_path):
    from ecgbyte_hf import cli
    from ecgbyte_hf.training import sft

    encode = ["encode", "--data", small_prepared.folder, "--model", small_llm, "--row-format", "shared"]
    assert cli.main([str(word) for word in [*encode, "--splits", "validation", "--output", tmp_path / "rows"]]) == 0
    given = {
        "model_name_or_path": small_llm,
        "dataset_name": tmp_path / "rows",
        "dataset_train_split": "validation",
        "output_dir": tmp_path / "out",
        "max_steps": 1,
        "per_device_train_batch_size": 1,
        "max_length": 384,
        "use_cpu": "true",
        "bf16": "false",
        "report_to": "none",
    }
    sft.train([str(word) for name, value in given.items() for word in (f"--{name}", value)])
    assert len(kernel.positions) == 1 and 0 < kernel.positions[0] < 100
