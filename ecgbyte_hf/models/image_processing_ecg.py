"""A 12-lead ECG as a picture for vision models: one row of pixels for each lead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.processing_utils import ImagesKwargs

from .errors_ecg_byte import EncoderError, LeadError, SignalError

if TYPE_CHECKING:
    from transformers.utils.generic import TensorType

MODES = ("resize", "reference")
NUM_CHANNELS = 3
HIGHEST_PIXEL = 255


class EcgImageKwargs(ImagesKwargs, total=False):
    """What `from_pretrained` may override."""

    mode: str
    num_leads: int


class EcgImageProcessor(BaseImageProcessor):
    """Turns cleaned signals into the pixel values that EcgClip, EcgVit and EcgClipVit expect.

    A signal is scaled to 0..255 by its own minimum and maximum over leads and time, and is a grey image of one row per
    lead and one column per sample.

    The mode "resize" brings the whole of it to `size`, in floating point. "reference" does what CLIP's own processor
    makes of it in the ECG-Byte paper's baselines: pixels are whole numbers, the shorter side, which are the leads, is
    brought to 224, the time is stretched as much, and the middle is cut out: about as many samples as there are leads,
    48 ms of 12 leads at 250 Hz. It is there to reproduce the paper; at most 2 of 255 levels from CLIP's processor with
    Pillow, 0.01 on average.

    Args:
        mode: "resize" or "reference".
        size: height and width of the picture, as a number of pixels or {"height": ..., "width": ...}.
        num_leads: rows of a signal.
        image_mean: mean of each channel that is subtracted, for pixels of 0..1; CLIP's by default. ViT's is 0.5.
        image_std: standard deviation of each channel that is divided by; CLIP's by default. ViT's is 0.5.
        kwargs: what `transformers` keeps in preprocessor_config.json besides.

    Raises:
        EncoderError: a mode of another name, a size that is no picture's, not three means or deviations.

    Example:
        >>> signal = np.random.default_rng(0).normal(size=(12, 2500))
        >>> EcgImageProcessor()(signal, return_tensors="pt")["pixel_values"].shape
        torch.Size([1, 3, 224, 224])
    """

    model_input_names = ["pixel_values"]
    valid_kwargs = EcgImageKwargs
    _auto_class: Any = "AutoImageProcessor"

    def __init__(
        self,
        mode: str = "resize",
        size: int | Mapping[str, int] = 224,
        num_leads: int = 12,
        image_mean: Sequence[float] = OPENAI_CLIP_MEAN,
        image_std: Sequence[float] = OPENAI_CLIP_STD,
        **kwargs: Any,
    ) -> None:
        """Check and keep the arguments; all of them are written by `save_pretrained`."""
        super().__init__(**kwargs)
        if mode not in MODES:
            raise EncoderError(f"Got mode={mode!r}, expected one of {', '.join(MODES)}.")
        sides = {"height": size, "width": size} if isinstance(size, int) else dict(size)
        if set(sides) != {"height", "width"} or min(sides.values()) < 1:
            raise EncoderError(f"Got size={size!r}, expected a number of pixels, or height and width, such as 224.")
        if mode == "reference" and sides["height"] != sides["width"]:
            raise EncoderError(f"Got size={size!r}, expected a square for mode='reference', as CLIP's processor cuts.")
        for name, values in (("image_mean", image_mean), ("image_std", image_std)):
            if len(values) != NUM_CHANNELS:
                raise EncoderError(
                    f"Got {name}={list(values)}, expected one number for each of {NUM_CHANNELS} channels."
                )
        self.mode = mode
        self.size = sides
        self.num_leads = num_leads
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)

    def preprocess(self, images: Any, return_tensors: str | TensorType | None = None) -> BatchFeature:
        """Draw one signal or several.

        Args:
            images: (leads, samples), (batch, leads, samples), or a sequence of (leads, samples), which may differ in
                length; arrays or tensors. Its unit does not matter.
            return_tensors: "np" or "pt" for one array (batch, 3, height, width); None for a list of arrays.

        Returns:
            `BatchFeature` with "pixel_values": float32 (3, height, width) for each signal.

        Raises:
            LeadError: another number of leads.
            SignalError: a signal with NaN or infinity, without samples, or that is no array of two dimensions.
        """
        pixels = [self._pixels(signal) for signal in _signals(images)]
        return BatchFeature({"pixel_values": pixels}, tensor_type=return_tensors)

    def _pixels(self, signal: np.ndarray) -> np.ndarray:
        """Draw one signal: (3, height, width)."""
        self._check(signal)
        grey = torch.from_numpy(_grey(signal))[None, None]
        grey = self._whole(grey) if self.mode == "resize" else self._middle(grey)
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.image_mean, self.image_std))
        pixels: np.ndarray = ((grey[0] / HIGHEST_PIXEL - mean) / std).numpy()
        return pixels

    def _whole(self, grey: torch.Tensor) -> torch.Tensor:
        """Bring a picture (1, 1, leads, samples) to the size; cubic interpolation can overshoot, so it is clipped."""
        size = (self.size["height"], self.size["width"])
        return F.interpolate(grey.float(), size=size, mode="bicubic", antialias=True).clamp(0, HIGHEST_PIXEL)

    def _middle(self, grey: torch.Tensor) -> torch.Tensor:
        """Stretch a picture's shorter side to the size, in whole numbers as CLIP's processor does; cut the middle."""
        height, width = self.size["height"], self.size["width"]
        short = min(height, width)
        rows, columns = grey.shape[-2:]
        longer = int(short * max(rows, columns) / min(rows, columns))
        stretched = (short, longer) if rows <= columns else (longer, short)
        whole = F.interpolate(grey.to(torch.uint8), size=stretched, mode="bicubic", antialias=True)
        top, left = (stretched[0] - height) // 2, (stretched[1] - width) // 2
        return whole[..., top : top + height, left : left + width].float()

    def _check(self, signal: np.ndarray) -> None:
        if signal.ndim != 2 or not signal.size:
            raise SignalError(
                f"Got a signal of the shape {signal.shape}, expected (leads, samples).", problems=("shape",)
            )
        if len(signal) != self.num_leads:
            raise LeadError(
                f"Got {len(signal)} leads in a signal of the shape {signal.shape}, expected {self.num_leads}. Give "
                "(leads, samples), or another num_leads."
            )
        if not np.isfinite(signal).all():
            raise SignalError(
                "Got a signal with NaN or infinity, expected numbers throughout. EcgByteFeatureExtractor cleans it.",
                problems=("nan",),
            )


def _signals(images: Any) -> list[np.ndarray]:
    """Return the signals of a batch in any of its forms."""
    if isinstance(images, np.ndarray | torch.Tensor):
        return [np.asarray(images)] if images.ndim <= 2 else [np.asarray(signal) for signal in images]
    return [np.asarray(signal) for signal in images]


def _grey(signal: np.ndarray) -> np.ndarray:
    """Scale a signal to 0..255 by its own minimum and maximum, as float64; a flat one is black."""
    values = signal.astype(np.float64)
    width = np.ptp(values)
    if not width:
        return np.zeros(values.shape)
    grey: np.ndarray = (values - values.min()) / width * HIGHEST_PIXEL
    return grey
