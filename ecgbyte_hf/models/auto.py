"""Makes the ECG classes known to transformers' Auto classes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NamedTuple


class Encoder(NamedTuple):
    """Where the classes of an encoder are, and under which Auto classes they are found.

    Attributes:
        prefix: what all class names begin with: `EcgResNet` of `EcgResNetConfig`, `EcgResNetModel`, ...
        stem: what the file names end with: `ecg_resnet` of `configuration_ecg_resnet.py`, `modeling_ecg_resnet.py`.
        command_name: what commands call it, such as `ecgbyte pretrain-encoder --encoder merl-resnet`.
        classes: rest of the names of the model classes. "Model" is found by `AutoModel`, others by `AutoModel...`.
        takes_images: the input is a picture made by `EcgImageProcessor`; else the signal.
    """

    prefix: str
    stem: str
    command_name: str
    classes: tuple[str, ...] = ("Model", "ForPreTraining")
    takes_images: bool = False

    @property
    def modeling(self) -> str:
        """Name of the module with the models."""
        return f"{__package__}.modeling_{self.stem}"

    @property
    def configuration(self) -> str:
        """Name of the module with the configuration."""
        return f"{__package__}.configuration_{self.stem}"

    def config(self) -> Any:
        """Return the class of the configuration."""
        return getattr(import_module(self.configuration), f"{self.prefix}Config")

    def public_names(self) -> dict[str, str]:
        """Return class -> module that it is in."""
        models = {f"{self.prefix}{rest}": self.modeling for rest in self.classes}
        return {f"{self.prefix}Config": self.configuration} | models


#: All encoders. A new one is two files and one line here.
ENCODERS = (
    Encoder("EcgResNet", "ecg_resnet", "merl-resnet", ("Model", "ForPreTraining", "ForSequenceClassification")),
    Encoder("EcgClip", "ecg_clip", "clip", takes_images=True),
    Encoder("EcgVit", "ecg_vit", "vit", takes_images=True),
    Encoder("EcgClipVit", "ecg_clip_vit", "clip-vit", takes_images=True),
    Encoder("EcgPatch", "ecg_patch", "patch-transformer"),
)

#: An encoder in front of a language model, whose files are named in the same way.
ECG_LLM = ENCODERS[0]._replace(prefix="EcgLlm", stem="ecg_llm", classes=("Model", "ForConditionalGeneration"))


class _LoadedWhenUsed(type):
    """Stands for a model class in an Auto class until that needs it.

    `from transformers import AutoTokenizer` imports the module of `AutoModel`, but not `transformers.modeling_utils`,
    which the models need and which takes seconds (4.5 s of 10 where this was measured).
    """

    def __getattr__(cls, name: str) -> Any:
        # `AutoModel.register` asks for config_class, to compare it with the one given: right by construction.
        if name == "config_class" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(getattr(import_module(cls.__module__), cls.__name__), name)


#: Where the class of a model that writes text is found: TRL takes that of a causal language model.
_AUTO_CLASSES = {"Model": "AutoModel", "ForConditionalGeneration": "AutoModelForCausalLM"}


def _register_models(module: Any) -> None:
    for encoder in (*ENCODERS, ECG_LLM):
        for rest in encoder.classes:
            stand_in = _LoadedWhenUsed(f"{encoder.prefix}{rest}", (), {"__module__": encoder.modeling})
            auto = getattr(module, _AUTO_CLASSES.get(rest, f"AutoModel{rest}"))
            auto.register(encoder.config(), stand_in, exist_ok=True)


def _register_image_processor(module: Any) -> None:
    from .image_processing_ecg import EcgImageProcessor

    # One class whichever image library there is.
    backends = dict.fromkeys(("torchvision", "pil"), EcgImageProcessor)
    for encoder in ENCODERS:
        if encoder.takes_images:
            module.AutoImageProcessor.register(encoder.config(), image_processor_classes=backends, exist_ok=True)


def _register_config(module: Any) -> None:
    from .configuration_ecg_byte import EcgByteConfig

    for config in (EcgByteConfig, *(encoder.config() for encoder in (*ENCODERS, ECG_LLM))):
        module.AutoConfig.register(config.model_type, config, exist_ok=True)


def _register_tokenizer(module: Any) -> None:
    from .configuration_ecg_byte import EcgByteConfig
    from .tokenization_ecg_byte import EcgByteTokenizer

    module.AutoTokenizer.register(EcgByteConfig, tokenizer_class=EcgByteTokenizer, exist_ok=True)


def _register_feature_extractor(module: Any) -> None:
    from .configuration_ecg_byte import EcgByteConfig
    from .feature_extraction_ecg_byte import EcgByteFeatureExtractor

    for config in (EcgByteConfig, *(encoder.config() for encoder in ENCODERS if not encoder.takes_images)):
        module.AutoFeatureExtractor.register(config, EcgByteFeatureExtractor, exist_ok=True)


def _register_processor(module: Any) -> None:
    from .configuration_ecg_byte import EcgByteConfig
    from .processing_ecg_byte import EcgByteProcessor
    from .processing_ecg_llm import EcgLlmProcessor

    module.AutoProcessor.register(EcgByteConfig, EcgByteProcessor, exist_ok=True)
    module.AutoProcessor.register(ECG_LLM.config(), EcgLlmProcessor, exist_ok=True)


REGISTRATIONS: dict[str, Callable[[Any], None]] = {
    "transformers.models.auto.configuration_auto": _register_config,
    "transformers.models.auto.tokenization_auto": _register_tokenizer,
    "transformers.models.auto.feature_extraction_auto": _register_feature_extractor,
    "transformers.models.auto.processing_auto": _register_processor,
    "transformers.models.auto.modeling_auto": _register_models,
    "transformers.models.auto.image_processing_auto": _register_image_processor,
}


class _RegisteringLoader:
    """Runs a module's own loader, then the registration, and leaves the module with its own loader.

    What else a loader may be asked for (`get_code`, `is_package`, `get_resource_reader`, ...) is answered by the
    module's own; therefore no base class, whose methods would hide it.
    """

    def __init__(self, loader: Any, register: Callable[[Any], None]) -> None:
        self._loader = loader
        self._register = register

    def __getattr__(self, name: str) -> Any:
        if name in ("_loader", "_register"):  # asked for by copy and pickle, before __init__
            raise AttributeError(name)
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        spec.loader = self._loader
        try:
            module: ModuleType | None = self._loader.create_module(spec)
            return module
        finally:
            spec.loader = self  # type: ignore[assignment]

    def exec_module(self, module: ModuleType) -> None:
        for holder, name in ((module.__spec__, "loader"), (module, "__loader__")):
            if getattr(holder, name, None) is self:
                setattr(holder, name, self._loader)
        self._loader.exec_module(module)
        self._register(module)


class _RegisterOnImport(MetaPathFinder):
    """Registers with each Auto module when it is imported, and again if it is imported anew or reloaded.

    `from transformers import AutoTokenizer` takes seconds, since it imports torch; `import ecgbyte_hf` and
    `ecgbyte --help` must not. So the registration waits until somebody else imports the Auto class.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in REGISTRATIONS:
            return None
        for finder in sys.meta_path:
            if _is_ours(finder) or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _RegisteringLoader(spec.loader, REGISTRATIONS[fullname])  # type: ignore[assignment]
                return spec
        return None


def _is_ours(finder: Any) -> bool:
    # By name: after a reload of this module, a finder of the old one is of another class.
    return (type(finder).__module__, type(finder).__name__) == (__name__, _RegisterOnImport.__name__)


def register() -> None:
    """Register now with every Auto module already imported, and with the others when they are."""
    sys.meta_path[:] = [_RegisterOnImport(), *(finder for finder in sys.meta_path if not _is_ours(finder))]
    for name, register_with in REGISTRATIONS.items():
        if name in sys.modules:
            # import_module waits where another thread is still importing it; the finder above came too late for that.
            register_with(import_module(name))
