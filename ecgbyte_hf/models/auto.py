"""Makes the ECG classes known to transformers' Auto classes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


def _register_config(module: Any) -> None:
    from .configuration_ecg_byte import EcgByteConfig

    module.AutoConfig.register(EcgByteConfig.model_type, EcgByteConfig, exist_ok=True)


def _register_tokenizer(module: Any) -> None:
    from .configuration_ecg_byte import EcgByteConfig
    from .tokenization_ecg_byte import EcgByteTokenizer

    module.AutoTokenizer.register(EcgByteConfig, tokenizer_class=EcgByteTokenizer, exist_ok=True)


def _register_feature_extractor(module: Any) -> None:
    from .configuration_ecg_byte import EcgByteConfig
    from .feature_extraction_ecg_byte import EcgByteFeatureExtractor

    module.AutoFeatureExtractor.register(EcgByteConfig, EcgByteFeatureExtractor, exist_ok=True)


def _register_processor(module: Any) -> None:
    from .configuration_ecg_byte import EcgByteConfig
    from .processing_ecg_byte import EcgByteProcessor

    module.AutoProcessor.register(EcgByteConfig, EcgByteProcessor, exist_ok=True)


REGISTRATIONS: dict[str, Callable[[Any], None]] = {
    "transformers.models.auto.configuration_auto": _register_config,
    "transformers.models.auto.tokenization_auto": _register_tokenizer,
    "transformers.models.auto.feature_extraction_auto": _register_feature_extractor,
    "transformers.models.auto.processing_auto": _register_processor,
}


class _RegisteringLoader(Loader):
    """Runs a module's own loader, then the registration."""

    def __init__(self, loader: Loader, register: Callable[[Any], None]) -> None:
        self._loader = loader
        self._register = register

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._register(module)


class _RegisterOnImport(MetaPathFinder):
    """Registers with each Auto module when it is first imported.

    `from transformers import AutoTokenizer` takes seconds, since it imports torch; `import ecgbyte_hf` and
    `ecgbyte --help` must not. So the registration waits until somebody else imports the Auto class.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in REGISTRATIONS or fullname in self._looking:
            return None
        self._looking.add(fullname)
        try:
            spec = find_spec(fullname)
        finally:
            self._looking.discard(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader, REGISTRATIONS[fullname])
        return spec

    def __init__(self) -> None:
        self._looking: set[str] = set()


def register() -> None:
    """Register now with every Auto module already imported, and with the others when they are."""
    for name, register_with in REGISTRATIONS.items():
        if name in sys.modules:
            register_with(sys.modules[name])
    if not any(isinstance(finder, _RegisterOnImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _RegisterOnImport())


register()
