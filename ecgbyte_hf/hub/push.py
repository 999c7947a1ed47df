"""Publish a folder on the Hub: whole, usable by a stranger, and without anything private, or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from ecgbyte_hf.data.hub_folder import hub_errors, is_repo_id, local_or_hub_folder
from ecgbyte_hf.data.prompts import ECG_SUBFOLDER
from ecgbyte_hf.hub.base_model import compare_base, hashes_there, is_the_same
from ecgbyte_hf.hub.card_sources import REPORTS_FOLDER, CardSources, is_trainers_card
from ecgbyte_hf.hub.card_subjects import check_base_weights
from ecgbyte_hf.hub.kinds import REPO_TYPES, TWO_STAGE, kind_of
from ecgbyte_hf.hub.private_data import has_mimic_columns
from ecgbyte_hf.hub.self_contained import ecg_tokens, has_encoder, missing_parts
from ecgbyte_hf.hub.source_data import SourceData, data_set_license, source_data
from ecgbyte_hf.hub.staging import CARD, Stage, source_of, stage_folder
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgHubError
from ecgbyte_hf.provenance import read_object

# Files of an earlier push that would be loaded beside the new ones, or in their place.
_REPLACED = ["*.parquet", "*.safetensors", "*.safetensors.index.json", "adapter_config.json"]
_A_KIND = {"tokenizer": "a tokenizer", "dataset": "a data set", "encoder": "an encoder"}
_JSON_OF_RESULTS = ("training.json", "training_log.json", "encode.json", "report.json")


@dataclass(frozen=True)
class PushOptions:
    """How a folder is published.

    Attributes:
        kind: One of `kinds.REPO_TYPES`; `"auto"` looks into the folder.
        private: Make a new repository private.
        revision: Branch to push to; made where it is not there.
        license: Identifier of the licence for the card, as the Hub spells it.
        message: Of the commit.
        base: Name on the Hub of an adapter's base model.
        base_revision: Of the base model on the Hub, `base` or the one that the adapter's training noted.
        ecg: Folder with the ECG tokenizer and the prompt of a language model that has none, or the name on the Hub of
            the extended base that has them.
        dropped_columns: Columns of a data set that are not published.
        rewrite_card: Write README.md anew even where somebody wrote it; one of `ecgbyte card` always is.
        base_model: For the card of a language model: the model on the Hub that it began as.
    """

    kind: str = "auto"
    private: bool = False
    revision: str | None = None
    license: str | None = None
    message: str | None = None
    base: str | None = None
    base_revision: str | None = None
    ecg: str | Path | None = None
    dropped_columns: Sequence[str] = ()
    rewrite_card: bool = False
    base_model: str | None = None


@dataclass(frozen=True)
class Pushed:
    """What was, or would be, published.

    Attributes:
        kind: One of `kinds.REPO_TYPES`.
        repo_id: `USER/NAME`.
        sizes: Bytes of each file, by its name in the repository.
        left_out: Files that stayed here, with the reason.
        notes: What was changed on the way.
        url: Of the repository; `None` for a dry run.
        commit: That holds it; `None` for a dry run.
    """

    kind: str
    repo_id: str
    sizes: dict[str, int]
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    url: str | None = None
    commit: str | None = None

    def how_to(self) -> str:
        """Three lines of Python that load it."""
        name = self.repo_id
        lines = {
            "tokenizer": (
                "import ecgbyte_hf",
                "from transformers import AutoTokenizer",
                f'tokenizer = AutoTokenizer.from_pretrained("{name}")',
            ),
            "dataset": ("from datasets import load_dataset", f'rows = load_dataset("{name}")', "print(rows)"),
            "encoder": (
                "import ecgbyte_hf",
                "from transformers import AutoModel",
                f'model = AutoModel.from_pretrained("{name}")',
            ),
            "language_model": (
                "from ecgbyte_hf import EcgLanguageModel, read_ecg",
                f'model = EcgLanguageModel.load("{name}")',
                'print(model.answer(read_ecg("00001_hr"), "Is the rhythm regular?"))',
            ),
        }
        return "\n".join(lines[self.kind])


def push_folder(
    folder: str | Path, repo_id: str, options: PushOptions | None = None, *, dry_run: bool = False, api: Any = None
) -> Pushed:
    """Check a folder, complete it with a card, upload it and read back what was uploaded.

    Broken off, the same call goes on: files that are there already are not sent anew.

    Args:
        folder: What a command of this package wrote, an encoder, or Parquet files.
        repo_id: `USER/NAME`.
        options: How it is published.
        dry_run: Do everything but the upload; no network is needed.
        api: A `huggingface_hub.HfApi`, for another endpoint or token than that of the environment.

    Returns:
        What was published.

    Raises:
        EcgHubError: the folder must not be published as it is, with every reason as a line; or the Hub refuses it.
    """
    options = options or PushOptions()
    for name in filter(None, (repo_id, options.base, options.base_model)):
        if not is_repo_id(name):
            raise EcgHubError(f"{name} is no name on the Hub, expected USER/NAME")
    if options.kind not in ("auto", *REPO_TYPES):
        raise EcgHubError(f"unknown kind {options.kind!r}; known: auto, {', '.join(REPO_TYPES)}")
    source = Path(folder)
    kind = kind_of(source) if options.kind == "auto" else options.kind
    if not source.is_dir():
        raise EcgHubError(f"{folder} is not there; expected a folder to push")
    if kind != "language_model" and (options.base is not None or options.base_revision is not None):
        raise EcgHubError(
            f"--base and --base-revision are for an adapter, and {source.name} is the folder of {_A_KIND[kind]}; "
            "leave them out"
        )
    with tempfile.TemporaryDirectory(prefix="ecgbyte-push-") as place:
        stage = stage_folder(
            source,
            Path(place),
            kind,
            base=options.base,
            base_revision=options.base_revision,
            ecg=None if options.ecg is None else _ecg_folder(options.ecg),
            dropped_columns=options.dropped_columns,
        )
        stage.problems += [*missing_parts(kind, stage.files), *_base_problems(stage, options)]
        if not stage.problems:
            _complete_card(stage, source, repo_id, options)
        if stage.problems:
            raise EcgHubError(
                f"{source.name} is not pushed to {repo_id}:\n" + "\n".join(f"  - {each}" for each in stage.problems)
            )
        sizes = {name: path.stat().st_size for name, path in stage.files.items()}
        made = Pushed(kind, repo_id, sizes, stage.left_out, stage.notes)
        return made if dry_run else _upload(stage, made, options, api)


def _base_problems(stage: Stage, options: PushOptions) -> list[str]:
    """`runs/llama-ecg` looks like a name on the Hub, and is a folder where the adapter was trained."""
    base = _effective_base(stage)
    if base is None or options.base is not None or not is_repo_id(base) or Path(base).exists():
        return []  # of a folder that is seen from here the check of the parts tells
    if stage.local_base is None:
        return []
    return [
        f"the adapter's base {base!r} is a folder here: push that extended base first and give --base USER/BASE, or "
        "push one whole model with --merge"
    ]


def _effective_base(stage: Stage) -> str | None:
    """The base that the published adapter names."""
    config = stage.files.get("adapter_config.json")
    base = None if config is None else (read_object(config) or {}).get("base_model_name_or_path")
    return base if isinstance(base, str) else None


def _ecg_folder(place: str | Path) -> Path:
    # Of a model with an encoder they are in the root, with the code of its processor.
    parts = [f"{ECG_SUBFOLDER}/*", "*.json", "*.py"]
    return local_or_hub_folder(place, made_by="ecgbyte extend-llm", allow_patterns=parts)


def _complete_card(stage: Stage, source: Path, repo_id: str, options: PushOptions) -> None:
    card = stage.folder / CARD
    is_there = card.is_file()
    if is_there and not _is_readable(stage, card):
        return
    # Ours is always written anew: columns, paths and patients may have been left out since.
    if not is_there or options.rewrite_card or _is_nobodys(card):
        cards = _card_writer()
        if cards is None:
            if not is_there:
                stage.problems.append(f"{CARD} is missing: say there what it is, how it was made and its licence")
            return
        said = _said_before(stage, card, cards, options)
        card.unlink(missing_ok=True)
        try:
            if stage.local_base is not None:
                check_base_weights(CardSources.find(stage.folder), stage.local_base)
            cards.write_card(stage.folder, kind=stage.kind, repo_id=repo_id, **said)
        except EcgDataError as error:
            stage.problems.append(f"{CARD}: {error}")
            return
        stage.notes.append(f"{CARD} was written")
    else:
        if _is_stale(source):
            stage.notes.append(f"{CARD} is older than the results beside it; --rewrite-card writes it anew")
        if stage.kind == "dataset":
            _leave_out_reports(stage)
    metadata = _card_metadata(card, stage)
    if options.license and not metadata.get("license"):
        _state_license(stage, card, options.license)
        metadata = _card_metadata(card, stage)
    if options.base_model not in (None, metadata.get("base_model")):
        stage.problems.append(f"{CARD} does not name --base-model {options.base_model}; --rewrite-card writes it anew")
    stage.problems += _license_problems(stage, metadata, _data_of(stage, source))
    if options.license and metadata.get("license") not in (None, options.license):
        stage.problems.append(f"{CARD} says the licence is {metadata['license']!r}, and --license {options.license!r}")
    if stage.kind == "dataset":
        stage.problems += _config_problems(stage, metadata)


def _is_readable(stage: Stage, card: Path) -> bool:
    """Whether a card is UTF-8; a mark of its byte order, which would hide the metadata, is cut off."""
    try:
        text = card.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        stage.problems.append(f"{CARD} is not UTF-8, which the Hub reads; save it as UTF-8")
        return False
    if text.startswith("\ufeff"):
        card.unlink()  # a link would be written through
        card.write_text(text.removeprefix("\ufeff"), encoding="utf-8")
        stage.notes.append(f"{CARD}: the byte order mark before its metadata was cut off")
    return True


def _leave_out_reports(stage: Stage) -> None:
    """Somebody's own card quotes none of them, and without `configs` in it `load_dataset` may take them for rows."""
    for name, path in stage.files.items():
        if name.startswith(f"{REPORTS_FOLDER}/"):
            path.unlink()
            stage.left_out[name] = f"{CARD} is your own, which does not need it"


def _said_before(stage: Stage, card: Path, cards: Any, options: PushOptions) -> dict[str, Any]:
    """What the user says of a new card, or said of the one that it replaces where that is ours."""
    has_own_card = getattr(cards, "has_own_card", None)
    is_ours = card.is_file() and has_own_card is not None and not has_own_card(card)
    is_ours = is_ours and not is_trainers_card(card.read_text(encoding="utf-8"))
    noted = _card_metadata(card, stage) if is_ours else {}
    said: dict[str, Any] = {"license": options.license or noted.get("license")}
    names = ("license_name", "license_link") if said["license"] == noted.get("license") else ()
    said |= {name: noted[name] for name in names if noted.get(name)}
    base_model = options.base_model or noted.get("base_model")
    if isinstance(base_model, str):
        said["base_model"] = base_model
    datasets = noted.get("source_datasets" if stage.kind == "dataset" else "datasets")
    return said | ({"datasets": datasets} if isinstance(datasets, list) else {})


def _state_license(stage: Stage, card: Path, license_id: str) -> None:
    """Write the licence into a card that names none."""
    text = card.read_text(encoding="utf-8")
    parts = text.split("---\n", 2)
    if len(parts) == 3 and not parts[0].strip():
        lines = [line for line in parts[1].splitlines(keepends=True) if not line.startswith("license:")]
        text = f"---\nlicense: {license_id}\n{''.join(lines)}---\n{parts[2]}"
    else:
        text = f"---\nlicense: {license_id}\n---\n\n{text}"
    card.unlink()  # a link would be written through
    card.write_text(text, encoding="utf-8")
    stage.notes.append(f"{CARD}: the licence {license_id} was written into it")


def _data_of(stage: Stage, source: Path) -> tuple[SourceData, ...]:
    """The data sets that it was made of, by the reports in the folder and by the tables' columns."""
    named = {*CardSources.find(stage.folder).sources, source_of(source)}
    if any(name.endswith(".parquet") and has_mimic_columns(path) for name, path in stage.files.items()):
        named.add("mimic_iv_ecg")
    return tuple(dict.fromkeys(one for name in sorted(named) for one in source_data(name)))


def _license_problems(stage: Stage, metadata: dict[str, Any], data: tuple[SourceData, ...]) -> list[str]:
    """What was made of MIMIC-IV-ECG goes out with a licence that was chosen; rows of it with the database's own."""
    if not any(one.license_id == "odbl" for one in data):
        return []
    stated = metadata.get("license")
    if not stated:
        choice = "give --license odbl" if stage.kind == "dataset" else "choose one and give --license"
        return [f"{CARD} names no licence, and it is made of MIMIC-IV-ECG (ODbL 1.0): {choice}"]
    if stage.kind != "dataset":
        stage.notes.append(
            f"made of MIMIC-IV-ECG (ODbL 1.0), published as {stated}: name the database and its licence in {CARD}"
        )
        return []
    try:
        for one in _as_list(stated):
            data_set_license(data, str(one))
    except EcgDataError as error:
        return [f"{CARD}: {error}"]
    return []


def _card_writer() -> Any:
    """The module that writes cards; `None` where it or its Jinja is not installed."""
    try:
        return import_module("ecgbyte_hf.hub.cards")
    except ModuleNotFoundError:
        return None


def _is_nobodys(card: Path) -> bool:
    """Whether no person's words are lost with a card: a trainer's, or one of ours that nobody changed."""
    if is_trainers_card(card.read_text(encoding="utf-8")):
        return True
    has_own_card = getattr(_card_writer(), "has_own_card", None)
    return has_own_card is not None and not has_own_card(card)


def _is_stale(source: Path) -> bool:
    written = (source / CARD).stat().st_mtime
    results = [*(source / name for name in _JSON_OF_RESULTS), *(source / REPORTS_FOLDER).glob("*.json")]
    return any(path.is_file() and path.stat().st_mtime > written for path in results)


def _card_metadata(card: Path, stage: Stage) -> dict[str, Any]:
    """The YAML block at the beginning of a card."""
    parts = card.read_text(encoding="utf-8").split("---\n", 2)
    try:
        found = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    except yaml.YAMLError as error:
        stage.problems.append(f"{CARD}: its metadata is not YAML ({' '.join(str(error).split())})")
        return {}
    return found if isinstance(found, dict) else {}


def _config_problems(stage: Stage, metadata: dict[str, Any]) -> list[str]:
    """Tables with other columns are other configurations; without a word about them, `load_dataset` mixes them."""
    import pyarrow.parquet as pq

    tables = {name: path for name, path in stage.files.items() if name.endswith(".parquet")}
    configs = metadata.get("configs")
    if not configs:
        columns = {tuple(pq.read_schema(path).names) for path in tables.values()}
        if len(columns) < 2:
            return []
        return [f"{CARD} has no `configs`, and the Parquet files have {len(columns)} different sets of columns"]
    if not isinstance(configs, list) or not all(isinstance(config, dict) for config in configs):
        return [f"{CARD}: `configs` must be a list of entries, each with config_name and data_files"]
    patterns = [
        str(pattern)
        for config in configs
        for entry in _as_list(config.get("data_files"))
        for pattern in _as_list(entry.get("path") if isinstance(entry, dict) else entry)
    ]
    return [
        f"{CARD}: `configs` names {pattern}, and no file is called so"
        for pattern in patterns
        if not any(_fits(name, pattern) for name in tables)
    ]


def _fits(name: str, pattern: str) -> bool:
    """Whether a file is meant by a pattern of `configs`; `**/`, which `Path.match` does not know, is any folders."""
    return Path(name).match(pattern) or fnmatch(name, pattern.replace("**/", "*"))


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _upload(stage: Stage, made: Pushed, options: PushOptions, api: Any) -> Pushed:
    from huggingface_hub import HfApi

    api = api or HfApi()
    repo: dict[str, Any] = {"repo_id": made.repo_id, "repo_type": REPO_TYPES[made.kind]}
    with hub_errors(**repo, revision=options.revision):
        _check_base(api, stage, options)
        _check_named_base(api, stage)
        url = api.create_repo(**repo, private=options.private or None, exist_ok=True)
        if options.private and not api.repo_info(**repo).private:
            raise EcgHubError(f"{made.repo_id} is public already; make it private on its page, or leave --private out")
        if options.revision is not None and options.revision != "main":
            api.create_branch(**repo, branch=options.revision, exist_ok=True)
        commit = api.upload_folder(
            **repo,
            folder_path=stage.folder,
            revision=options.revision,
            commit_message=options.message or f"Upload {made.kind.replace('_', ' ')}",
            delete_patterns=list(_REPLACED),
        ).oid
        _check_upload(api, repo, commit, stage)
    return Pushed(made.kind, made.repo_id, made.sizes, made.left_out, made.notes, str(url), commit)


def _check_base(api: Any, stage: Stage, options: PushOptions) -> None:
    """An adapter is of no use without its base, and that must be the extended one.

    Raises:
        EcgHubError: the Hub has no such model, one without the adapter's ECG tokens or its encoder, or another one
            than the folder that it was trained on.
    """
    base = _effective_base(stage)
    if base is None:
        return
    revision = options.base_revision or (read_object(stage.files["adapter_config.json"]) or {}).get("revision")
    with hub_errors(base, revision=revision):
        there = hashes_there(api, base, revision)
        if "config.json" not in there:
            raise EcgHubError(f"{base} holds no config.json, so it is no base model of an adapter")
        wanted = "config.json" if has_encoder(stage.files) else "tokenizer.json"
        found = Path(api.hf_hub_download(base, wanted, revision=revision)) if wanted in there else None
    if wanted == "config.json" and found is not None:
        is_extended = (read_object(found) or {}).get("model_type") == TWO_STAGE
    else:
        own = ecg_tokens(stage.files[wanted])
        is_extended = found is not None and own <= ecg_tokens(found)
    if not is_extended:
        lacking = "encoder" if wanted == "config.json" else "such ECG tokens"
        raise EcgHubError(
            f"{base} is not the base that the adapter was trained on: it has no {lacking}; "
            "push the extended base first and name it with --base"
        )
    if stage.local_base is not None:
        with hub_errors(base, revision=revision):
            stage.notes += compare_base(api, base, revision, stage.local_base, there)


def _check_named_base(api: Any, stage: Stage) -> None:
    """A card that names a model which nobody can find tells neither its licence nor its origin.

    Raises:
        EcgHubError: the Hub has none of that name.
    """
    named = _as_list(_card_metadata(stage.files[CARD], stage).get("base_model")) if CARD in stage.files else []
    for name in dict.fromkeys(map(str, named)):
        if name == _effective_base(stage):
            continue  # looked at already
        try:
            with hub_errors(name):
                api.model_info(name)
        except EcgHubError as error:
            raise EcgHubError(
                f"{CARD} names a base model that is not found: {error}; name the right one with --base-model"
            ) from error


def _check_upload(api: Any, repo: dict[str, Any], commit: str, stage: Stage) -> None:
    """Read back what the Hub has, and compare every file's hash with the one here.

    Raises:
        EcgHubError: a file is missing or is another one.
    """
    there = hashes_there(api, repo["repo_id"], commit, repo_type=repo["repo_type"])
    for name, path in stage.files.items():
        found = there.get(name)
        if found is None or not is_the_same(path, found):
            what = "is missing" if found is None else "is another file"
            raise EcgHubError(f"{repo['repo_id']}: {name} {what} after the upload; push again")
