"""Options of `ecgbyte sft` in tests, and runs of generation that break off."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from ecgbyte_hf.evaluation.generate import generate_answers

# What a recipe for a GPU needs to run here.
ON_CPU = {
    "bf16": "false",
    "dtype": "float32",
    "use_cpu": "true",
    "gradient_checkpointing": "false",
    "dataloader_pin_memory": "false",
    "report_to": "none",
    "disable_tqdm": "true",
}


def words(**options: Any) -> list[str]:
    """Options as they are given in a shell."""
    return [word for name, value in options.items() for word in (f"--{name}", *str(value).split())]


def sft_config(output_dir: Any, **settings: Any) -> Any:
    """TRL's own options here; what switches checkpointing off is called otherwise in older transformers."""
    from trl import SFTConfig

    known = {field.name for field in fields(SFTConfig)}
    new, old = "activation_checkpointing", "gradient_checkpointing"
    given = {"report_to": "none", "use_cpu": True, "bf16": False, new if new in known else old: False}
    return SFTConfig(output_dir=str(output_dir), **given, **settings)


def break_off_after_a_batch(model: Any, rows: Any, prompter: Any, options: Any, path: Any, **settings: Any) -> None:
    """Begin a run of `generate_answers` that is interrupted in its second batch."""
    asked = []

    class Broken(type(model)):
        def complete(self, prompts: Any, **kwargs: Any) -> Any:
            asked.append(prompts)
            if len(asked) > 1:
                raise KeyboardInterrupt
            return super().complete(prompts, **kwargs)

    breaking = Broken(model.model, model.lm_tokenizer, model.processor, model.prompt, model.source)
    with pytest.raises(KeyboardInterrupt):
        generate_answers(breaking, rows, prompter, options, path, **settings)
