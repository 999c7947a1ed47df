"""A plain one-dimensional residual network for labels of an ECG: the supervised baseline on the same signals.

The residual block is He et al.'s (arXiv 1512.03385) with one-dimensional convolutions, as in the networks of PTB-XL's
benchmark (Strodthoff et al., arXiv 2004.13701); mean and maximum over time feed one linear layer.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

logger = logging.getLogger(__name__)

Array = NDArray[np.float32]

# 0.85 million parameters with 12 leads and 59 labels.
_WIDTHS = (64, 96, 160, 224)
_STEM_KERNEL, _KERNEL = 11, 5
_DROPOUT = 0.3
_LEARNING_RATE, _WEIGHT_DECAY = 3e-3, 1e-2
_LARGEST_BATCH = 64
# Records at a time when nothing is learnt.
_ANSWER_BATCH = 256


class _Block(nn.Module):
    """Two convolutions beside a shortcut; the shortcut averages where the block halves the length."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv1d(channels, width, _KERNEL, stride=stride, padding=_KERNEL // 2, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Conv1d(width, width, _KERNEL, padding=_KERNEL // 2, bias=False),
            nn.BatchNorm1d(width),
        )
        self.shortcut: nn.Module = nn.Identity()
        if channels != width or stride != 1:
            self.shortcut = nn.Sequential(
                nn.AvgPool1d(stride, ceil_mode=True),
                nn.Conv1d(channels, width, 1, bias=False),
                nn.BatchNorm1d(width),
            )

    def forward(self, signals: Tensor) -> Tensor:
        return torch.relu(self.convolutions(signals) + self.shortcut(signals))


class Resnet1d(nn.Module):
    """Logits of labels from signals (batch, leads, samples) of any length from 64 samples on.

    Args:
        num_leads: Rows of a signal.
        num_labels: Logits.
    """

    def __init__(self, num_leads: int, num_labels: int) -> None:
        super().__init__()
        self.num_labels = num_labels
        self.stem = nn.Sequential(
            nn.Conv1d(num_leads, _WIDTHS[0], _STEM_KERNEL, stride=2, padding=_STEM_KERNEL // 2, bias=False),
            nn.BatchNorm1d(_WIDTHS[0]),
            nn.ReLU(),
            nn.MaxPool1d(2),
        )
        strides = (1, *[2] * (len(_WIDTHS) - 1))
        channels = (_WIDTHS[0], *_WIDTHS[:-1])
        self.blocks = nn.Sequential(*map(_Block, channels, _WIDTHS, strides))
        self.head = nn.Sequential(nn.Dropout(_DROPOUT), nn.Linear(2 * _WIDTHS[-1], num_labels))

    def forward(self, signals: Tensor) -> Tensor:
        """Logits (batch, labels)."""
        features = self.blocks(self.stem(signals))
        logits: Tensor = self.head(torch.cat([features.mean(dim=2), features.amax(dim=2)], dim=1))
        return logits


@dataclass
class TrainedResnet1d:
    """A trained network and how it came about.

    Attributes:
        network: In evaluation mode.
        mean: (leads, 1), of the training signals in mV.
        std: (leads, 1).
        epoch: Number of the epoch whose weights these are, from 1.
        losses: Mean training loss of each epoch.
        scores: What `judge` said after each epoch; empty without one.
    """

    network: Resnet1d
    mean: Array
    std: Array
    epoch: int = 0
    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    @property
    def num_parameters(self) -> int:
        """Numbers that were trained."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def logits(self, signals: Array) -> NDArray[np.float64]:
        """Logits (records, labels) of signals (records, leads, samples) in mV."""
        self.network.eval()
        device = next(self.network.parameters()).device
        parts = [np.empty((0, self.network.num_labels))]
        with torch.inference_mode():
            for start in range(0, len(signals), _ANSWER_BATCH):
                batch = (signals[start : start + _ANSWER_BATCH] - self.mean) / self.std
                parts.append(self.network(torch.from_numpy(batch).to(device)).cpu().double().numpy())
        return np.concatenate(parts)


def train_resnet1d(
    signals: Array,
    targets: Array,
    *,
    epochs: int,
    seed: int = 0,
    device: str = "cpu",
    judge: Callable[[TrainedResnet1d], float] | None = None,
    keep_best: bool = True,
) -> TrainedResnet1d:
    """Train by binary cross-entropy over all labels, with AdamW and a one-cycle learning rate.

    Args:
        signals: float32 (records, leads, samples) in mV.
        targets: float32 (records, labels), 1, 0, or NaN for what is not asked and does not count.
        epochs: Times that all records are seen; the learning rate's cycle is as long.
        seed: Of weights, order and dropout.
        device: Such as `"cuda"`.
        judge: Scores the network after each epoch, higher is better.
        keep_best: Return the weights that were judged best instead of the last. Of equals the latest: ranks are
            learnt before probabilities.

    Raises:
        EcgDataError: no epoch, less than two records, too few samples, or nothing to learn.
    """
    # From 64 samples the last block has two: a last record alone then has batch statistics.
    if epochs < 1 or len(signals) < 2 or signals.shape[2] < 64:
        raise EcgDataError(
            f"got {epochs} epochs and signals {signals.shape}, expected at least 1 epoch, 2 records and 64 samples"
        )
    if np.isnan(targets).all():
        raise EcgDataError("got no label that is asked about, expected some to learn")
    # Dropout and the weights draw from torch's own generator: it is put back afterwards.
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(seed)
        return _train(signals, targets, epochs, seed, device, judge, keep_best)


def _train(
    signals: Array,
    targets: Array,
    epochs: int,
    seed: int,
    device: str,
    judge: Callable[[TrainedResnet1d], float] | None,
    keep_best: bool,
) -> TrainedResnet1d:
    from tqdm.auto import tqdm

    mean = signals.mean(axis=(0, 2), dtype=np.float64)[:, None].astype(np.float32)
    # Record by record: numpy's own would hold all differences at once, in float64.
    squares = sum(np.square(one - mean, dtype=np.float64).sum(axis=1) for one in signals)
    std = np.sqrt(squares / (signals.shape[0] * signals.shape[2]))[:, None].astype(np.float32)
    std[std == 0.0] = 1.0  # a lead that is flat in all records
    network = Resnet1d(signals.shape[1], targets.shape[1]).to(device)
    trained = TrainedResnet1d(network, mean, std)
    # At least eight steps in an epoch, so that a small set is learnt too.
    batch_size = max(2, min(_LARGEST_BATCH, len(signals) // 8))
    starts = range(0, len(signals), batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=epochs * len(starts))
    rng = np.random.default_rng(seed)
    best: dict[str, Tensor] = {}
    best_score = -np.inf
    with tqdm(total=epochs * len(signals), desc="resnet1d", unit="record") as bar:
        for epoch in range(1, epochs + 1):
            network.train()
            order, losses = rng.permutation(len(signals)), []
            for start in starts:
                chosen = order[start : start + batch_size]
                batch = torch.from_numpy((signals[chosen] - mean) / std).to(device)
                loss = _masked_loss(network(batch), torch.from_numpy(targets[chosen]).to(device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                losses.append(loss.item())
                bar.update(len(chosen))
            trained.losses.append(float(np.mean(losses)))
            shown = {"loss": f"{trained.losses[-1]:.3f}"}
            if judge is not None:
                trained.scores.append(judge(trained))
                shown["score"] = f"{trained.scores[-1]:.3f}"
            bar.set_postfix(shown)
            if judge is None or not keep_best:
                trained.epoch = epoch
            elif trained.scores[-1] >= best_score:  # never, where it is NaN
                best_score = trained.scores[-1]
                trained.epoch, best = epoch, copy.deepcopy(network.state_dict())
    if not trained.epoch:
        raise EcgDataError("no epoch could be judged; give the number of epochs")
    if best:
        network.load_state_dict(best)
    network.eval()
    return trained


def _masked_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the labels that are asked about."""
    is_asked = ~torch.isnan(targets)
    each = nn.functional.binary_cross_entropy_with_logits(logits, torch.nan_to_num(targets), reduction="none")
    return (each * is_asked).sum() / is_asked.sum().clamp(min=1)
