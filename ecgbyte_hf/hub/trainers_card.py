"""Which cards hold no person's words: TRL and PEFT write one beside every model that they save."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

# What TRL's card asks the model; PEFT's edits of the card take its tag away.
_QUESTION = "If you had a time machine, but could only go to the past or the future once and never return"
_TAG = "generated_from_trainer"
_GAP = "[More Information Needed]"
# PEFT's own card has some forty gaps to fill.
_MOST_GAPS = 10
_HEADER = re.compile(r"\A---\n(.*?\n)?---(\n|\Z)", re.DOTALL)
# Citations and the example come as blocks; what a person adds to one is a line that no pattern knows.
_BLOCKS = (
    re.compile(r"^Cite [\w ]+ as:\s*```bibtex\n[^`]*```$", re.MULTILINE),
    re.compile(
        r"^```python\nfrom transformers import pipeline\n\n"
        rf'question = "{re.escape(_QUESTION)}, which would you choose and why\?"\n'
        r"generator = pipeline\([^\n]*\)\noutput = generator\([^\n]*\n"
        r'print\(output\["generated_text"\]\)\n```$',
        re.MULTILINE,
    ),
)
_LINK = r"\[[^\]]*\]\([^)\s]*\)"
_LINES = re.compile(
    "|".join(
        (
            r"# Model Card( for .*)?",
            r"## (Quick start|Training procedure|Citations)",
            r"### Framework versions",
            # Of a folder too, and a list of data sets is written with brackets of its own.
            r"This model is a fine-tuned version of \[[^\]]*\]\(https://huggingface\.co/[^)]*\)"
            r"( on the \[.*\]\([^)]*\) dataset)?\.",
            rf"It has been trained using {_LINK}\.",
            rf"This model was trained with [\w-]+(, a method introduced in {_LINK})?\.",
            r"\[<img src=\"[^\"]*(wandb|trackio|comet)[^>]*>\]\([^)]*\)",
            r"- (TRL|PEFT|Transformers|Pytorch|Datasets|Tokenizers):? \S+",
            r"The following `bitsandbytes` quantization config was used during training:",
            r"- _?(quant_method|load_in|llm_int8|bnb)\w*: \S+",
        )
    )
)


def is_trainers_card(text: str) -> bool:
    """Whether a card is as TRL or PEFT left it; one that a person wrote a line into is that person's."""
    is_filled_in = _TAG in text or _QUESTION in text
    if not is_filled_in and text.count(_GAP) < _MOST_GAPS:
        return False
    body = _HEADER.sub("", text)
    for block in _BLOCKS:
        body = block.sub("", body)
    lines = {line.strip() for line in body.splitlines()} - {""}
    return all(_LINES.fullmatch(line) for line in lines - _lines_of_template())


@cache
def _lines_of_template() -> frozenset[str]:
    """What the Hub's client, and so PEFT, writes where nothing is said of a model."""
    from huggingface_hub import ModelCard

    template = Path(ModelCard.default_template_path).read_text(encoding="utf-8")
    filled = re.sub(r"\{\{ *\w+ *\| *default\(\"([^\"]*)\"[^}]*\}\}", r"\1", _HEADER.sub("", template))
    return frozenset(line.strip() for line in filled.splitlines())
