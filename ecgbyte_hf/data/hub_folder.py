"""A folder by its place here, or by its `USER/NAME` on the Hub, from the cache where that has it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError, EcgHubError

#: `USER/NAME`; a path with more parts, or one that begins with a dot, is none.
_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# Tokens of the Hub begin with these letters; none is ever written down.
_TOKEN = re.compile(r"hf_[A-Za-z0-9]{3,}")
#: Never fetched: pickles, other libraries' weights, and the remains of a training.
NOT_FETCHED = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "*.h5", "*.msgpack", "*.gguf", "*.onnx", "checkpoint-*")

#: What AutoConfig and AutoTokenizer read.
CONFIG_AND_TOKENIZER_FILES = ("*.json", "*.jinja", "*.txt", "*.model")


def is_repo_id(name: str) -> bool:
    """Whether a text has the form of a name on the Hub.

    Example:
        >>> is_repo_id("someone/ecg-byte"), is_repo_id("runs/a/model"), is_repo_id("../model")
        (True, False, False)
    """
    return _REPO_ID.fullmatch(name) is not None


def without_tokens(text: str) -> str:
    r"""A text in which nobody finds a token of the Hub, in one line.

    Example:
        >>> without_tokens("Bearer hf_abcdefgh\nrefused")
        'Bearer hf_... refused'
    """
    return _TOKEN.sub("hf_...", " ".join(text.split()))


def local_or_hub_folder(
    name_or_path: str | Path,
    *,
    made_by: str,
    repo_type: str = "model",
    revision: str | None = None,
    token: str | bool | None = None,
    allow_patterns: Sequence[str] | None = None,
) -> Path:
    """A folder here, or the snapshot of a repository of the Hub.

    Without a network (or with `HF_HUB_OFFLINE=1`) the snapshot is the one that an earlier call left in the cache.

    Args:
        name_or_path: A folder, or `USER/NAME`; a folder that is there goes first.
        made_by: The command that writes such a folder, for the message of an error.
        repo_type: `"model"` or `"dataset"`.
        revision: Branch, tag or commit; by default the newest.
        token: As in `from_pretrained`; by default the one that is logged in, or `HF_TOKEN`.
        allow_patterns: Only these files.

    Raises:
        EcgFileError: no such folder, and no name on the Hub.
        EcgHubError: the Hub does not have or give it, or cannot be reached and it is not in the cache.
    """
    folder = Path(name_or_path)
    if folder.is_dir():
        return folder
    name = str(name_or_path)
    if not is_repo_id(name):
        raise EcgFileError(f"{name} is not there; expected a folder that `{made_by}` wrote, or USER/NAME")
    from huggingface_hub import snapshot_download

    with hub_errors(name, repo_type=repo_type, revision=revision):
        snapshot: str = snapshot_download(
            name,
            repo_type=repo_type,
            # As plain text: transformers' pipelines give a revision that was resolved for another repository.
            revision=None if revision is None else str(revision),
            token=token,
            allow_patterns=None if allow_patterns is None else list(allow_patterns),
            ignore_patterns=list(NOT_FETCHED),
        )
    return Path(snapshot)


@contextmanager
def hub_errors(repo_id: str, *, repo_type: str = "model", revision: str | None = None) -> Iterator[None]:
    """What the Hub's client refuses as our error, in one line that says what to do, without tokens.

    Raises:
        EcgHubError: in place of the client's errors.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import httpx

    what = "data set" if repo_type == "dataset" else "model"
    try:
        yield
    except GatedRepoError as error:
        raise EcgHubError(
            f"{repo_id} is gated: accept its licence on its page, and log in with `hf auth login` or set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise EcgHubError(f"{repo_id} has no revision {revision}; see the branches and tags on its page") from error
    except RepositoryNotFoundError as error:
        raise EcgHubError(
            f"{repo_id} is neither a folder here nor a {what} on the Hub that you may see; if it is private, log in "
            "with `hf auth login` or set HF_TOKEN"
        ) from error
    except LocalEntryNotFoundError as error:
        raise EcgHubError(
            f"{repo_id} is not in the cache, and the Hub cannot be reached; try again with a network, and without "
            "HF_HUB_OFFLINE"
        ) from error
    except HFValidationError as error:
        raise EcgHubError(f"{repo_id} is no name on the Hub: {without_tokens(str(error))}") from error
    except (HfHubHTTPError, httpx.HTTPError, OfflineModeIsEnabled, RuntimeError) as error:
        # Where an upload breaks off, the client says so with a RuntimeError around the reason.
        reason = without_tokens(" ".join(str(one) for one in (error, error.__cause__) if one is not None))
        raise EcgHubError(f"{repo_id}: {reason} Try again: what is there already is not sent anew.") from error
