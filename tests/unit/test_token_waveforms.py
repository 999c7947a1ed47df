"""Features of the tokens' waveforms: what they are made of, and that alike waveforms have alike features."""

import numpy as np
import pytest

from ecgbyte_hf.models.calibration_ecg_byte import EcgCalibration
from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer
from ecgbyte_hf.training.token_waveforms import token_waveforms, waveform_features

MV = EcgCalibration("percentile", -1.3, 1.3)  # 0.1 mV for each symbol


def tokenizer_of(merges, calibration=MV, **options):
    return EcgByteTokenizer(merges=merges, calibration=calibration, leads=["II"], sampling_rate=100, **options)


@pytest.fixture(scope="module")
def learnt(small_ecg_byte):
    return EcgByteTokenizer.from_pretrained(small_ecg_byte)


def distances(vectors):
    return np.linalg.norm(vectors[:, None] - vectors[None], axis=2)


class TestWaveforms:
    def test_in_mv_at_the_bins_centres(self):
        waves = token_waveforms(tokenizer_of([(12, 14), (26, 0)]))
        assert [len(wave) for wave in waves] == [1] * 26 + [2, 3]
        np.testing.assert_allclose(waves[25], [1.25], atol=1e-6)
        np.testing.assert_allclose(waves[27], [-0.05, 0.15, -1.25], atol=1e-6)

    def test_in_fractions_of_the_range_where_each_record_has_its_own(self):
        own, fixed = (
            tokenizer_of([(0, 3), (26, 26)], calibration)
            for calibration in (EcgCalibration.minmax(), EcgCalibration("percentile", 0.0, 1.0))
        )
        for left, right in zip(token_waveforms(own), token_waveforms(fixed), strict=True):
            np.testing.assert_array_equal(left, right)


class TestFeatures:
    def test_are_centred_of_length_one_in_the_mean_and_the_same_every_time(self, learnt):
        features = waveform_features(learnt)
        assert features.shape == (86, 16 + 3 + 3 + 1 + 8 + 1)
        np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-12)
        assert (features**2).sum(axis=1).mean() == pytest.approx(1)
        np.testing.assert_array_equal(features, waveform_features(learnt))

    def test_do_not_depend_on_the_amplitude_of_all(self):
        merges = [(0, 3), (26, 26), (5, 9)]
        tall = tokenizer_of(merges, EcgCalibration("percentile", -13.0, 13.0))
        np.testing.assert_allclose(waveform_features(tall), waveform_features(tokenizer_of(merges)), atol=1e-6)

    def test_different_tokens_have_different_features(self, learnt):
        apart = distances(waveform_features(learnt))
        assert apart[~np.eye(86, dtype=bool)].min() > 1e-3

    @pytest.mark.parametrize("merges", [[], [(3, 3), (20, 20)]])
    def test_symbols_lie_in_their_order(self, merges):
        """Also without merges, where all but the level is constant."""
        apart = distances(waveform_features(tokenizer_of(merges))[:26])
        for symbol in range(1, 25):
            row = apart[symbol]
            assert (np.diff(row[: symbol + 1]) < 0).all() and (np.diff(row[symbol:]) > 0).all()

    def test_a_frequency_above_half_the_rate_is_left_out(self):
        slow = tokenizer_of([(0, 3)], feature_extractor=None)
        slow.sampling_rate = 40
        assert waveform_features(slow).shape[1] == waveform_features(tokenizer_of([(0, 3)])).shape[1] - 2

    @pytest.mark.parametrize(
        "alike, unlike",
        [
            ("aaaa|aaab", "aaaa|aahh"),  # level at the end
            ("aaaa|aaaaa", "aaaa|aaaaaaaa"),  # duration
            ("acegigec|bdfhjhfd", "acegigec|gecaaceg"),  # shape, the same levels
            ("mnmnmnmn|nmnmnmnm", "mnmnmnmn|mmmmmmmm"),  # spectrum
        ],
    )
    def test_pairs(self, alike, unlike):
        texts = sorted({text for pair in (alike, unlike) for text in pair.split("|")})
        tokenizer = tokenizer_of(merges_of(texts))
        features = waveform_features(tokenizer)
        ids = {text: int(tokenizer.encode_symbols(text)[0]) for text in texts}
        near, far = (
            np.linalg.norm(np.subtract(*(features[ids[text]] for text in pair.split("|")))) for pair in (alike, unlike)
        )
        assert near < 0.8 * far


def merges_of(texts):
    """Merges that make each text one token, a letter at a time."""
    merges, known = [], {chr(ord("a") + index): index for index in range(26)}
    for text in texts:
        for end in range(2, len(text) + 1):
            if text[:end] not in known:
                known[text[:end]] = 26 + len(merges)
                merges.append((known[text[: end - 1]], known[text[end - 1]]))
    return merges
