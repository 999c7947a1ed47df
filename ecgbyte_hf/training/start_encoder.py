"""What the pretraining of an encoder starts from: the paper's weights, a folder, a configuration, or a tiny model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.prompts import SIGNAL_SUBFOLDER
from ecgbyte_hf.models.auto import ENCODERS, Encoder
from ecgbyte_hf.models.errors_ecg_byte import EncoderError

#: Tokens of a text, as in the paper.
MAX_TEXT_LENGTHS = {"EcgResNet": 64, "EcgClip": 77, "EcgClipVit": 77}
#: Mean and deviation of the pixels that ViT's weights were learnt with; the others have CLIP's.
_HALF = {"EcgVit": (0.5, 0.5, 0.5)}

_PAD, _UNKNOWN, _START, _END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
# Words of a tiny model's tokenizer.
_MOST_WORDS = 4096
_TINY_IMAGE, _TINY_PATCH = 128, 16
_LONGEST_TINY_PATCH, _FEWEST_TINY_PATCHES = 50, 16


@dataclass(frozen=True)
class EncoderStart:
    """Where weights and tokenizer come from; the paper's on the Hub where nothing is said.

    Attributes:
        init_from: A folder that `ecgbyte pretrain-encoder` wrote, or for encoders of pictures the names on the Hub, or
            folders, of their parts (CLIP, ViT).
        text_model: Name on the Hub, or folder, of the text tower of an encoder of signals.
        depth: Of the ResNet: 18, 34, 50 or 101.
        settings: Arguments of the encoder's configuration; the weights are random.
        tokenizer: Of random weights, a name or folder; by default the words of the training texts are learnt.
        tiny: Width and layers of a small random model.
        max_text_length: Tokens of a text; the paper's by default, or the tower's where that has fewer.
        train_text: Train the text tower; by default as the configuration says, and always where it is random.
        image_mode: How ECGs are drawn for encoders of pictures, as of `EcgImageProcessor`; None for "resize", or as
            the folder of `init_from` says.
    """

    init_from: tuple[str, ...] = ()
    text_model: str | None = None
    depth: int | None = None
    settings: Mapping[str, Any] | None = None
    tokenizer: str | None = None
    tiny: tuple[int, int] | None = None
    max_text_length: int | None = None
    train_text: bool | None = None
    image_mode: str | None = None

    @property
    def is_random(self) -> bool:
        """Whether no weights are loaded."""
        return self.tiny is not None or self.settings is not None


@dataclass(frozen=True)
class EncoderParts:
    """A model for pretraining and all that its input needs; `save_pretrained` writes it whole.

    Attributes:
        model: The class ForPreTraining of an encoder.
        feature_extractor: Cleans recordings as the prepared folder was.
        image_processor: Of encoders of pictures.
        tokenizer: Of the text tower, where there is one.
        max_text_length: Tokens of a text.
    """

    model: Any
    feature_extractor: Any
    image_processor: Any = None
    tokenizer: Any = None
    max_text_length: int | None = None

    @property
    def model_input_names(self) -> list[str]:
        """As of a transformers processor."""
        return [self.model.main_input_name]

    def save_pretrained(self, folder: str | Path) -> None:
        """Write what belongs beside the weights.

        `preprocessor_config.json` is the image processor of an encoder of pictures, with the feature extractor in the
        folder `signal`, and of other encoders the feature extractor.
        """
        if self.image_processor is None:
            self.feature_extractor.save_pretrained(folder)
        else:
            self.image_processor.save_pretrained(folder)
            self.feature_extractor.save_pretrained(Path(folder) / SIGNAL_SUBFOLDER)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)


def encoder_named(command_name: str) -> Encoder:
    """The encoder that commands call so.

    Raises:
        EncoderError: there is none.
    """
    for encoder in ENCODERS:
        if encoder.command_name == command_name:
            return encoder
    known = ", ".join(encoder.command_name for encoder in ENCODERS)
    raise EncoderError(f"got the encoder {command_name!r}, expected one of {known}")


def pretraining_class(encoder: Encoder) -> Any:
    """The class ForPreTraining of an encoder."""
    return getattr(import_module(encoder.modeling), f"{encoder.prefix}ForPreTraining")


def takes_texts(model: Any) -> bool:
    """Whether a model for pretraining, or its class, compares ECGs with texts."""
    return "input_ids" in inspect.signature(model.forward).parameters


def start_encoder(
    encoder: Encoder, prepared: PreparedData, texts: Callable[[], Iterable[str]], start: EncoderStart
) -> EncoderParts:
    """Make the model that pretraining starts from.

    Args:
        encoder: Which encoder.
        prepared: The ECGs; the model has as many leads, and their length where it has positions.
        texts: The training texts, which a random model's tokenizer is learnt from.
        start: Where the weights come from.

    Raises:
        EncoderError: choices that do not go together or that the encoder does not have.
        OSError: there are no such weights.
    """
    from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor

    _check_start(encoder, start)
    tokenizer: Any = None
    if takes_texts(pretraining_class(encoder)):
        tokenizer = _tokenizer(encoder, texts, start)
    shape = _shape(prepared)
    model = (
        _random_model(encoder, shape, tokenizer, start) if start.is_random else _loaded_model(encoder, shape, start)
    )
    if start.train_text is not None and hasattr(model.config, "freeze_text"):
        model.config.freeze_text = not start.train_text
        model.text_model.requires_grad_(start.train_text)
    _check_leads(model, shape)
    max_length = None
    if tokenizer is not None:
        max_length = text_length(encoder, model, start)
        tokenizer.model_max_length = max_length
    return EncoderParts(
        model,
        EcgByteFeatureExtractor.from_dict(prepared.preprocessor),
        _image_processor(encoder, model, shape[0], start) if encoder.takes_images else None,
        tokenizer,
        max_length,
    )


def load_parts(folder: str | Path) -> EncoderParts:
    """What `EncoderParts.save_pretrained` and the model's own wrote.

    Raises:
        EncoderError: the folder holds no encoder of ours.
    """
    from transformers import AutoTokenizer

    from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor
    from ecgbyte_hf.models.image_processing_ecg import EcgImageProcessor

    encoder = encoder_of(folder)
    model = pretraining_class(encoder).from_pretrained(folder)
    signal = Path(folder) / SIGNAL_SUBFOLDER if encoder.takes_images else Path(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder) if takes_texts(model) else None
    return EncoderParts(
        model.eval(),
        EcgByteFeatureExtractor.from_pretrained(signal),
        EcgImageProcessor.from_pretrained(folder) if encoder.takes_images else None,
        tokenizer,
        None if tokenizer is None else tokenizer.model_max_length,
    )


def encoder_of(folder: str | Path) -> Encoder:
    """The encoder whose weights a folder holds.

    Raises:
        EncoderError: it holds none of ours.
    """
    from ecgbyte_hf.provenance import read_object

    found = (read_object(Path(folder) / "config.json") or {}).get("model_type")
    for encoder in ENCODERS:
        if encoder.config().model_type == found:
            return encoder
    what = "no config.json" if found is None else f"a model of the type {found!r}"
    raise EncoderError(f"{folder} holds {what}, expected an encoder that `ecgbyte pretrain-encoder` wrote")


def paper_text_model(encoder: Encoder) -> str:
    """Name on the Hub of the paper's text tower, with its tokenizer."""
    return _backbones(encoder, EncoderStart())[0]


def word_tokenizer(texts: Iterable[str]) -> Any:
    """A tokenizer of the words of some texts, in lower case, with a beginning and an end."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel(unk_token=_UNKNOWN))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [_PAD, _UNKNOWN, _START, _END]
    trainer = trainers.WordLevelTrainer(vocab_size=_MOST_WORDS, special_tokens=special, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{_START} $A {_END}",
        special_tokens=[(token, backend.token_to_id(token)) for token in (_START, _END)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=_PAD, unk_token=_UNKNOWN, cls_token=_START, sep_token=_END
    )


def _check_start(encoder: Encoder, start: EncoderStart) -> None:
    given = [name for name in ("tiny", "settings", "init_from", "text_model") if getattr(start, name)]
    if len(given) > 1:
        options = {"settings": "--model-config"}
        named = ", ".join(options.get(name, f"--{name.replace('_', '-')}") for name in given)
        raise EncoderError(f"got {named}: each of them says what the weights are; expected one")
    if start.text_model and (encoder.takes_images or not takes_texts(pretraining_class(encoder))):
        raise EncoderError(f"{encoder.command_name} has no text tower of its own choice; leave --text-model out")
    if start.depth is not None and (encoder.prefix != "EcgResNet" or start.is_random or start.init_from):
        raise EncoderError("--depth is that of merl-resnet with new weights and a --text-model; leave it out")
    if start.tokenizer and not start.is_random:
        raise EncoderError("--tokenizer is for random weights (--model-config or --tiny); others have their own")
    if start.image_mode is not None and not encoder.takes_images:
        raise EncoderError(f"{encoder.command_name} takes the signal and no picture; leave --image-mode out")
    if start.train_text is not None and encoder.prefix != "EcgResNet":
        raise EncoderError(f"the text tower of {encoder.command_name} is always trained, or there is none")
    if start.tiny is not None and (start.tiny[1] < 1 or start.tiny[0] < 16 or start.tiny[0] % 16):
        raise EncoderError(f"got --tiny-size {start.tiny[0]} {start.tiny[1]}, expected a multiple of 16, and layers")


def _tokenizer(encoder: Encoder, texts: Callable[[], Iterable[str]], start: EncoderStart) -> Any:
    from transformers import AutoTokenizer

    if start.is_random and start.tokenizer is None:
        return word_tokenizer(texts())
    name = start.tokenizer or start.text_model or _backbones(encoder, start)[0]
    return AutoTokenizer.from_pretrained(name)


def _backbones(encoder: Encoder, start: EncoderStart) -> list[str]:
    """The folder of ours, or the names of the parts that the weights come from: those given, or the paper's."""
    if _is_ours(encoder, start.init_from):
        return list(start.init_from)
    make = getattr(pretraining_class(encoder), "from_backbone_pretrained", None)
    if make is None:
        if start.init_from:
            raise EncoderError(f"{start.init_from[0]} holds no {encoder.command_name}; expected a folder of one")
        return []
    parameters = inspect.signature(make).parameters.values()
    if not encoder.takes_images:
        if start.init_from:
            raise EncoderError(
                f"{start.init_from[0]} holds no {encoder.command_name}; its text tower is chosen by --text-model"
            )
        return [start.text_model or next(iter(parameters)).default]
    usual = [parameter.default for parameter in parameters if parameter.name.endswith("name")]
    if start.init_from and len(start.init_from) != len(usual):
        raise EncoderError(
            f"got --init-from {' '.join(start.init_from)}, expected {len(usual)} such as {' '.join(usual)}, or a "
            "folder that `ecgbyte pretrain-encoder` wrote"
        )
    return list(start.init_from) or usual


def _is_ours(encoder: Encoder, init_from: Sequence[str]) -> bool:
    if len(init_from) != 1 or not (Path(init_from[0]) / "config.json").is_file():
        return False
    from ecgbyte_hf.provenance import read_object

    return (read_object(Path(init_from[0]) / "config.json") or {}).get("model_type") == encoder.config().model_type


def _shape(prepared: PreparedData) -> tuple[int, int]:
    """Leads and samples of the signals."""
    leads, samples = prepared.signal(prepared.ecg_ids[0]).shape
    return int(leads), int(samples)


def _loaded_model(encoder: Encoder, shape: tuple[int, int], start: EncoderStart) -> Any:
    model_class = pretraining_class(encoder)
    if _is_ours(encoder, start.init_from):
        return model_class.from_pretrained(start.init_from[0])
    names = _backbones(encoder, start)
    if encoder.takes_images:
        return model_class.from_backbone_pretrained(*names)
    config_class = encoder.config()
    of_signals = _accepted(config_class, {"num_leads": shape[0], "num_samples": shape[1]})
    if not names:
        return model_class(config_class(**of_signals))
    config = config_class.of_depth(start.depth or 101, **of_signals)
    return model_class.from_backbone_pretrained(names[0], config)


def _random_model(encoder: Encoder, shape: tuple[int, int], tokenizer: Any, start: EncoderStart) -> Any:
    config_class = encoder.config()
    of_signals = _accepted(config_class, {"num_leads": shape[0], "num_samples": shape[1]})
    length = start.max_text_length or MAX_TEXT_LENGTHS.get(encoder.prefix, 64)
    settings = dict(start.settings or _tiny_settings(encoder, shape, start.tiny or (0, 0), length))
    config = config_class(**(of_signals | settings))
    text = text_config(config)
    if text is not None:
        text.vocab_size = len(tokenizer)
        text.pad_token_id = tokenizer.pad_token_id
        text.bos_token_id = tokenizer.cls_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        # CLIP's tower takes the state at this token; BERT's does not look at it.
        text.eos_token_id = tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    if hasattr(config, "freeze_text"):
        config.freeze_text = False  # a random tower that stays so tells little
    return pretraining_class(encoder)(config)


def _accepted(config_class: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    known = inspect.signature(config_class.__init__).parameters
    return {name: value for name, value in settings.items() if name in known}


def _tiny_settings(encoder: Encoder, shape: tuple[int, int], size: tuple[int, int], max_length: int) -> dict[str, Any]:
    """Arguments of the configuration of a small model: as wide, and as deep, as said, with four heads."""
    width, layers = size
    tower = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        # transformers' 0.02 suits a width of 768. At 64 it makes nearly the same state of every text: after 80 steps
        # on 160 simulated ECGs the ResNet's cross-modal validation loss was 2.47, and with this 1.88.
        "initializer_range": width**-0.5,
    }
    words = tower | {"max_position_embeddings": max_length}
    picture = tower | {"image_size": _TINY_IMAGE, "patch_size": _TINY_PATCH}
    clip = {"projection_dim": width, "text_config": words, "vision_config": picture}
    vit = picture | {"encoder_stride": _TINY_PATCH}
    known: dict[str, dict[str, Any]] = {
        "EcgClip": {"clip_config": clip},
        "EcgVit": {"vit_config": vit},
        "EcgClipVit": {"clip_config": clip, "vit_config": vit},
        "EcgResNet": {
            "block": "basic",
            "blocks": [1] * layers,
            "base_channels": max(4, width // 2 ** (layers - 1)),
            "embedding_size": width,
            "text_config": words,
        },
    }
    if encoder.prefix in known:
        return known[encoder.prefix]
    # Any other encoder that calls its sizes as transformers' models do.
    longest = max(1, min(_LONGEST_TINY_PATCH, shape[1] // _FEWEST_TINY_PATCHES))
    patch = max(size for size in range(1, longest + 1) if shape[1] % size == 0)
    decoder = {f"decoder_{name}": value // 2 for name, value in tower.items() if name.endswith("size")}
    decoder |= {"decoder_num_attention_heads": 4, "decoder_num_hidden_layers": 1}
    return _accepted(encoder.config(), tower | decoder | {"patch_size": patch})


def text_config(config: Any) -> Any:
    """The configuration of the text tower; None without one."""
    clip = getattr(config, "clip_config", None)
    return getattr(config if clip is None else clip, "text_config", None)


def text_length(encoder: Encoder, model: Any, start: EncoderStart) -> int:
    """Tokens of a text: those asked for, or as many of the paper's as the tower has positions for."""
    usual = MAX_TEXT_LENGTHS.get(encoder.prefix, 64)
    longest = int(getattr(text_config(model.config), "max_position_embeddings", start.max_text_length or usual))
    max_length = start.max_text_length or min(usual, longest)
    if not 2 < max_length <= longest:
        raise EncoderError(f"got texts of {max_length} tokens, expected 3 to the text tower's {longest}")
    return max_length


def _check_leads(model: Any, shape: tuple[int, int]) -> None:
    num_leads = getattr(model.config, "num_leads", shape[0])
    if num_leads != shape[0]:
        raise EncoderError(
            f"the encoder is for {num_leads} leads and the prepared records have {shape[0]}; prepare the data with as "
            "many (`ecgbyte prepare --leads`), or start from other weights"
        )


def _image_processor(encoder: Encoder, model: Any, num_leads: int, start: EncoderStart) -> Any:
    from ecgbyte_hf.models.image_processing_ecg import EcgImageProcessor

    given: dict[str, Any] = {"num_leads": num_leads}
    if start.image_mode is not None:
        given["mode"] = start.image_mode
    if _is_ours(encoder, start.init_from):
        return EcgImageProcessor.from_pretrained(start.init_from[0], **given)
    if encoder.prefix in _HALF:
        given |= {"image_mean": _HALF[encoder.prefix], "image_std": _HALF[encoder.prefix]}
    return EcgImageProcessor(size=model.config.image_size, **given)
