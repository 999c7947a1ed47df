"""`ecgbyte extend-llm`, `sft`, `generate` and `ask`: a language model that reads ECGs, trained and asked.

Only the standard library is imported here; each command imports what it needs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from ecgbyte_hf.cli_ecg_llm import add_encoder_options, check_encoder_options, extend_by_encoder
from ecgbyte_hf.command_line import (
    MODEL_HELP,
    Adder,
    add_perturb,
    add_window,
    load_processor,
    open_prepared,
    perturbed,
    say,
    seed,
)
from ecgbyte_hf.models.errors_ecg_byte import EcgError


def add_commands(add: Adder) -> None:
    """Add all of them."""
    _add_extend_llm(add)
    _add_sft(add)
    _add_generate(add)
    _add_ask(add)


def _add_extend_llm(add: Adder) -> None:
    command = add(
        "extend-llm",
        _extend_llm,
        "Give a language model rows for the ECG tokens, or an encoder in front of it; then `ecgbyte sft` trains it.",
        "ecgbyte extend-llm --model meta-llama/Llama-3.2-1B --tokenizer ecg-byte --output llama-ecg\n"
        "  ecgbyte extend-llm --model meta-llama/Llama-3.2-1B --encoder encoder --output llama-encoder",
    )
    command.add_argument("--model", default="meta-llama/Llama-3.2-1B", help="any causal language model")
    command.add_argument("--tokenizer", metavar="DIR", help="what `ecgbyte train-tokenizer` wrote")
    add_encoder_options(command)
    command.add_argument("--output", required=True, metavar="DIR", help="folder to write")
    command.add_argument("--max-length", type=int, default=1024, help="tokens of prompt and answer together")
    command.add_argument("--reserve", type=int, default=64, help="tokens of these kept free for the answer")
    command.add_argument(
        "--prompt-format",
        choices=("plain", "chat"),
        default="plain",
        help="the question as plain text, or in the chat template of an Instruct model (default: plain)",
    )
    command.add_argument("--system-prompt", metavar="TEXT", help="with --prompt-format chat: the system's message")
    command.add_argument(
        "--template",
        metavar="TEXT",
        help="wording of a plain prompt, with {ecg} and {question} (default: the ECG, a line with the question, and a "
        "line for the answer)",
    )
    command.add_argument(
        "--context",
        nargs="+",
        choices=("age", "sex"),
        help="tell the patient's before the question (default: as the first `encode` says)",
    )
    command.add_argument(
        "--window-seconds",
        type=float,
        metavar="SECONDS",
        help="the model is for windows of this length, 0 for whole records (default: as the first `encode` says)",
    )
    command.add_argument(
        "--init",
        choices=("waveform", "spread", "mean", "resize"),
        default="waveform",
        help="new rows of ECG tokens: spread like the old ones and near each other where the tokens' waveforms are; "
        "spread at random; all at the old ones' mean; as transformers resizes (default: %(default)s)",
    )
    command.add_argument("--seed", type=seed, default=0, help="of the new rows")
    command.add_argument("--dtype", default="auto", help="dtype of the weights, as in from_pretrained")
    command.add_argument("--revision", help="revision of the model on the Hub")
    command.add_argument(
        "--tiny-from",
        metavar="DIR",
        help="make a small random Llama for this prepared folder instead of loading --model: nothing is downloaded",
    )
    command.add_argument(
        "--tiny-size",
        type=int,
        nargs=3,
        default=[128, 4, 512],
        metavar=("WIDTH", "LAYERS", "WORDS"),
        help="of --tiny-from, with the entries of its text vocabulary (default: 128 4 512)",
    )


def _extend_llm(options: argparse.Namespace) -> int:
    import tempfile

    from ecgbyte_hf.data.prompts import EcgPrompt
    from ecgbyte_hf.training.extend_llm import extend_llm

    if options.template is not None and options.prompt_format == "chat":
        raise EcgError("--template is for --prompt-format plain; a chat has the template of its tokenizer")
    prompt = EcgPrompt(
        **({} if options.template is None else {"template": options.template}),
        max_length=options.max_length,
        reserve=options.reserve,
        context=options.context,
        window_seconds=options.window_seconds,
    )
    check_encoder_options(options)
    processor = None if options.encoder else load_processor(options.tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        model = options.model
        if options.tiny_from:
            from ecgbyte_hf.data.prepared import PreparedData
            from ecgbyte_hf.training.tiny_llm import make_tiny_llama, texts_of

            width, layers, words = options.tiny_size
            sizes = {"hidden_size": width, "num_layers": layers, "text_vocab_size": words}
            model = str(make_tiny_llama(folder, texts_of(PreparedData(options.tiny_from), prompt), **sizes))
        if options.encoder:
            return extend_by_encoder(options, model, prompt, say)
        made = extend_llm(
            model,
            processor,
            options.output,
            prompt=prompt,
            prompt_format=options.prompt_format,
            system_prompt=options.system_prompt,
            init=options.init,
            seed=options.seed,
            dtype=options.dtype,
            revision=options.revision,
        )
    tied = "tied" if made.tied else "separate"
    say(f"{made.num_added} tokens added, {made.vocab_size} in all, {tied} embeddings; saved in {made.folder}")
    say(f"next: ecgbyte encode --data PREPARED --model {made.folder} --output ROWS")
    return 0


def _add_sft(add: Adder) -> None:
    from ecgbyte_hf.training.sft import EcgArguments

    command = add(
        "sft",
        sft,
        "Train an extended model: `trl sft` with what its command line lacks for ECG tokens.\n"
        "All options but those listed after --resume_from_checkpoint are TRL's; `trl sft --help` lists them.",
        "ecgbyte sft --config scripts/recipes/sft_paper.yaml --model_name_or_path llama-ecg --dataset_name rows "
        "--output_dir sft",
    )
    command.add_argument("--model_name_or_path", metavar="DIR", help="what `ecgbyte extend-llm` wrote")
    command.add_argument("--dataset_name", metavar="DIR", help="what `ecgbyte encode` wrote")
    command.add_argument("--output_dir", metavar="DIR", help="folder to write; then `ecgbyte generate --model DIR`")
    command.add_argument(
        "--resume_from_checkpoint",
        metavar="DIR",
        help="go on from a checkpoint; `true` for the newest in --output_dir",
    )
    for option in fields(EcgArguments):
        metavar = {"bool": "true|false", "int | None": "N"}.get(str(option.type), "DIR")
        command.add_argument(f"--{option.name}", metavar=metavar, help=option.metadata["help"])


def sft(options: argparse.Namespace) -> int:
    """`ecgbyte sft`: TRL's parser reads its options."""
    from ecgbyte_hf.training.sft import run_sft

    return run_sft(options.arguments)


def _add_generate(add: Adder) -> None:
    command = add(
        "generate",
        _generate,
        "Answer the questions of a split, or one question about one recording.",
        "ecgbyte generate --model sft --data prepared --split test --output answers.jsonl\n"
        "  ecgbyte generate --model sft --record 00001_hr --question 'Is the rhythm regular?'",
    )
    command.add_argument("--model", required=True, metavar="MODEL", help=MODEL_HELP)
    command.add_argument("--revision", help="of a model on the Hub: branch, tag or commit")
    command.add_argument("--ecg", metavar="DIR", help="folder with the ECG tokenizer (default: the model's ecg_byte/)")
    command.add_argument("--data", metavar="DIR", help="what `ecgbyte prepare` wrote")
    add_window(command)
    add_perturb(command)
    command.add_argument("--split", default="test", help="whose questions are asked (default: test)")
    command.add_argument("--output", metavar="FILE", help="JSON Lines file; a broken run is resumed")
    command.add_argument(
        "--view",
        choices=("true", "question_only", "zero_signal", "shuffled"),
        default="true",
        help="what the model is shown: the ECG, or a control",
    )
    command.add_argument("--record", metavar="PATH", help="one recording instead of a prepared folder")
    command.add_argument("--question", help="the question about --record")
    command.add_argument("--batch-size", type=int, help="questions at a time (default: 16; vllm: 1024)")
    command.add_argument("--max-new-tokens", type=int, default=64, help="of the longest answer (default: 64)")
    command.add_argument("--device", help="such as cuda or cpu (default: the best there is)")
    command.add_argument("--seed", type=seed, default=0, help="of the shuffled control")
    _add_decoding(command)


def _add_decoding(command: argparse.ArgumentParser) -> None:
    decoding = command.add_argument_group("how answers are made")
    decoding.add_argument(
        "--shared-prefix",
        choices=("auto", "on", "off"),
        default="auto",
        help="compute an ECG once for all its questions: auto does where the model can and an ECG has several",
    )
    decoding.add_argument(
        "--score-options",
        choices=("none", "verify", "all"),
        default="none",
        help="also write the log-probability of every valid answer, of verify questions or of all (default: none)",
    )
    decoding.add_argument(
        "--options-only",
        action="store_true",
        help="write nothing freely: the answer is the likeliest valid one, never several",
    )
    decoding.add_argument(
        "--backend",
        choices=("transformers", "vllm"),
        default="transformers",
        help="vllm needs the extra vllm and a whole model (`ecgbyte sft --merge`) (default: transformers)",
    )


def _generate(options: argparse.Namespace) -> int:
    from ecgbyte_hf.evaluation.backends import BATCH_SIZES, load_language_model
    from ecgbyte_hf.evaluation.generate import generate_answers, make_prompter, report_path

    if bool(options.record) == bool(options.data):
        say("ecgbyte generate: give --data and --output, or --record and --question", stream=sys.stderr)
        return 2
    needed = "question" if options.record else "output"
    if not getattr(options, needed):
        say(f"ecgbyte generate: {'--record' if options.record else '--data'} needs --{needed}", stream=sys.stderr)
        return 2
    if options.backend == "vllm" and (options.options_only or options.score_options != "none"):
        say("ecgbyte generate: --backend vllm scores no options", stream=sys.stderr)
        return 2
    language_model = load_language_model(
        options.backend,
        options.model,
        ecg=options.ecg,
        device=options.device,
        max_new_tokens=options.max_new_tokens,
        revision=options.revision,
    )
    if options.record:
        from ecgbyte_hf.signal.records import read_ecg

        record = read_ecg(options.record)
        say(language_model.answer(record, options.question, max_new_tokens=options.max_new_tokens))
        return 0
    prepared = perturbed(open_prepared(options), options)
    rows = prepared.questions(options.split)
    prompter = make_prompter(language_model, prepared, rows, view=options.view, seed=options.seed)
    path = generate_answers(
        language_model,
        rows,
        prompter,
        prepared.template_options(),
        options.output,
        batch_size=BATCH_SIZES[options.backend] if options.batch_size is None else options.batch_size,
        max_new_tokens=options.max_new_tokens,
        shared_prefix=options.shared_prefix,
        score_options=options.score_options,
        options_only=options.options_only,
    )
    cut = json.loads(report_path(path).read_text(encoding="utf-8"))["answers_at_limit"]
    say(f"{len(rows)} answers in {path}" + (f", {cut} of them cut off at --max-new-tokens" if cut else ""))
    return 0


def _add_ask(add: Adder) -> None:
    command = add(
        "ask",
        _ask,
        "Ask a model questions about one recording. Research use only.",
        "ecgbyte ask --model sft 00001_hr 'Is the rhythm regular?' 'Which leads show ST changes?'",
    )
    command.add_argument("record", metavar="RECORD", help="the recording, in any format that `ecgbyte read` knows")
    command.add_argument("questions", nargs="+", metavar="QUESTION", help="in quotes")
    command.add_argument("--model", required=True, metavar="MODEL", help=MODEL_HELP)
    command.add_argument("--revision", help="of a model on the Hub: branch, tag or commit")
    command.add_argument("--ecg", metavar="DIR", help="folder with the ECG tokenizer (default: the model's ecg_byte/)")
    command.add_argument("--age", type=float, help="in years, for a model that was trained with it")
    command.add_argument("--sex", choices=("male", "female"), help="for a model that was trained with it")
    command.add_argument("--max-new-tokens", type=int, default=64, help="of the longest answer (default: 64)")
    command.add_argument("--device", help="such as cuda or cpu (default: the best there is)")


def _ask(options: argparse.Namespace) -> int:
    from ecgbyte_hf.evaluation.language_model import EcgLanguageModel
    from ecgbyte_hf.signal.records import read_ecg

    record = read_ecg(options.record)
    language_model = EcgLanguageModel.load(
        options.model, ecg=options.ecg, device=options.device, revision=options.revision
    )
    given: Any = {
        "max_new_tokens": options.max_new_tokens,
        "context": {"age": options.age, "sex": options.sex},
    }
    if sys.stdout.isatty():
        streamer = _answer_streamer(language_model.lm_tokenizer, options.questions)
        language_model.answer_all(record, options.questions, **given, streamer=streamer)
        return 0
    answers = language_model.answer_all(record, options.questions, **given)
    for question, answer in zip(options.questions, answers, strict=True):
        say(answer.text if len(answers) == 1 else f"{question}\n{answer.text}")
    return 0


def _answer_streamer(lm_tokenizer: Any, questions: Sequence[str]) -> Any:
    """Writes each word when it is there; of several questions each before its answer."""
    from transformers import TextStreamer

    class AnswerStreamer(TextStreamer):
        """Gets the tokens of one prompt after another."""

        _waiting = list(questions) if len(questions) > 1 else []

        def put(self, value: Any) -> None:
            if self.next_tokens_are_prompt and self._waiting:
                say(self._waiting.pop(0))
            super().put(value)

    return AnswerStreamer(lm_tokenizer, skip_prompt=True, skip_special_tokens=True)
