"""What the ECG tokens look like, as numbers: tokens with alike waveforms get alike numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

# Points that each waveform is resampled to.
_SHAPE_POINTS = 16
# Hz: baseline and T wave to the steep parts of the QRS complex.
_FREQUENCIES = np.geomspace(1.0, 40.0, 8)


def waveform_features(ecg_tokenizer: Any) -> np.ndarray:
    """The waveform of every ECG token as a vector.

    A token's symbols are decoded to mV (with calibration `"minmax"`: to fractions of the record's range). Of this
    waveform five groups of features are taken: its shape at 16 points from its first to its last sample; mean, first
    and last value; range, slope and standard deviation; the logarithm of its duration; the square root of its
    magnitude at 8 frequencies from 1 to 40 Hz (those below half the sampling rate), mean removed. Each feature is
    standardised over the tokens and the five groups weigh the same. A constant is appended and the vector scaled to
    length one, so that a rare tall wave does not outweigh all others and different vectors stay different; then the
    mean over the tokens is taken away and all are scaled to a mean square length of one.

    Args:
        ecg_tokenizer: An `EcgByteTokenizer`. A token that spans two leads is taken as one waveform.

    Returns:
        float64 (ECG tokens, features).
    """
    waveforms = token_waveforms(ecg_tokenizer)
    rate = float(ecg_tokenizer.sampling_rate)
    frequencies = _FREQUENCIES[rate / 2 > _FREQUENCIES]
    groups = [
        np.stack([_resampled(wave) for wave in waveforms]),
        np.array([(wave.mean(), wave[0], wave[-1]) for wave in waveforms]),
        np.array([(np.ptp(wave), (wave[-1] - wave[0]) / max(len(wave) - 1, 1), wave.std()) for wave in waveforms]),
        np.log([[len(wave) / rate] for wave in waveforms]),
        np.stack([_spectrum(wave, frequencies / rate) for wave in waveforms]),
    ]
    weighted = [_standardised(group) / max(group.shape[1] * len(groups), 1) ** 0.5 for group in groups]
    vectors = np.concatenate([*weighted, np.ones((len(waveforms), 1))], axis=1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors -= vectors.mean(axis=0)
    scaled: np.ndarray = vectors / np.sqrt((vectors**2).sum(axis=1).mean())
    return scaled


def token_waveforms(ecg_tokenizer: Any) -> list[np.ndarray]:
    """The samples of every ECG token, in mV or, with calibration `"minmax"`, in fractions of the record's range."""
    own_range = {} if ecg_tokenizer.calibration.method == "percentile" else {"low": 0.0, "high": 1.0}
    samples = ecg_tokenizer.decode_signal(np.arange(ecg_tokenizer.num_ecg_tokens), num_leads=1, **own_range)[0]
    return np.split(samples, np.cumsum(ecg_tokenizer.bpe.token_lengths)[:-1])


def _resampled(wave: np.ndarray) -> np.ndarray:
    return np.interp(np.linspace(0, len(wave) - 1, _SHAPE_POINTS), np.arange(len(wave)), wave)


def _spectrum(wave: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """Magnitudes at frequencies in cycles per sample."""
    turns = np.exp(-2j * np.pi * np.outer(frequencies, np.arange(len(wave))))
    magnitudes: np.ndarray = np.abs(turns @ (wave - wave.mean()))
    return magnitudes


def _standardised(features: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1 in each column; a constant column, such as the slope of single samples, becomes 0."""
    centred = features - features.mean(axis=0)
    deviation = centred.std(axis=0)
    is_constant = deviation <= 1e-9 * np.abs(features).max(axis=0, initial=0.0)
    scaled: np.ndarray = np.where(is_constant, 0.0, centred / np.where(is_constant, 1.0, deviation))
    return scaled
