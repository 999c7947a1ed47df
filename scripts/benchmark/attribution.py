"""Do maps of an ECG mean something? Shares inside a known place, and deletion, on a model trained here.

Examples:
    python scripts/benchmark/attribution.py --work attribution
    python scripts/benchmark/attribution.py --work trial --steps 2 --records 6 --draws 2 --output trial
    python scripts/benchmark/attribution.py --from-json scripts/benchmark/results/attribution.json

Simulated ECGs have an ST shift in one lead and in no other (`ecgbyte_hf.data.local_findings`), and the question is
which shift. So the answer comes from the ST segments of one lead, and the model is not told which. A small Llama is
trained on one core for some minutes. For each test record with a shift that it answers rightly, every method's map is
made of the trained model and of the same model before training:
- the share of the map in the known place, against the place's share of the tokens, and against the untrained model;
- what the answer loses when the map's top 10 % of samples are set to the lead's median, against the same pieces moved.
Signed maps count by what is above 0. Intervals are bootstrap intervals over records. A method passes where all three
differences have intervals above 0. One process on one thread. The folder of --output gets attribution.json and
attribution.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# Before torch and the Hub's client are imported, which read them once.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # the checkout's own package, installed or not

import numpy as np  # noqa: E402

LEADS = ("II", "V2")
RATE = 100
SECONDS = 1.2
MAX_LENGTH = 320
#: Records from here on are tested on; those before it train the tokenizer and the model.
FIRST_TEST = 10_000_000
METHODS = ("attention", "last_layer", "paper", "rollout", "gradient_x_input", "integrated_gradients")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    description, _, examples = (__doc__ or "").partition("\n\n")
    options = argparse.ArgumentParser(
        description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = options.add_argument
    add("--work", metavar="DIR", help="folder for the models")
    add("--steps", type=int, default=200, help="of training (default: %(default)s)")
    add("--batch-size", type=int, default=16, help="records of a step (default: %(default)s)")
    add("--learning-rate", type=float, default=3e-3, help="peak (default: %(default)s)")
    add("--records", type=int, default=60, help="to test (default: %(default)s)")
    add("--draws", type=int, default=5, help="moved deletions of each map (default: %(default)s)")
    add("--integration-steps", type=int, default=16, help="(default: %(default)s)")
    add("--seed", type=int, default=0, help="(default: %(default)s)")
    add("--output", default=str(HERE / "results"), metavar="DIR", help="(default: %(default)s)")
    add("--from-json", metavar="FILE", help="write the table of an earlier run again")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, test, write."""
    options = parser().parse_args(arguments)
    if options.from_json:
        result = json.loads(Path(options.from_json).read_text(encoding="utf-8"))
        (Path(options.from_json).with_suffix(".md")).write_text(table(result), encoding="utf-8")
        return 0
    if not options.work:
        parser().error("give --work")
    from ecgbyte_hf.evaluation.language_model import EcgLanguageModel
    from ecgbyte_hf.provenance import provenance, write_json, write_text

    work, start = Path(options.work), time.process_time()
    make_untrained(work, options.seed)
    training = train(work, options)
    seconds = {"training": time.process_time() - start}
    say(f"trained: {training}")
    models = {name: EcgLanguageModel.load(work / name, device="cpu") for name in ("trained", "untrained")}
    result = measure(models, options)
    seconds["all"] = time.process_time() - start
    result |= {"training": training, "cpu_seconds": seconds}
    places = {"work", "output", "from_json"}  # of this machine, and without meaning elsewhere
    given = {name: value for name, value in vars(options).items() if name not in places}
    result["provenance"] = provenance("scripts/benchmark/attribution.py", given)
    write_json(Path(options.output) / "attribution.json", result)
    write_text(Path(options.output) / "attribution.md", table(result))
    say(table(result))
    return 0


def records(first: int, count: int, seed: int) -> Iterator[Any]:
    """Records of the task by their numbers."""
    from ecgbyte_hf.data.local_findings import local_st_shift

    for number in range(first, first + count):
        yield local_st_shift(number, leads=LEADS, duration=SECONDS, sampling_rate=RATE, seed=seed)


def make_untrained(work: Path, seed: int) -> None:
    """A tokenizer and a small Llama with rows for it, in `work/untrained`."""
    from ecgbyte_hf.data.local_findings import QUESTION
    from ecgbyte_hf.data.prompts import EcgPrompt
    from ecgbyte_hf.data.simulator import ST_SHIFTS
    from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor
    from ecgbyte_hf.models.processing_ecg_byte import EcgByteProcessor
    from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer, EcgCalibration
    from ecgbyte_hf.training.extend_llm import extend_llm
    from ecgbyte_hf.training.tiny_llm import make_tiny_llama

    if (work / "untrained" / "ecg_byte" / "ecg_prompt.json").is_file():
        return
    signals = [record.signal for record in records(1, 400, seed)]
    low, high = np.percentile(np.concatenate([signal.ravel() for signal in signals]), [0.5, 99.5])
    extractor = EcgByteFeatureExtractor(profile="none", sampling_rate=RATE, leads=list(LEADS))
    tokenizer = EcgByteTokenizer.train_from_iterator(
        signals,
        300,
        calibration=EcgCalibration("percentile", float(low) - 0.2, float(high) + 0.2),
        lead_boundary="split",
        sampling_rate=RATE,
        leads=LEADS,
        feature_extractor=extractor,
        num_threads=1,
    )
    prompt = EcgPrompt(max_length=MAX_LENGTH, reserve=32)
    texts = [prompt.render("", QUESTION) + prompt.render_answer([answer]) for answer in ST_SHIFTS] * 20
    shape = {"hidden_size": 64, "num_layers": 2, "num_heads": 4, "text_vocab_size": 300, "seed": seed}
    make_tiny_llama(work / "llama", texts, **shape)
    processor = EcgByteProcessor(feature_extractor=extractor, tokenizer=tokenizer)
    extend_llm(str(work / "llama"), processor, work / "untrained", prompt=prompt, seed=seed)


def train(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train on a new batch of records at each step, loss on the answer alone; `work/trained` is the result."""
    import torch

    from ecgbyte_hf.data.chat import EcgPrompter
    from ecgbyte_hf.data.local_findings import QUESTION
    from ecgbyte_hf.evaluation.language_model import EcgLanguageModel
    from ecgbyte_hf.training.extend_llm import save_ecg_parts

    report = work / "training.json"
    if report.is_file():
        return dict(json.loads(report.read_text(encoding="utf-8")))
    loaded = EcgLanguageModel.load(work / "untrained", device="cpu", dtype=torch.float32)
    torch.manual_seed(options.seed)
    model = loaded.model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, options.steps))
    losses, lengths, cut = [], [], 0
    for step in range(options.steps):
        batch = list(records(1 + step * options.batch_size, options.batch_size, options.seed))
        prompter = EcgPrompter(
            loaded.processor.tokenizer, loaded.lm_tokenizer, loaded.prompt, [one.signal for one in batch].__getitem__
        )
        rows = [
            prompter.divided_row({"sample_id": place, "question": QUESTION, "answer": [one.answer], "ecg_id": [place]})
            for place, one in enumerate(batch)
        ]
        cut += sum(row.was_cut for row in rows)
        lengths += [len(row.shared) + len(row.question) + len(row.answer) for row in rows]
        loss = _loss(model, rows, loaded.lm_tokenizer.pad_token_id)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(float(loss.detach()))
        if (step + 1) % 25 == 0:
            say(f"step {step + 1}: loss {np.mean(losses[-25:]):.3f}, {time.process_time():.0f} s")
    model.eval().save_pretrained(work / "trained")
    loaded.lm_tokenizer.save_pretrained(work / "trained")
    save_ecg_parts(work / "trained", loaded.processor, loaded.prompt)
    result = {
        "steps": options.steps,
        "records": options.steps * options.batch_size,
        "mean_tokens": float(np.mean(lengths)),
        "rows_with_ecg_cut": int(cut),
        "first_loss": float(np.mean(losses[:25])),
        "last_loss": float(np.mean(losses[-25:])),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    report.write_text(json.dumps(result), encoding="utf-8")
    return result


def _rate(step: int, steps: int) -> float:
    """A linear start of a twentieth of the steps, then a cosine to 0."""
    start = max(steps // 20, 1)
    return min((step + 1) / start, 0.5 * (1.0 + math.cos(math.pi * step / steps)))


def _loss(model: Any, rows: Sequence[Any], pad: int) -> Any:
    """Mean over the answers' tokens and their ends."""
    import torch

    from ecgbyte_hf.evaluation.prompt_ids import padded

    sequences = [[*row.shared, *row.question, *row.answer] for row in rows]
    ids, mask = padded(sequences, pad, side="right", device="cpu")
    hidden = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    at = [(number, len(one) - len(row.answer)) for number, (one, row) in enumerate(zip(sequences, rows, strict=True))]
    picked = [hidden[number, start - 1 : start - 1 + len(rows[number].answer)] for number, start in at]
    targets = torch.tensor([token for row in rows for token in row.answer])
    return torch.nn.functional.cross_entropy(model.lm_head(torch.cat(picked)).float(), targets)


def measure(models: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """All maps of all test records, and their means."""
    from ecgbyte_hf.data.local_findings import QUESTION
    from ecgbyte_hf.data.simulator import ST_SHIFTS
    from ecgbyte_hf.interpretation.reading import prompts_about

    tested = list(records(FIRST_TEST, options.records, options.seed))
    right: dict[str, list[bool]] = {}
    for name, model in models.items():
        prompts = prompts_about(model, [record.signal for record in tested], QUESTION)
        made = [
            model.complete([prompt], max_new_tokens=1, options=[list(ST_SHIFTS)], options_only=True)[0].text
            for prompt in prompts
        ]
        right[name] = [answer == record.answer for answer, record in zip(made, tested, strict=True)]
        say(f"{name}: {np.mean(right[name]):.3f} of {len(tested)} answers right")
    rows = []
    for number, record in enumerate(tested):
        if record.lead is None or not right["trained"][number]:
            continue
        rows.append({"record": number, "lead": record.lead, **_record_row(models, record, options)})
        if len(rows) % 10 == 0:
            say(f"{len(rows)} records, {time.process_time():.0f} s")
    return {
        "accuracy": {name: float(np.mean(values)) for name, values in right.items()},
        "tested": len(tested),
        "with_a_shift": sum(record.lead is not None for record in tested),
        "explained": len(rows),
        "methods": {method: _summary(rows, method) for method in METHODS},
        "place": {
            name: float(np.mean([row[name] for row in rows])) if rows else None
            for name in ("token_share", "sample_share", "lead_share_of_tokens")
        },
        "records": rows,
    }


def _record_row(models: dict[str, Any], record: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Everything about one record."""
    from ecgbyte_hf.data.local_findings import QUESTION
    from ecgbyte_hf.interpretation.attribution import attribute
    from ecgbyte_hf.interpretation.faithfulness import deletions, share_inside, token_share
    from ecgbyte_hf.interpretation.reading import read_question

    row: dict[str, Any] = {"methods": {method: {} for method in METHODS}}
    for name, model in models.items():
        reading = read_question(model, record.signal, QUESTION, answer=record.answer)
        place = record.place[:, : reading.signal.shape[1]]
        lead = np.zeros_like(place)
        lead[LEADS.index(record.lead)] = True
        maps = {}
        for one in attribute(model, reading, METHODS, steps=options.integration_steps):
            maps[one.method] = reading.to_samples(one.for_answer())
            row["methods"][one.method][f"inside_{name}"] = share_inside(maps[one.method], place)
            row["methods"][one.method][f"in_lead_{name}"] = share_inside(maps[one.method], lead)
            if one.error is not None:
                row[f"integration_error_{name}"] = one.error
        if name == "trained":
            row |= {"token_share": token_share(reading, place), "sample_share": float(place.mean())}
            row["lead_share_of_tokens"] = token_share(reading, lead)
            for method, deletion in deletions(model, reading, maps, draws=options.draws, seed=options.seed).items():
                row["methods"][method] |= deletion.to_dict()
            best = deletions(model, reading, {"place": place.astype(float)}, share=place.mean(), draws=options.draws)
            row["place_drop"], row["place_random_drop"] = best["place"].drop, best["place"].random_drop
    return row


def _summary(rows: Sequence[dict[str, Any]], method: str) -> dict[str, Any]:
    """Means over the records with their intervals, and whether the method passes."""
    from ecgbyte_hf.interpretation.faithfulness import mean_with_interval

    if not rows:
        return {}
    numbers = [row["record"] for row in rows]
    own = [row["methods"][method] for row in rows]
    columns = {
        "inside": [one["inside_trained"] for one in own],
        "inside_untrained": [one["inside_untrained"] for one in own],
        "in_lead": [one["in_lead_trained"] for one in own],
        "over_chance": [one["inside_trained"] - row["token_share"] for one, row in zip(own, rows, strict=True)],
        "over_untrained": [one["inside_trained"] - one["inside_untrained"] for one in own],
        "drop": [one["drop"] for one in own],
        "random_drop": [one["random_drop"] for one in own],
        "drop_over_random": [one["drop"] - one["random_drop"] for one in own],
    }
    summary: dict[str, Any] = {name: mean_with_interval(values, numbers) for name, values in columns.items()}
    checked = ("over_chance", "over_untrained", "drop_over_random")
    summary["passes"] = all(summary[name]["ci95"][0] > 0.0 for name in checked)
    return summary


def table(result: dict[str, Any]) -> str:
    """The results in Markdown."""
    training, seconds = result["training"], result["cpu_seconds"]["all"]
    batch = training["records"] // training["steps"]
    right = {name: f"{100 * share:.1f} %" for name, share in result["accuracy"].items()}
    lines = [
        "# Do maps of an ECG mean something?",
        "",
        f"Made by `scripts/benchmark/attribution.py`. Simulated ECGs ({', '.join(LEADS)}; {SECONDS:g} s at {RATE} Hz) "
        "with an ST shift in one lead or in none; the question is which shift. A Llama of "
        f"{training['parameters']:,} parameters, {training['steps']} steps of {batch} records, {seconds:.0f} s of one "
        "core.",
        "",
        f"Right answers: {right['trained']} of {result['tested']} (before training {right['untrained']}). "
        f"{result['explained']} of the {result['with_a_shift']} records with a shift are answered rightly; these are "
        "explained.",
        *_about_the_place(result),
        "",
        "Share of the map inside the place (%), and in its lead; nats that the answer loses without the map's top "
        "10 % of samples, and without the same pieces moved. Means over records with 95 % intervals. A method passes "
        "where it is above the tokens' share, above the untrained model, and its deletion above the moved one, each "
        "with an interval above 0.",
        "",
        "| map | inside (%) | untrained (%) | over chance (points) | over untrained (points) | in the lead (%) | "
        "top 10 % (nats) | moved (nats) | difference (nats) | passes |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method, summary in result["methods"].items():
        if not summary:
            continue
        cells = [f"{100 * summary[name]['mean']:.1f}" for name in ("inside", "inside_untrained")]
        cells += [_interval(summary[name], 100.0, 1) for name in ("over_chance", "over_untrained")]
        cells += [f"{100 * summary['in_lead']['mean']:.1f}"]
        cells += [f"{summary[name]['mean']:.2f}" for name in ("drop", "random_drop")]
        cells += [_interval(summary["drop_over_random"], 1.0, 2), "yes" if summary["passes"] else "no"]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _about_the_place(result: dict[str, Any]) -> list[str]:
    """How much there is of the known place, and what deleting it does: what no map can do better than by luck."""
    rows = result["records"]
    if not rows:
        return []
    share = {name: f"{100 * value:.1f} %" for name, value in result["place"].items()}
    drop, elsewhere = (float(np.mean([row[name] for row in rows])) for name in ("place_drop", "place_random_drop"))
    return [
        f"The known place has {share['token_share']} of their tokens and {share['sample_share']} of their samples, "
        f"its lead {share['lead_share_of_tokens']} of the tokens. Setting the known place itself to the lead's median "
        f"costs the answer {drop:.2f} nats, the same pieces moved {elsewhere:.2f}.",
    ]


def _interval(summary: dict[str, Any], factor: float, digits: int) -> str:
    low, high = (factor * bound for bound in summary["ci95"])
    return f"{factor * summary['mean']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def say(text: str) -> None:
    """Write a line at once."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
