"""What a language model's folder keeps for ECGs, of a model with ECG tokens and of one with an encoder.

A model with ECG tokens has them, the cleaning and the prompt in the subfolder `ecg_byte/`; a model with an encoder has
its processor and the prompt in the folder itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecgbyte_hf.data.chat import EcgPrompter
from ecgbyte_hf.data.hub_folder import is_repo_id
from ecgbyte_hf.data.prompts import ECG_SUBFOLDER, EcgPrompt
from ecgbyte_hf.provenance import read_object, write_json

#: Names the model on the Hub that a language model began as, for its card; not there where that was a folder.
EXTEND_FILE = "extend.json"


@dataclass(frozen=True)
class EcgParts:
    """Where they are.

    Attributes:
        folder: With the processor and the prompt.
        has_encoder: The model reads ECGs through an encoder.
    """

    folder: Path
    has_encoder: bool

    @classmethod
    def at(cls, folder: str | Path) -> EcgParts:
        """Those of a folder that has them itself."""
        processor = read_object(Path(folder) / "processor_config.json") or {}
        return cls(Path(folder), processor.get("processor_class") == "EcgLlmProcessor")

    @classmethod
    def find(cls, model_dir: str | Path) -> EcgParts:
        """Those of a model's folder; whether they are there is seen when they are loaded."""
        own = cls.at(model_dir)
        return own if own.has_encoder else cls(Path(model_dir) / ECG_SUBFOLDER, False)

    def load_prompt(self) -> EcgPrompt:
        """Read the prompt.

        Raises:
            EcgDataError: it is missing or malformed.
        """
        return EcgPrompt.load(self.folder)

    def load_processor(self) -> Any:
        """Load the `EcgByteProcessor` or `EcgLlmProcessor`."""
        import ecgbyte_hf.models.auto  # noqa: F401  (registers the ECG classes)

        if self.has_encoder:
            from ecgbyte_hf.models.processing_ecg_llm import EcgLlmProcessor

            return EcgLlmProcessor.from_pretrained(self.folder)
        from ecgbyte_hf.models.processing_ecg_byte import EcgByteProcessor

        return EcgByteProcessor.from_pretrained(self.folder)

    @property
    def prompter_class(self) -> type[EcgPrompter]:
        """What writes prompts for the model."""
        if not self.has_encoder:
            return EcgPrompter
        from ecgbyte_hf.data.encoder_prompts import EncoderPrompter

        return EncoderPrompter

    def ecg_tokenizer(self, processor: Any) -> Any:
        """What that asks about ECGs: the ECG tokenizer, or the placeholders."""
        if not self.has_encoder:
            return processor.tokenizer
        from ecgbyte_hf.data.encoder_prompts import Placeholders

        return Placeholders.of(processor)


def save_parts(model_dir: str | Path, processor: Any, prompt: EcgPrompt) -> Path:
    """Write processor and prompt where `EcgParts.find` looks for them.

    The ECG tokenizer gets a subfolder, because a root config.json of model types such as qwen2 makes AutoTokenizer
    ignore `tokenizer_class`, and because trainers load the root's processor.

    Returns:
        The folder that they are in.
    """
    from ecgbyte_hf.models.processing_ecg_llm import EcgLlmProcessor

    folder = Path(model_dir) if isinstance(processor, EcgLlmProcessor) else Path(model_dir) / ECG_SUBFOLDER
    processor.save_pretrained(folder)
    prompt.save(folder)
    return folder


def note_base(folder: str | Path, base: str | Path, revision: str | None = None) -> None:
    """Note which model on the Hub a language model began as; of a base that was a folder, what that folder notes.

    Args:
        folder: Of the new model.
        base: What it was made of, a folder or a name on the Hub.
        revision: Of `base` on the Hub.
    """
    if Path(base).exists():
        noted = read_object(Path(base) / EXTEND_FILE)
    else:
        noted = {"base_model": str(base), "revision": revision} if is_repo_id(str(base)) else None
    if noted is None:
        (Path(folder) / EXTEND_FILE).unlink(missing_ok=True)
    else:
        write_json(Path(folder) / EXTEND_FILE, noted)
