"""`ecgbyte plot attention` and `ecgbyte report`: what an answer about a recording came from.

Only the standard library is imported here; each command imports what it needs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ecgbyte_hf.command_line import Adder, say

# As in `attribution.py`, which imports numpy.
METHODS = ("attention", "last_layer", "paper", "rollout", "gradient_x_input", "integrated_gradients")


def add_commands(add: Adder) -> None:
    """Add `report`."""
    command = add(
        "report",
        run_report,
        "One HTML page about a recording: trace, tokens, question, answer, what it came from. Research use only.",
        "ecgbyte report 00001_hr --model sft --question 'Is the rhythm regular?' --output report.html",
    )
    command.add_argument("record", metavar="RECORD", help="the recording, in any format that `ecgbyte read` knows")
    _add_asked(command)
    command.add_argument(
        "--method",
        nargs="+",
        choices=METHODS,
        default=["attention", "rollout", "gradient_x_input"],
        help="maps to choose from on the page (default: attention rollout gradient_x_input)",
    )
    command.add_argument("--output", required=True, metavar="FILE", help=".html")


def add_attention(add: Adder, name: str = "attention") -> None:
    """Add `attention` to the commands of `ecgbyte plot`."""
    command = add(
        name,
        run_attention,
        "Draw which samples of each lead, and which words, an answer came from; numbers are saved beside it.",
        "ecgbyte plot attention --model sft --record 00001_hr --question 'Is the rhythm regular?' --output map.png",
    )
    command.add_argument("--record", required=True, metavar="PATH", help="the recording")
    _add_asked(command)
    command.add_argument(
        "--method",
        nargs="+",
        choices=METHODS,
        default=["attention"],
        help="attention: of the answer; paper: among the ECG's tokens; of several, each has a figure "
        "(default: attention)",
    )
    command.add_argument("--layer", type=int, help="attention and paper of this layer alone, from 0 (default: mean)")
    command.add_argument("--head", type=int, help="attention and paper of this head alone, from 0 (default: mean)")
    command.add_argument(
        "--check",
        action="store_true",
        help="delete the top 10 %% of samples of each map: does the answer lose more than by the same pieces moved?",
    )
    command.add_argument("--draws", type=int, default=20, help="with --check: moved deletions (default: 20)")
    add_figure_file(command)


def add_figure_file(command: argparse.ArgumentParser) -> None:
    """Add where a figure is saved, and at which resolution."""
    command.add_argument("--output", required=True, metavar="FILE", help=".png, .svg or .pdf")
    command.add_argument(
        "--dpi", type=float, help="pixels of a PNG in an inch (default: 254 of figures true to scale, else 150)"
    )


def _add_asked(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", required=True, metavar="DIR", help="what `trl sft` wrote: a model or an adapter")
    command.add_argument("--ecg", metavar="DIR", help="folder with the ECG tokenizer (default: the model's ecg_byte/)")
    command.add_argument("--question", required=True, help="in quotes")
    command.add_argument("--answer", help="the answer to explain (default: the model's own)")
    command.add_argument("--age", type=float, help="in years, for a model that was trained with it")
    command.add_argument("--sex", choices=("male", "female"), help="for a model that was trained with it")
    command.add_argument("--max-new-tokens", type=int, default=64, help="of the longest answer (default: 64)")
    command.add_argument("--steps", type=int, default=32, help="of integrated gradients (default: 32)")
    command.add_argument("--device", help="such as cuda or cpu (default: the best there is)")


def _read(options: argparse.Namespace) -> tuple[Any, Any]:
    """The model, and what it read."""
    from ecgbyte_hf.evaluation.language_model import EcgLanguageModel
    from ecgbyte_hf.interpretation.reading import read_question
    from ecgbyte_hf.signal.records import read_ecg

    record = read_ecg(options.record)
    model = EcgLanguageModel.load(options.model, ecg=options.ecg, device=options.device)
    return model, read_question(
        model,
        record,
        options.question,
        answer=options.answer,
        context=_context(options),
        max_new_tokens=options.max_new_tokens,
    )


def _context(options: argparse.Namespace) -> dict[str, Any]:
    return {"age": options.age, "sex": options.sex}


def run_attention(options: argparse.Namespace) -> int:
    """`ecgbyte plot attention`."""
    from ecgbyte_hf.interpretation.attribution import attribute, save_numbers
    from ecgbyte_hf.interpretation.attribution_figure import plot_attribution
    from ecgbyte_hf.interpretation.figures import check_figure_path, save_figure

    output = Path(options.output)
    check_figure_path(output, dpi=options.dpi)
    model, reading = _read(options)
    made = attribute(model, reading, options.method, layer=options.layer, head=options.head, steps=options.steps)
    for one in made:
        path = output if len(made) == 1 else output.with_stem(f"{output.stem}-{one.method}")
        save_figure(plot_attribution(reading, one, title=Path(options.record).stem), path, dpi=options.dpi)
        say(f"saved {path}")
    extra: dict[str, Any] = {"arguments": _arguments(options)}
    if options.check:
        extra["check"] = _check(model, reading, made, options)
    numbers, arrays = save_numbers(output, reading, made, **extra)
    say(f"numbers in {numbers} and {arrays}")
    say(f"answer: {reading.answer}")
    return 0


def _check(model: Any, reading: Any, made: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Deletion by each map, told in a line each."""
    from ecgbyte_hf.interpretation.faithfulness import deletions

    maps = {one.method: reading.to_samples(one.for_answer()) for one in made}
    results = deletions(model, reading, maps, draws=options.draws, context=_context(options))
    for method, result in results.items():
        below = sum(result.top < other for other in result.random)
        say(
            f"{method}: without its top {100 * result.share:.0f} % of samples the answer loses {result.drop:.2f} "
            f"nats, without the same pieces moved {result.random_drop:.2f}, less in {below} of {options.draws}"
        )
    return {method: result.to_dict() for method, result in results.items()}


def run_report(options: argparse.Namespace) -> int:
    """`ecgbyte report`."""
    from ecgbyte_hf.interpretation.attribution import attribute
    from ecgbyte_hf.interpretation.report_page import save_report
    from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

    if Path(options.output).suffix.lower() not in (".html", ".htm"):
        raise EcgDataError(f"cannot write the page to {options.output}: expected a name that ends in .html")
    model, reading = _read(options)
    made = attribute(model, reading, options.method, steps=options.steps)
    # The folder's name, not its path: a page is passed on.
    name = Path(options.model).resolve().name
    save_report(options.output, reading, made, title=Path(options.record).stem, model_name=name)
    say(f"answer: {reading.answer}")
    say(f"saved {options.output}")
    return 0


def _arguments(options: argparse.Namespace) -> dict[str, Any]:
    """What was asked for, without the functions that argparse keeps."""
    return {name: value for name, value in vars(options).items() if name not in ("run", "command", "config")}
