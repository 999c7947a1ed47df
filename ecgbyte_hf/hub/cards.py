"""Cards: the `README.md` of a repository on the Hub, filled from what the runs wrote about themselves.

A card never says a number that no file holds: its templates (`hub_cards/`) have none of their own about the artifact,
and what no file tells is left out, with a line that says so.
"""

from __future__ import annotations

import hashlib
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecgbyte_hf.data.ecg_parts import EXTEND_FILE
from ecgbyte_hf.hub.card_sources import EVALUATION, CardSources, is_hub_name, is_trainers_card, keep_reports, made_with
from ecgbyte_hf.hub.card_subjects import check_subjects
from ecgbyte_hf.hub.dataset_card import DataSetFiles, data_set_files
from ecgbyte_hf.hub.kinds import kind_of
from ecgbyte_hf.hub.source_data import SourceData, data_set_license, source_data
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgFileError
from ecgbyte_hf.provenance import read_object, write_text

KINDS = ("tokenizer", "dataset", "encoder", "language_model")
CARD_FILE = "README.md"
# Ends every card of ours, with a hash of its text: one without it, or of another text, is somebody's.
_MARK = "<!-- Written by `ecgbyte card` ({}): it is written anew until somebody changes it. -->"
_MARKED = re.compile(r"(.*)" + re.escape(_MARK).replace(r"\{\}", "([0-9a-f]{16})") + r"\s*", re.DOTALL)
_BASE_TAGS = ("ecg", "electrocardiogram", "ecg-byte")
# The trainer's options that a reader wants to know; `training_log.json` has all of them.
SFT_ARGUMENTS = (
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "max_steps",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_length",
    "packing",
    "optim",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "max_grad_norm",
    "bf16",
    "use_peft",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "lora_target_modules",
    "train_ecg_rows",
    "early_stopping_patience",
    "seed",
)
_WIDTH = 118
# A prompt's template, or a list of files, in a table: what is longer is in the file.
_LONGEST_VALUE = 200
# Arguments of commands that say where files were, not what was done.
_PLACES = ("data", "predictions", "output", "language_model_tokenizer", "dataset_name", "model_name_or_path")


@dataclass(frozen=True)
class CardOptions:
    """What the user says of a card.

    Attributes:
        repo_id: `USER/NAME` on the Hub.
        license: The Hub's name of the licence, such as `apache-2.0`.
        license_name: With `license="other"`: its name.
        license_link: With `license="other"`: its address, or `LICENSE` in the folder.
        base_model: Of a language model: the model on the Hub that was extended and trained.
        datasets: Data sets on the Hub that were used, `USER/NAME`.

    Raises:
        EcgDataError: a name that the Hub does not take.
    """

    repo_id: str | None = None
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    base_model: str | None = None
    datasets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check what the Hub would refuse."""
        for what, name in (
            ("the repository", self.repo_id),
            ("the base model", self.base_model),
            *(("the data set", name) for name in self.datasets),
        ):
            if name is not None and not _is_repo_id(name):
                raise EcgDataError(f"got {what} {name!r}, expected USER/NAME on the Hub")
        if self.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", self.license):
            raise EcgDataError(
                f"got the licence {self.license!r}, expected one of the Hub's names in lower case such as apache-2.0, "
                "cc-by-4.0 or odbl (https://huggingface.co/docs/hub/repositories-licenses)"
            )
        if (self.license == "other") != (self.license_name is not None) or (
            self.license_link is not None and self.license != "other"
        ):
            raise EcgDataError("a licence `other` needs its name, and only that has a name and a link")


def write_card(
    folder: str | Path,
    *,
    kind: str | None = None,
    repo_id: str | None = None,
    license: str | None = None,
    license_name: str | None = None,
    license_link: str | None = None,
    base_model: str | None = None,
    datasets: Sequence[str] = (),
    sources: Iterable[str | Path] = (),
    output: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the card of what a folder holds.

    Args:
        folder: A tokenizer, a data set, an encoder or a language model.
        kind: One of `KINDS`; by default found by the files.
        repo_id: `USER/NAME` on the Hub, for the examples; by default a placeholder with the folder's name.
        license: The Hub's name of the licence; of a data set by default that of its sources.
        license_name: Name of a licence `other`.
        license_link: Address of a licence `other`, or `LICENSE` in the folder.
        base_model: The model on the Hub that a language model began as, where the folder does not say.
        datasets: Names on the Hub of the data sets that were used.
        sources: Further reports of the same run: of `ecgbyte prepare`, `train-tokenizer`, `encode` or `evaluate`.
            Where the card goes into the folder they are copied to `card_reports/` there, for later cards.
        output: The file; by default `README.md` in the folder.
        overwrite: Replace a card that somebody wrote or changed.

    Returns:
        The card.

    Raises:
        EcgHubError: the folder is none of these.
        EcgDataError: a name or a licence that cannot be, reports that do not belong together or are about another
            model, or a card of somebody's own is there.
    """
    path = Path(output) if output is not None else Path(folder) / CARD_FILE
    if not overwrite and has_own_card(path):
        raise EcgDataError(
            f"{path} was written or changed by somebody; keep it, give --overwrite to replace it, or write the new "
            "card elsewhere with --output"
        )
    options = CardOptions(repo_id, license, license_name, license_link, base_model, tuple(datasets))
    further = list(sources)
    text = render_card(folder, kind=kind, options=options, sources=further)
    if output is None:
        keep_reports(folder, further)
    return write_text(path, text)


def has_own_card(path: str | Path) -> bool:
    """Whether a file is a card that somebody wrote or changed, rather than `ecgbyte card` or a trainer."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError) as error:
        raise EcgFileError(f"{path}: cannot be read as text ({type(error).__name__}); remove it") from error
    if not text.strip() or is_trainers_card(text):
        return False
    marked = _MARKED.fullmatch(text)
    return marked is None or marked[2] != _text_hash(marked[1])


def _text_hash(text: str) -> str:
    return hashlib.sha256(text.strip().encode()).hexdigest()[:16]


def render_card(
    folder: str | Path,
    *,
    kind: str | None = None,
    options: CardOptions | None = None,
    sources: Iterable[str | Path] = (),
) -> str:
    """The text of a card: metadata for the Hub, then what people read; see `write_card`."""
    options = options or CardOptions()
    found = CardSources.find(folder, sources)
    chosen = kind_of(folder) if kind in (None, "auto") else _known_kind(str(kind))
    data = tuple(dict.fromkeys(one for source in found.sources for one in source_data(source)))
    files = data_set_files(found.folder) if chosen == "dataset" else None
    name = found.folder.resolve().name
    with _as_their_commands_write_them():
        check_subjects(chosen, found)
        metadata = _metadata(chosen, found, options, data, files)
        facts = {
            "title": options.repo_id or name,
            "repo": options.repo_id or f"USER/{name}",
            "metadata": metadata,
            "data": data,
            **_facts(chosen, found, files),
        }
        text = f"---\n{_yaml(chosen, metadata)}\n---\n\n{_body(chosen, facts)}"
    text = f"{text}\n\n{_MARK.format(_text_hash(text))}\n"
    check_card(text, chosen)
    return text


@contextmanager
def _as_their_commands_write_them() -> Iterator[None]:
    """Refuse reports that lack what a card quotes.

    Raises:
        EcgDataError: an entry is missing, or of another kind.
    """
    from jinja2 import UndefinedError

    try:
        yield
    except (UndefinedError, TypeError, AttributeError, LookupError) as error:
        raise EcgDataError(
            f"a report is not as its command writes it ({' '.join(str(error).split())}); it is damaged or of another "
            "version: make it anew"
        ) from error


def check_card(text: str, kind: str) -> None:
    """Read a card as the Hub's client does.

    Raises:
        EcgDataError: it finds the metadata wrong.
    """
    from huggingface_hub import DatasetCard, ModelCard

    try:
        card: Any = (DatasetCard if kind == "dataset" else ModelCard)(text)
    except (ValueError, TypeError, AssertionError) as error:
        raise EcgDataError(f"the card's metadata is wrong: {' '.join(str(error).split())}") from error
    if not card.text.strip():
        raise EcgDataError("the card has no text")


def _known_kind(kind: str) -> str:
    name = kind.strip().replace("-", "_").replace(" ", "_").replace("data_set", "dataset")
    if name not in KINDS:
        raise EcgDataError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
    return name


def _is_repo_id(name: str) -> bool:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1


def _metadata(
    kind: str,
    found: CardSources,
    options: CardOptions,
    data: tuple[SourceData, ...],
    files: Any,
) -> dict[str, Any]:
    """The card's header, as the Hub's documentation names its fields; `files` are those of a data set."""
    license_id = data_set_license(data, options.license) if kind == "dataset" else options.license
    common = {
        "license": license_id,
        "license_name": options.license_name,
        "license_link": options.license_link,
        "tags": [*_BASE_TAGS, "medical", "research"],
    }
    makers: dict[str, Callable[..., dict[str, Any]]] = {
        "tokenizer": _tokenizer_metadata,
        "dataset": _data_set_metadata,
        "encoder": _encoder_metadata,
        "language_model": _language_model_metadata,
    }
    made = makers[kind](found, options, files)
    if kind != "dataset":
        made["datasets"] = [*dict.fromkeys((*options.datasets, *found.datasets))]
    return {name: value for name, value in {**common, **made}.items() if value}


def _tokenizer_metadata(found: CardSources, options: CardOptions, files: None) -> dict[str, Any]:
    return {"library_name": "transformers"}


def _data_set_metadata(found: CardSources, options: CardOptions, files: DataSetFiles) -> dict[str, Any]:
    return {
        "pretty_name": options.repo_id or found.folder.resolve().name,
        "task_categories": ["question-answering"] if files.has_questions else [],
        "size_categories": [files.size_category],
        "source_datasets": list(options.datasets),
        "configs": files.configs(),
        "dataset_info": files.dataset_info(),
    }


def _encoder_metadata(found: CardSources, options: CardOptions, files: None) -> dict[str, Any]:
    return {"library_name": "transformers", "pipeline_tag": "feature-extraction"}


def _language_model_metadata(found: CardSources, options: CardOptions, files: None) -> dict[str, Any]:
    adapter = read_object(found.folder / "adapter_config.json")
    stored = (adapter or {}).get("base_model_name_or_path")
    began_as = (read_object(found.folder / EXTEND_FILE) or {}).get("base_model") if adapter is None else None
    base = options.base_model or next(filter(is_hub_name, (stored, began_as)), None)
    made: dict[str, Any] = {
        "library_name": "transformers" if adapter is None else "peft",
        "pipeline_tag": "text-generation",
        "base_model": base,
        "base_model_relation": base and ("finetune" if adapter is None else "adapter"),
    }
    evaluation = found.last(EVALUATION)
    block = (evaluation or {}).get("provenance", {})
    judged_on = block.get("data_source")
    if evaluation is not None and judged_on and _are_own_scores(block.get("model")):
        made |= _model_index(evaluation, options, found, judged_on)
    return made


def _are_own_scores(asked: Mapping[str, Any] | None) -> bool:
    from ecgbyte_hf.evaluation.report_files import are_own_scores

    return are_own_scores(asked)


def _model_index(
    evaluation: Mapping[str, Any], options: CardOptions, found: CardSources, data_set: str
) -> dict[str, Any]:
    from ecgbyte_hf.evaluation.report_files import model_index

    name = (options.repo_id or found.folder.resolve().name).rpartition("/")[2]
    return model_index(evaluation, model_name=name, data_set=data_set)


def _yaml(kind: str, metadata: Mapping[str, Any]) -> str:
    """The header by the Hub's own classes, which know its fields."""
    from huggingface_hub import DatasetCardData, ModelCardData

    made: Any = (DatasetCardData if kind == "dataset" else ModelCardData)(**metadata)
    return str(made.to_yaml())


def _facts(kind: str, found: CardSources, files: DataSetFiles | None) -> dict[str, Any]:
    """What a template may tell, each `None` where no file says it."""
    facts: dict[str, Any] = {
        "sources": found.sources,
        "preparation": found.last("prepare"),
        "tokenizer": found.tokenizer() if kind in ("tokenizer", "language_model") else None,
        "tokenizer_training": found.last("train-tokenizer"),
        "preprocessor": found.preprocessor(),
        "encoding": found.last("encode"),
        "conversion": found.converted,
        "files": files,
        "made_with": _made_with,
    }
    if kind == "encoder":
        facts |= {"config": read_object(found.folder / "config.json") or {}, **_training(found, "pretrain-encoder")}
        facts["probe"] = found.last("probe-encoder")
        facts["probe_rows"] = _probe_rows(facts["probe"])
        facts["image_processor"] = _image_processor(found.folder)
    if kind == "language_model":
        adapter = read_object(found.folder / "adapter_config.json")
        facts |= {"prompt": found.prompt(), "adapter": adapter, **_training(found, "sft")}
        facts |= {"has_encoder": found.has_encoder, "config": read_object(found.folder / "config.json") or {}}
        facts |= {"evaluation": _evaluation(found), "eval_results": eval_result_entries(found.folder)}
    return facts


def _made_with(block: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a run for a table; of the trainer's hundreds those that matter."""
    arguments = made_with(block, SFT_ARGUMENTS if block["command"] == "sft" else None)
    left_out = ("prompt.",) if "use_peft" in arguments or block["command"] != "sft" else ("prompt.", "lora_")
    return {
        name: textwrap.shorten(_text(value), _LONGEST_VALUE, placeholder=" ...")
        for name, value in arguments.items()
        if name not in _PLACES and not name.startswith(left_out)
    }


def _training(found: CardSources, command: str) -> dict[str, Any]:
    """A trainer's log: its block, and first, last and best losses."""
    log = found.last(command)
    history = [entry for entry in (log or {}).get("history", ()) if isinstance(entry, dict) and "step" in entry]
    training = [entry for entry in history if "loss" in entry]
    validation = [entry for entry in history if "eval_loss" in entry]
    return {
        "training": log,
        "first_loss": training[0] if training else None,
        "last_loss": training[-1] if training else None,
        "best_loss": min(validation, key=lambda entry: entry["eval_loss"]) if validation else None,
    }


def _probe_rows(report: Mapping[str, Any] | None) -> list[list[str]]:
    """The cells of an encoder's measurements: what, on how many records, and the macro AUC of each system."""
    systems = list((report or {}).get("systems", {}).values())
    if not systems:
        return []
    rows = [
        [
            f"linear probe, share {_text(share)}",
            _num(one["records"]),
            *(_macro_auc(its["linear"][share]) for its in systems),
        ]
        for share, one in systems[0].get("linear", {}).items()
    ]
    if "zero_shot" in systems[0]:
        rows.append(["zero-shot", "", *(_macro_auc(its["zero_shot"]) for its in systems)])
    return rows


def _macro_auc(measured: Mapping[str, Any]) -> str:
    score = measured["macro_auc"]
    low, high = score["ci95"]
    return f"{_num(score['value'])} ({_num(low)} to {_num(high)})"


def _image_processor(folder: Path) -> dict[str, Any] | None:
    content = read_object(folder / "preprocessor_config.json")
    return content if content and "image_processor_type" in content else None


def _evaluation(found: CardSources) -> dict[str, Any] | None:
    """The report of an evaluation as a Markdown table with its remarks, and the model's lead over the best control."""
    report = found.last("evaluate")
    if report is None:
        return None
    from ecgbyte_hf.evaluation.evaluate import report_lines
    from ecgbyte_hf.evaluation.report_sections import markdown_table

    lines, remarks = report_lines(report)
    asked = report["provenance"]["model"]
    if asked["view"] != "true":
        remarks.append(f"what the model was shown of the ECG: `{_text(asked['view'])}`")
    if asked["perturbations"]:
        remarks.append(f"the signals were made worse: {_text(asked['perturbations'])}")
    return {"report": report, "table": markdown_table(lines), "remarks": remarks}


def eval_result_entries(folder: str | Path) -> list[dict[str, Any]]:
    """What a model's `.eval_results/*.yaml` hold, read as the Hub's client does.

    Raises:
        EcgDataError: a file is none.
    """
    import yaml
    from huggingface_hub import eval_result_entries_to_yaml, parse_eval_result_entries

    entries: list[dict[str, Any]] = []
    for place in sorted((Path(folder) / ".eval_results").glob("*.yaml")):
        try:
            entries += eval_result_entries_to_yaml(parse_eval_result_entries(yaml.safe_load(place.read_text("utf-8"))))
        except (OSError, yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise EcgDataError(f"{place}: no results ({' '.join(str(error).split())}); make it anew") from error
    return entries


def template_folder() -> Path:
    """Where the templates are: in the package when it is installed, at the top of a checkout else.

    Raises:
        EcgFileError: in neither.
    """
    package = Path(__file__).resolve().parents[1]
    for place in (package / "hub_cards", package.parent / "hub_cards"):
        if (place / "tokenizer.md.jinja").is_file():
            return place
    raise EcgFileError(f"the templates of cards are not in {package / 'hub_cards'}; install ecgbyte-hf again")


def _body(kind: str, facts: Mapping[str, Any]) -> str:
    """What people read, with one empty line where the template leaves several, and no longer lines than needed."""
    blocks = re.split(r"(```.*?```)", _template(kind).render(facts), flags=re.DOTALL)
    return "".join(
        block if block.startswith("```") else _wrapped(re.sub(r"\n[ \t]*\n\s*\n", "\n\n", block)) for block in blocks
    ).strip()


def _wrapped(text: str) -> str:
    """A text with its paragraphs in lines of `_WIDTH`; tables and headings cannot be divided."""
    lines = []
    for line in text.split("\n"):
        if len(line) <= _WIDTH or line.startswith(("|", "#")):
            lines.append(line)
            continue
        inside = "  " if line.startswith("- ") else ""
        lines += textwrap.wrap(line, _WIDTH, subsequent_indent=inside, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


def _template(kind: str) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(template_folder()),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # Markdown; `text` takes out what would break it
    )
    environment.filters |= {"num": _num, "percent": _percent, "text": _text}
    return environment.get_template(f"{kind}.md.jinja")


def _num(value: Any) -> str:
    """A number with four digits at most, a whole one as it is."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _text(value)
    return str(int(value)) if float(value).is_integer() else f"{value:.4g}"


def _percent(value: float) -> str:
    return f"{100.0 * value:.1f}"


def _text(value: Any) -> str:
    """A value in one line of Markdown that opens no code, table, HTML or link of its own."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _num(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(one) for one in value)
    return " ".join(re.sub(r"[`<>\[\]|]", "", str(value)).split())
