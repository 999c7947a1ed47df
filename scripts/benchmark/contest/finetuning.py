"""Ways to train a language model on questions about ECGs. Each is timed in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contest.isolation import PeakMemory

#: As the paper trains: what is adapted, and how much.
LORA = {
    "r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "task_type": "CAUSAL_LM",
}
LEARNING_RATE, MAX_GRAD_NORM = 1e-4, 1.0
#: Shapes with random weights.
SHAPES: dict[str, dict[str, Any]] = {
    "small": {
        "hidden_size": 128,
        "intermediate_size": 320,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    },
    "llama-3.2-1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "vocab_size": 128_256,
        "max_position_embeddings": 131_072,
    },
}


@dataclass
class Steps:
    """When each step ended, and what was in its batch.

    Args:
        device: "cpu" or "cuda".
        warm_up: First steps, which do not count.
        pad_token_id: What is no useful token.
        eos_token_id: With a label at the end of each answer.
    """

    device: str
    warm_up: int
    pad_token_id: int
    eos_token_id: int
    ends: list[tuple[float, float]] = field(default_factory=list)
    batches: list[tuple[int, int, int]] = field(default_factory=list)
    memory: PeakMemory = field(default_factory=PeakMemory.start)

    def end(self) -> None:
        """A step has ended."""
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()
        self.ends.append((time.perf_counter(), time.process_time()))

    def count(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Positions, those that are no padding, and questions of a batch."""
        ids, labels = batch["input_ids"], batch["labels"]
        counts = ids.numel(), int((ids != self.pad_token_id).sum()), int((labels == self.eos_token_id).sum())
        self.batches.append(counts)
        return batch

    def report(self) -> dict[str, Any]:
        """Of the steps that count: their number, seconds (of the wall and of the processor) and what they held."""
        last = len(self.ends) - 1
        (wall, cpu), (wall_end, cpu_end) = self.ends[self.warm_up - 1], self.ends[last]
        positions, useful, questions = map(sum, zip(*self.batches[self.warm_up : last + 1], strict=True))
        peak = self.memory.report()
        peak_bytes = peak["peak_bytes"] - peak["baseline_bytes"]
        if self.device == "cuda":
            import torch

            peak_bytes = torch.cuda.max_memory_allocated()
        return {
            "steps": last + 1 - self.warm_up,
            "seconds": wall_end - wall,
            "cpu_seconds": cpu_end - cpu,
            "positions": positions,
            "useful_tokens": useful,
            "questions": questions,
            "peak_bytes": peak_bytes,
        }


def plain_padded(job: dict[str, Any]) -> dict[str, Any]:
    """A loop as in the paper: batch 2, every row padded to the full length, all logits."""
    import torch
    from datasets import load_dataset
    from peft import LoraConfig, get_peft_model

    tokenizer, model = tokenizer_and_model(job)
    model = get_peft_model(model, LoraConfig(**LORA)).train()
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=LEARNING_RATE)
    rows = load_dataset(str(Path(job["folder"]) / "text"))["train"].shuffle(seed=0)
    steps = Steps(job["device"], job["warm_up"], tokenizer.pad_token_id, tokenizer.eos_token_id)
    size = job["batch_size"]
    for step in range(job["warm_up"] + job["steps"]):
        picked = [rows[(step * size + index) % len(rows)] for index in range(size)]
        batch = steps.count(padded_batch(tokenizer, picked, job["max_length"]))
        loss = model(**{name: values.to(job["device"]) for name, values in batch.items()}).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad()
        steps.end()
    return steps.report()


def padded_batch(tokenizer: Any, rows: list[dict[str, Any]], length: int) -> dict[str, Any]:
    """Ids, mask and labels of text rows, (rows, length)."""
    import torch

    ids = torch.full((len(rows), length), tokenizer.pad_token_id)
    labels = torch.full_like(ids, -100)
    for index, row in enumerate(rows):
        start = len(tokenizer(row["prompt"])["input_ids"])
        whole = torch.tensor(tokenizer(row["prompt"] + row["completion"] + tokenizer.eos_token)["input_ids"])
        ids[index, : len(whole)] = whole
        labels[index, start : len(whole)] = whole[start:]
    return {"input_ids": ids, "attention_mask": (ids != tokenizer.pad_token_id).long(), "labels": labels}


def trl_padded(job: dict[str, Any]) -> dict[str, Any]:
    """TRL's trainer, rows of one question padded to the longest of the batch."""
    return _trl(job, "text")


def trl_packed(job: dict[str, Any]) -> dict[str, Any]:
    """TRL's trainer, rows of one question packed into full sequences (best fit decreasing)."""
    return _trl(job, "text", packing=True)


def trl_grouped(job: dict[str, Any]) -> dict[str, Any]:
    """TRL's trainer, grouped rows: several questions behind one another, each of which sees those before."""
    return _trl(job, "grouped")


def shared_prefix(job: dict[str, Any]) -> dict[str, Any]:
    """TRL's trainer as `ecgbyte sft` sets it up for shared-prefix rows."""
    return _trl(job, "shared")


WAYS: dict[str, tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "plain_padded": ("plain loop, padded to the full length", plain_padded),
    "trl_padded": ("TRL, padded", trl_padded),
    "trl_packed": ("TRL, packed", trl_packed),
    "trl_grouped": ("TRL, grouped rows", trl_grouped),
    "shared_prefix": ("`ecgbyte sft`, shared-prefix rows", shared_prefix),
}


def measure(way: str, job: dict[str, Any]) -> dict[str, Any]:
    """Train in one way for some steps."""
    import torch

    if job["device"] == "cpu":
        torch.set_num_threads(job["threads"])
    return WAYS[way][1](job)


def tokenizer_and_model(job: dict[str, Any]) -> tuple[Any, Any]:
    """The extended tokenizer, and random weights of the shape that was asked for."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer: Any = AutoTokenizer.from_pretrained(Path(job["folder"]) / "model")
    shape = dict(SHAPES[job["shape"]])
    config = LlamaConfig(
        **{**shape, "vocab_size": max(shape.get("vocab_size", 0), len(tokenizer)), "tie_word_embeddings": True},
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation=job["attention"],
    )
    torch.manual_seed(0)
    with _default_dtype(torch.bfloat16 if job["device"] == "cuda" else torch.float32), torch.device(job["device"]):
        return tokenizer, LlamaForCausalLM(config)


@contextmanager
def _default_dtype(dtype: Any) -> Iterator[None]:
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _trl(job: dict[str, Any], row_format: str, **options: Any) -> dict[str, Any]:
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from ecgbyte_hf.training import shared_prefix as shared

    tokenizer, model = tokenizer_and_model(job)
    on_cuda = job["device"] == "cuda"
    training = SFTConfig(
        output_dir=str(Path(job["folder"]) / "output"),
        max_steps=job["warm_up"] + job["steps"],
        per_device_train_batch_size=job["batch_size"],
        max_length=job["max_length"],
        learning_rate=LEARNING_RATE,
        max_grad_norm=MAX_GRAD_NORM,
        lr_scheduler_type="constant",
        gradient_checkpointing=False,
        bf16=on_cuda,
        use_cpu=not on_cuda,
        dataloader_pin_memory=on_cuda,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=1000,
        **options,
    )
    rows = load_dataset(str(Path(job["folder"]) / row_format))["train"]
    collator = None
    if row_format == "shared":
        rows = shared.rows_for_trl(training, rows)
        collator = shared.SharedPrefixCollator(tokenizer.pad_token_id, attn_implementation=None)
    trainer: Any = SFTTrainer(
        model=model,
        args=training,
        train_dataset=rows,
        data_collator=collator,
        processing_class=tokenizer,
        peft_config=LoraConfig(**LORA),
    )
    trainer.model.get_output_embeddings().bias = None  # as `ecgbyte sft`: a tied output layer has none
    if row_format == "shared":
        shared.prepare_trainer(trainer)
    steps = Steps(job["device"], job["warm_up"], tokenizer.pad_token_id, tokenizer.eos_token_id)
    collate = trainer.data_collator
    trainer.data_collator = lambda examples: steps.count(collate(examples))

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            steps.end()

    trainer.add_callback(Clock())
    trainer.train()
    return steps.report()
