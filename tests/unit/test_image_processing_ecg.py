"""The picture of an ECG."""

import numpy as np
import pytest
import torch

from ecgbyte_hf import EcgError, EcgImageProcessor

PLAIN = {"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}


@pytest.fixture
def signal() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(12, 500)).astype(np.float32)


def test_shapes_of_all_kinds_of_batches(signal):
    processor = EcgImageProcessor()
    one = processor(signal, return_tensors="pt")["pixel_values"]
    assert one.shape == (1, 3, 224, 224) and one.dtype == torch.float32
    for batch in ([signal, signal[:, :300]], np.stack([signal, signal]), torch.tensor(np.stack([signal, signal]))):
        pixels = processor(batch, return_tensors="np")["pixel_values"]
        assert pixels.shape == (2, 3, 224, 224)
        np.testing.assert_array_equal(pixels[0], one[0].numpy())
    assert [picture.shape for picture in processor([signal])["pixel_values"]] == [(3, 224, 224)]


def test_rows_are_leads_and_columns_are_time():
    processor = EcgImageProcessor(size={"height": 24, "width": 10}, **PLAIN)
    signal = np.zeros((12, 500))
    signal[:6] = -2.0
    signal[6:, 400:] = 2.0
    red, green, blue = processor(signal, return_tensors="np")["pixel_values"][0]
    np.testing.assert_array_equal(red, green)
    np.testing.assert_array_equal(red, blue)
    np.testing.assert_allclose(red[:10], 0.0, atol=1e-6)
    np.testing.assert_allclose(red[15:, :5], 0.5, atol=1e-5)
    np.testing.assert_allclose(red[15:, 9], 1.0, atol=1e-5)


def test_every_part_of_the_time_counts_unless_reference(signal):
    for mode, counts in (("resize", True), ("reference", False)):
        processor = EcgImageProcessor(mode)
        changed = signal.copy()
        changed[3, 100] += 0.5
        same = np.array_equal(processor(signal)["pixel_values"][0], processor(changed)["pixel_values"][0])
        assert same is not counts


@pytest.mark.parametrize("length", [500, 333, 2500, 8])
def test_reference_is_what_clips_own_processor_makes(length):
    pytest.importorskip("PIL", reason="Pillow is not installed")
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    signal = np.random.default_rng(1).normal(size=(12, length))
    grey = np.floor((signal - signal.min()) / np.ptp(signal) * 255).astype(np.uint8)
    image = np.stack([grey] * 3, axis=-1)
    expected = CLIPImageProcessorPil()(image, return_tensors="np", input_data_format="channels_last")["pixel_values"]
    got = EcgImageProcessor("reference")(signal, return_tensors="np")["pixel_values"]
    assert got.shape == expected.shape == (1, 3, 224, 224)
    levels = np.abs(got - expected) * 255 * np.array([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    # Both round twice, after the columns and after the rows; Pillow's weights have more bits.
    assert levels.max() < 2.01 and levels.mean() < 0.02


def test_scaled_by_its_own_range_and_normalised(signal):
    plain = EcgImageProcessor(**PLAIN)(signal, return_tensors="np")["pixel_values"]
    assert plain.min() >= 0 and plain.max() <= 1 and np.ptp(plain) > 0.4
    np.testing.assert_allclose(
        EcgImageProcessor(**PLAIN)(signal * 7 + 3, return_tensors="np")["pixel_values"], plain, atol=1e-5
    )
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    normalised = EcgImageProcessor(image_mean=mean, image_std=std)(signal, return_tensors="np")["pixel_values"]
    expected = (plain - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]
    np.testing.assert_allclose(normalised, expected, atol=1e-5)


def test_a_flat_signal_is_black():
    assert (EcgImageProcessor(**PLAIN)(np.full((12, 50), 3.0), return_tensors="np")["pixel_values"] == 0).all()


def test_saved_and_loaded(signal, tmp_path):
    from transformers import AutoImageProcessor

    processor = EcgImageProcessor("reference", size=64, image_mean=[0.5] * 3, image_std=[0.25] * 3)
    processor.save_pretrained(tmp_path)
    expected = processor(signal)["pixel_values"][0]
    for loaded in (EcgImageProcessor.from_pretrained(tmp_path), AutoImageProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is EcgImageProcessor
        np.testing.assert_array_equal(loaded(signal)["pixel_values"][0], expected)
        assert loaded.to_dict() == processor.to_dict()
    changed = EcgImageProcessor.from_pretrained(tmp_path, mode="resize")
    assert changed.mode == "resize" and changed.size == {"height": 64, "width": 64}


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"mode": "crop"}, "resize, reference"),
        ({"size": {"shortest_edge": 224}}, "height and width"),
        ({"size": 0}, "number of pixels"),
        ({"mode": "reference", "size": {"height": 32, "width": 64}}, "square"),
        ({"image_mean": [0.5]}, "image_mean"),
        ({"image_std": [0.5, 0.5]}, "image_std"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(EcgError, match=message):
        EcgImageProcessor(**settings)


def test_signals_that_cannot_be(signal):
    processor = EcgImageProcessor()
    with pytest.raises(EcgError, match="Got 8 leads"):
        processor(signal[:8])
    with pytest.raises(EcgError, match="Got 500 leads"):
        processor(signal.T)
    for wrong in (signal[0], signal[:, :0], signal[None, None]):
        with pytest.raises(EcgError, match=r"expected \(leads, samples\)"):
            processor(wrong)
    signal[2, 7] = np.nan
    with pytest.raises(EcgError, match="NaN"):
        processor([signal])
    assert EcgImageProcessor(num_leads=8)(np.ones((8, 30)))["pixel_values"][0].shape == (3, 224, 224)
