"""Machine translation of reports, each text once: what was translated is kept on disk and not done again."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ecgbyte_hf.data.builder import shards_of
from ecgbyte_hf.data.questions import files_fingerprint
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgError

#: The one that the ECG-Byte paper translates PTB-XL's reports with.
DEFAULT_MODEL = "Helsinki-NLP/opus-mt-de-en"


class ReportTranslator:
    """Translates texts by a sequence-to-sequence model of the Hub, such as MarianMT.

    Decoding is as the model's generation_config says, without sampling. A translation is stored by the model and the
    text, after each batch: broken off, it goes on where it was. The model is loaded only where something is missing.

    Args:
        model: Its name on the Hub, or its folder.
        cache_dir: Where translations are kept; `ecgbyte_translations` in the cache of `datasets` by default.
        batch_size: Texts at once.
        device: Such as `"cpu"` or `"cuda:0"`; a GPU if there is one by default.

    Example::

        ReportTranslator().translate(["sinusrhythmus normales ekg"])  # ["sinus rhythm normal ecg"], or the like
    """

    def __init__(
        self,
        model: str | Path = DEFAULT_MODEL,
        cache_dir: str | Path | None = None,
        batch_size: int = 32,
        device: str | None = None,
    ) -> None:
        if batch_size < 1:
            raise EcgDataError(f"got the batch size {batch_size}, expected 1 or more")
        self.model = str(model)
        self.batch_size = batch_size
        self.device = device
        self.cache_file = _cache_dir(cache_dir) / "translations.sqlite3"

    def translate(self, texts: Sequence[str]) -> list[str]:
        """The translations, in order.

        Raises:
            EcgDataError: the model cannot be loaded, a text is longer than it reads, or the cache cannot be used.
        """
        with _cache(self.cache_file) as cache:
            wanted = list(dict.fromkeys(texts))
            known = dict(self._look_up(cache, wanted))
            missing = [text for text in wanted if text not in known]
            if missing:
                for batch, translations in self._translate(missing):
                    with cache:
                        cache.executemany(
                            "INSERT OR REPLACE INTO translations VALUES (?, ?, ?)",
                            [(self._model_id, _key(text), new) for text, new in zip(batch, translations, strict=True)],
                        )
                    known.update(zip(batch, translations, strict=True))
        return [known[text] for text in texts]

    @property
    def _model_id(self) -> str:
        """The model's name; of a folder also what is in it, since another training may have the same place."""
        folder = Path(self.model)
        if not folder.is_dir():
            return self.model
        files = files_fingerprint(path for path in folder.iterdir() if path.is_file())
        return f"{folder.resolve()} {files}"

    def _look_up(self, cache: sqlite3.Connection, texts: list[str]) -> Iterator[tuple[str, str]]:
        model_id = self._model_id
        for text in texts:
            query = "SELECT translation FROM translations WHERE model = ? AND text = ?"
            found = cache.execute(query, (model_id, _key(text))).fetchone()
            if found is not None:
                yield text, found[0]

    def _translate(self, texts: list[str]) -> Iterator[tuple[Sequence[str], list[str]]]:
        import torch
        from tqdm.auto import tqdm

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        tokenizer, model = self._load(device)
        limit = _longest_input(tokenizer, model)
        # Texts of the same length together: little padding.
        by_length = sorted(texts, key=len)
        with tqdm(total=len(texts), desc="translating reports", unit="report") as bar, torch.inference_mode():
            for batch in shards_of(by_length, self.batch_size):
                inputs = tokenizer(list(batch), return_tensors="pt", padding=True)
                if inputs["input_ids"].shape[1] > limit:
                    longest = max(batch, key=len)
                    raise EcgDataError(
                        f"the report {longest!r:.80} has {inputs['input_ids'].shape[1]} tokens, expected at most "
                        f"{limit}, which {self.model} reads. Shorten it, or name another translation model"
                    )
                ids = model.generate(**inputs.to(device), do_sample=False)
                yield batch, tokenizer.batch_decode(ids, skip_special_tokens=True)
                bar.update(len(batch))

    def _load(self, device: str) -> tuple[Any, Any]:
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.model)
            model = AutoModelForSeq2SeqLM.from_pretrained(self.model)
        except ImportError as error:
            raise EcgDataError(
                f'{self.model} needs a package: pip install "ecgbyte-hf[translate]" ({error})'
            ) from error
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise EcgDataError(
                f"cannot load the translation model {self.model!r}: {reason:.300}. Download it with `hf download "
                f"{DEFAULT_MODEL}`, or name a folder that holds one"
            ) from error
        try:
            return tokenizer, model.to(device).eval()
        except RuntimeError as error:
            raise EcgDataError(
                f"cannot use the device {device!r}: {error}; name another one, such as 'cpu'"
            ) from error


def _longest_input(tokenizer: Any, model: Any) -> int:
    positions = getattr(model.config, "max_position_embeddings", None)
    return min(tokenizer.model_max_length, positions or tokenizer.model_max_length)


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _cache_dir(cache_dir: str | Path | None) -> Path:
    if cache_dir is not None:
        return Path(cache_dir)
    import datasets

    return Path(datasets.config.HF_DATASETS_CACHE) / "ecgbyte_translations"


@contextmanager
def _cache(path: Path) -> Iterator[sqlite3.Connection]:
    """The table of translations: SQLite keeps it whole when a process is killed, and several may use it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=60)) as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS translations "
                "(model TEXT, text TEXT, translation TEXT, PRIMARY KEY (model, text))"
            )
            yield connection
    except EcgError:
        raise
    except (OSError, sqlite3.Error) as error:
        raise EcgDataError(
            f"cannot use the translations kept in {path}: {error}; remove the file, or name another cache_dir"
        ) from error
