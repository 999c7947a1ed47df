"""Models with the key names and the arithmetic of the paper's code, tiny and random, and the checkpoints of them.

Written from the layout, not from the code: `reference_checkpoint` describes it.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

SIZE = 8  # of the compared embeddings


class Block(nn.Module):
    """A basic block of a one-dimensional ResNet."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(before, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm1d(channels)
        self.conv2 = nn.Conv1d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm1d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != channels:
            self.shortcut = nn.Sequential(
                nn.Conv1d(before, channels, 1, stride=stride, bias=False), nn.BatchNorm1d(channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.shortcut(x))


class Bottleneck(nn.Module):
    """One with three convolutions."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        after = 4 * channels
        self.conv1, self.bn1 = nn.Conv1d(before, channels, 1, bias=False), nn.BatchNorm1d(channels)
        self.conv2 = nn.Conv1d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm1d(channels)
        self.conv3, self.bn3 = nn.Conv1d(channels, after, 1, bias=False), nn.BatchNorm1d(after)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv1d(before, after, 1, stride=stride, bias=False), nn.BatchNorm1d(after)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """Two stages of one block, with the classifier that nothing uses."""

    def __init__(self, kind: str = "basic", channels: int = 8) -> None:
        super().__init__()
        block, grows = (Block, 1) if kind == "basic" else (Bottleneck, 4)
        self.conv1 = nn.Conv1d(12, channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm1d(channels)
        self.layer1 = nn.Sequential(block(channels, channels, 1))
        self.layer2 = nn.Sequential(block(grows * channels, 2 * channels, 2))
        self.linear = nn.Linear(grows * 2 * channels, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x)))))


class AttentionPool(nn.Module):
    """Attention of a class token, whose position is added twice."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(1, tokens + 1, SIZE))
        self.cls_token = nn.Parameter(torch.randn(1, 1, SIZE))
        self.mhsa = nn.MultiheadAttention(SIZE, 2, batch_first=True)
        self.c_proj = nn.Linear(SIZE, SIZE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        token = (self.cls_token + self.positional_embedding[:, :1]).expand(len(x), -1, -1)
        x = torch.cat([token, x.transpose(1, 2)], dim=1) + self.positional_embedding
        return self.c_proj(self.mhsa(x[:, :1], x, x)[0])[:, 0]


class ResNetPretrain(nn.Module):
    """The ResNet with MERL's head, and a text tower."""

    def __init__(self, resnet: ResNet, text: nn.Module, tokens: int) -> None:
        super().__init__()
        self.resnet, self.lm = resnet, text
        self.downconv = nn.Conv1d(resnet.linear.in_features, SIZE, 1)
        self.att_pool_head = AttentionPool(tokens)
        self.linear1 = nn.Linear(SIZE, SIZE, bias=False)
        self.linear2 = nn.Linear(SIZE, SIZE, bias=False)
        self.proj_t = nn.Sequential(nn.Linear(text.config.hidden_size, SIZE), nn.GELU(), nn.Linear(SIZE, SIZE))

    def forward(self, signal: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        features = self.downconv(self.resnet(signal))
        text = self.lm(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        mean = features.mean(dim=-1)
        ecg, text = F.normalize(self.att_pool_head(features), dim=-1), F.normalize(self.proj_t(text), dim=-1)
        return SimpleNamespace(ecg=ecg, text=text, views=(self.linear1(mean), self.linear2(mean)))


def shake(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every weight and running statistic a value of its own, so that a swap shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                noise = torch.randn(value.shape, generator=generator)
                value.copy_(noise.abs() + 0.5 if "running_var" in name else noise * 0.3)
    return model.eval()


def as_transformers_4_names(model: Any, folder: Path) -> dict[str, torch.Tensor]:
    """A model's weights under the names of its files, which are those of transformers 4."""
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def prefixed(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in tensors.items()}


def save(path: Path, state: dict[str, torch.Tensor], **extra: Any) -> Path:
    """As the paper's scripts save."""
    torch.save({"model": state, "epoch": 3, **extra}, path)
    return path


def extended_as_the_reference(folder: Path, id_order: tuple[int, ...] | None, *, lora: bool) -> tuple[Any, Any]:
    """Model and tokenizer of a folder as the paper's scripts extend them, the ECG tokens or one placeholder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    if id_order is not None:
        tokenizer.add_tokens([f"signal_{index}" for index in id_order])
        tokenizer.add_tokens(["<sig_start>"], special_tokens=True)
        tokenizer.add_tokens(["<sig_end>"], special_tokens=True)
        tokenizer.add_special_tokens({"pad_token": "<pad>"})
    else:
        tokenizer.add_special_tokens({"pad_token": "<pad>"})
        for token in ("<sig_start>", "<sig_end>", "<signal>"):
            tokenizer.add_tokens([token], special_tokens=True)
    model.resize_token_embeddings(len(tokenizer))
    with torch.no_grad():
        generator = torch.Generator().manual_seed(7)
        model.get_input_embeddings().weight.copy_(
            torch.randn(model.get_input_embeddings().weight.shape, generator=generator)
        )
    if lora:
        from peft import LoraConfig, get_peft_model

        names = ["q_proj", "v_proj", "k_proj", "o_proj", "gate_proj", "down_proj", "up_proj"]
        gpt2 = {"target_modules": ["c_attn"], "fan_in_fan_out": True}
        chosen = gpt2 if model.config.model_type == "gpt2" else {"target_modules": names}
        model = get_peft_model(
            model, LoraConfig(r=4, lora_alpha=32, lora_dropout=0.05, bias="none", task_type="CAUSAL_LM", **chosen)
        )
        with torch.no_grad():
            for name, value in model.named_parameters():
                if "lora_" in name:
                    value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
    return model.eval(), tokenizer


def projections(kind: str, width: int) -> dict[str, torch.Tensor]:
    """The second stage's layers between the tiny encoders and a language model."""
    sizes = {
        "clip": {"image_projection": (width, 12)},
        "vit": {"image_projection": (width, 16)},
        "resnet": {"image_projection": (width, 16)},
        "clip-vit": {
            "clip_projection": (width, 12),
            "vit_projection": (width, 16),
            "visual_fusion.0": (width, 2 * width),
            "visual_fusion.2": (width, width),
        },
    }[kind]
    generator = torch.Generator().manual_seed(11)
    made = {}
    for name, shape in sizes.items():
        made[f"{name}.weight"] = torch.randn(shape, generator=generator) * 0.3
        made[f"{name}.bias"] = torch.randn(shape[0], generator=generator) * 0.3
    return made


class SecondStage:
    """The arithmetic of a second stage's checkpoint, whose LoRA is worked in by hand.

    Args:
        kind: Of the encoder.
        towers: `CLIPModel`, `ViTForMaskedImageModeling` or `ResNet`; for clip-vit the first two.
        state: The checkpoint.
        config: Of the language model, as it was saved.
        alpha: Of LoRA.
    """

    def __init__(self, kind: str, towers: list[Any], state: dict[str, torch.Tensor], config: Any, alpha: int) -> None:
        from transformers import AutoModelForCausalLM

        self.kind, self.towers, self.state = kind, towers, state
        prefix = "llm.base_model.model." if any(".lora_A." in key for key in state) else "llm."
        own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        weights = {key.replace(".base_layer", ""): value.clone() for key, value in own.items() if ".lora_" not in key}
        for key in [key for key in own if ".lora_A." in key]:
            low, high = own[key], own[key.replace(".lora_A.", ".lora_B.")]
            change = alpha / len(low) * (high @ low)
            name = key.split(".lora_A.")[0] + ".weight"
            weights[name] += change.T if config.model_type == "gpt2" else change
        self.llm = AutoModelForCausalLM.from_config(config).eval()
        self.llm.load_state_dict(weights)

    def _layer(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def visual_token(self, values: torch.Tensor) -> torch.Tensor:
        """Map pictures, or scaled signals, to one embedding of the language model each."""
        if self.kind == "resnet":
            return self._layer("image_projection", self.towers[0](values).mean(dim=-1))
        embeddings = []
        for tower in self.towers:
            if hasattr(tower, "visual_projection"):
                embedding = tower.visual_projection(tower.vision_model(values).pooler_output)
                embeddings.append(embedding / embedding.norm(dim=-1, keepdim=True))
            else:
                hidden = tower.vit(values, output_hidden_states=True).hidden_states
                embeddings.append(torch.stack(hidden).mean(dim=0).mean(dim=1))
        if self.kind != "clip-vit":
            return self._layer("image_projection", embeddings[0])
        clip, vit = self._layer("clip_projection", embeddings[0]), self._layer("vit_projection", embeddings[1])
        return self._layer("visual_fusion.2", self._layer("visual_fusion.0", torch.cat([clip, vit], dim=-1)).relu())

    @torch.no_grad()
    def logits(self, values: torch.Tensor, ids: list[int], signal_id: int) -> torch.Tensor:
        """Logits (ECGs, tokens, vocabulary) of a text in which each ECG takes the place of the token `<signal>`."""
        embeds = self.llm.get_input_embeddings()(torch.tensor(ids)).repeat(len(values), 1, 1)
        embeds[:, ids.index(signal_id)] = self.visual_token(values)
        return self.llm(inputs_embeds=embeds).logits
