"""ECG-Byte for Hugging Face: language models that read 12-lead ECGs as tokens.

`import ecgbyte_hf` makes `AutoTokenizer.from_pretrained` give the Rust-backed tokenizer, and `transformers.pipeline`
know "ecg-question-answering". Everything else is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ecgbyte_hf.models import auto as _auto

__version__ = "0.1.0"

_PUBLIC = {
    "EcgByteConfig": "ecgbyte_hf.models.configuration_ecg_byte",
    "EcgByteFeatureExtractor": "ecgbyte_hf.models.feature_extraction_ecg_byte",
    "EcgByteProcessor": "ecgbyte_hf.models.processing_ecg_byte",
    "EcgByteTokenizer": "ecgbyte_hf.models.tokenization_ecg_byte",
    "EcgCalibration": "ecgbyte_hf.models.tokenization_ecg_byte",
    "EcgError": "ecgbyte_hf.models.errors_ecg_byte",
    "EcgImageProcessor": "ecgbyte_hf.models.image_processing_ecg",
    "EcgLanguageModel": "ecgbyte_hf.evaluation.language_model",
    "EcgLlmProcessor": "ecgbyte_hf.models.processing_ecg_llm",
    "EcgRecord": "ecgbyte_hf.signal.records",
    "load_dataset": "ecgbyte_hf.data",
    "read_ecg": "ecgbyte_hf.signal.records",
}
for _encoder in (*_auto.ENCODERS, _auto.ECG_LLM):
    _PUBLIC |= _encoder.public_names()

__all__ = [*_PUBLIC, "__version__"]  # noqa: PLE0604

if TYPE_CHECKING:
    from ecgbyte_hf.data import load_dataset as load_dataset
    from ecgbyte_hf.evaluation.language_model import EcgLanguageModel as EcgLanguageModel
    from ecgbyte_hf.models.configuration_ecg_byte import EcgByteConfig as EcgByteConfig
    from ecgbyte_hf.models.configuration_ecg_clip import EcgClipConfig as EcgClipConfig
    from ecgbyte_hf.models.configuration_ecg_clip_vit import EcgClipVitConfig as EcgClipVitConfig
    from ecgbyte_hf.models.configuration_ecg_llm import EcgLlmConfig as EcgLlmConfig
    from ecgbyte_hf.models.configuration_ecg_patch import EcgPatchConfig as EcgPatchConfig
    from ecgbyte_hf.models.configuration_ecg_resnet import EcgResNetConfig as EcgResNetConfig
    from ecgbyte_hf.models.configuration_ecg_vit import EcgVitConfig as EcgVitConfig
    from ecgbyte_hf.models.errors_ecg_byte import EcgError as EcgError
    from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor as EcgByteFeatureExtractor
    from ecgbyte_hf.models.image_processing_ecg import EcgImageProcessor as EcgImageProcessor
    from ecgbyte_hf.models.modeling_ecg_clip import EcgClipForPreTraining as EcgClipForPreTraining
    from ecgbyte_hf.models.modeling_ecg_clip import EcgClipModel as EcgClipModel
    from ecgbyte_hf.models.modeling_ecg_clip_vit import EcgClipVitForPreTraining as EcgClipVitForPreTraining
    from ecgbyte_hf.models.modeling_ecg_clip_vit import EcgClipVitModel as EcgClipVitModel
    from ecgbyte_hf.models.modeling_ecg_llm import EcgLlmForConditionalGeneration as EcgLlmForConditionalGeneration
    from ecgbyte_hf.models.modeling_ecg_llm import EcgLlmModel as EcgLlmModel
    from ecgbyte_hf.models.modeling_ecg_patch import EcgPatchForPreTraining as EcgPatchForPreTraining
    from ecgbyte_hf.models.modeling_ecg_patch import EcgPatchModel as EcgPatchModel
    from ecgbyte_hf.models.modeling_ecg_resnet import EcgResNetForPreTraining as EcgResNetForPreTraining
    from ecgbyte_hf.models.modeling_ecg_resnet import (
        EcgResNetForSequenceClassification as EcgResNetForSequenceClassification,
    )
    from ecgbyte_hf.models.modeling_ecg_resnet import EcgResNetModel as EcgResNetModel
    from ecgbyte_hf.models.modeling_ecg_vit import EcgVitForPreTraining as EcgVitForPreTraining
    from ecgbyte_hf.models.modeling_ecg_vit import EcgVitModel as EcgVitModel
    from ecgbyte_hf.models.processing_ecg_byte import EcgByteProcessor as EcgByteProcessor
    from ecgbyte_hf.models.processing_ecg_llm import EcgLlmProcessor as EcgLlmProcessor
    from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer as EcgByteTokenizer
    from ecgbyte_hf.models.tokenization_ecg_byte import EcgCalibration as EcgCalibration
    from ecgbyte_hf.signal.records import EcgRecord as EcgRecord
    from ecgbyte_hf.signal.records import read_ecg as read_ecg


def _register_pipeline(module: Any) -> None:
    """Register with `transformers.pipelines`, which imports torch and therefore waits until somebody wants it."""
    from ecgbyte_hf.evaluation.pipeline import TASK, EcgLanguageModelLoader, EcgQuestionAnsweringPipeline

    # Registering over another one is warned about, and a reload registers anew.
    module.PIPELINE_REGISTRY.supported_tasks.pop(TASK, None)
    module.PIPELINE_REGISTRY.register_pipeline(
        TASK, pipeline_class=EcgQuestionAnsweringPipeline, pt_model=EcgLanguageModelLoader, type="multimodal"
    )


# Here and not in `models`, which knows nothing of prompts and answers.
_auto.REGISTRATIONS["transformers.pipelines"] = _register_pipeline
_auto.register()


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ecgbyte_hf' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
