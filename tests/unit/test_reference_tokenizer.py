import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from reference_twin import ReferenceTwin, cleaned_signals, letters, record_paths

import rust_bpe
from ecgbyte_hf import EcgByteProcessor, EcgByteTokenizer, EcgCalibration
from ecgbyte_hf.cli import main
from ecgbyte_hf.hub.reference_tokenizer import convert_tokenizer, make_processor, read_reference_vocabulary
from ecgbyte_hf.models.errors_ecg_byte import EcgError, EcgFileError, VocabularyError

TOKENIZERS = ("ecg_byte_tokenizer_1000_25", "tokenizer_5000_300000", "ecg_byte_tokenizer_6000_800000")
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
# As PTB-XL's after cleaning, in mV: the percentiles of a plausible file.
PERCENTILES = (-0.72, 1.13)


def trained_merges(num_merges: int = 120) -> np.ndarray:
    """Merges of random walks with long flat parts, whose tokens overlap themselves."""
    generator = np.random.default_rng(5)
    records = [np.clip(13 + np.cumsum(generator.integers(-1, 2, 4000)) // 3, 0, 25).astype(np.uint8) for _ in range(3)]
    return rust_bpe.train(records, num_merges)


def reference_data(merges: np.ndarray, form: str) -> tuple[dict, list]:
    """What the paper's code would have pickled for these merges, with the ids of a hash table's order."""
    bpe = rust_bpe.Bpe(merges)
    texts = {index: chr(index) if index < 128 else f"<{index}>" for index in range(256)}
    parts = []
    for rank, (left, right) in enumerate(merges.tolist()):
        text = "".join(ALPHABET[symbol] for symbol in bpe.decode([26 + rank]))
        texts[256 + rank] = text
        pair = [index + 97 if index < 26 else index - 26 + 256 for index in (left, right)]
        parts.append((list(text.encode()) if form == "bytes" else pair, 256 + rank))
    order = np.random.default_rng(6).permutation(len(texts)).tolist()
    return {index: texts[index] for index in order}, parts


def write(path: Path, data, protocol: int | None = None) -> Path:
    path.write_bytes(pickle.dumps(data, protocol))
    return path


@pytest.fixture(scope="module")
def merges() -> np.ndarray:
    return trained_merges()


class TestForms:
    @pytest.mark.parametrize("form", ["bytes", "pair"])
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_both_forms_give_the_trained_merges(self, tmp_path, merges, form, protocol):
        data = reference_data(merges, form)
        vocabulary = read_reference_vocabulary(write(tmp_path / "t.pkl", data, protocol))
        assert vocabulary.merges.tolist() == merges.tolist()
        assert vocabulary.merge_form == form
        assert vocabulary.id_order == tuple(data[0])
        assert vocabulary.longest_token == max(len(text) for index, text in data[0].items() if index >= 256)

    def test_two_letters_each_mean_the_same_in_both_forms(self, tmp_path):
        data = reference_data(np.array([[0, 0], [1, 2]], dtype=np.uint32), "bytes")
        assert data[1] == reference_data(np.array([[0, 0], [1, 2]], dtype=np.uint32), "pair")[1]
        vocabulary = read_reference_vocabulary(write(tmp_path / "t.pkl", data))
        assert vocabulary.merges.tolist() == [[0, 0], [1, 2]]

    def test_no_merges(self, tmp_path):
        data = reference_data(np.zeros((0, 2), dtype=np.uint32), "bytes")
        assert len(read_reference_vocabulary(write(tmp_path / "t.pkl", data)).merges) == 0

    def test_a_pair_is_that_of_rank_order_not_of_longest_match(self, tmp_path):
        # "abc" by rank is a + bc, since bc was merged first; longest match would say ab + c.
        merges = np.array([[1, 2], [0, 1], [0, 26]], dtype=np.uint32)
        vocabulary = read_reference_vocabulary(write(tmp_path / "t.pkl", reference_data(merges, "bytes")))
        assert vocabulary.merges.tolist() == merges.tolist()


class TestRealFiles:
    @pytest.mark.parametrize("name", TOKENIZERS)
    def test_split_once_and_all_different(self, test_data, name):
        path = test_data / "tokenizers" / f"{name}.pkl"
        vocabulary, twin = read_reference_vocabulary(path), ReferenceTwin(path)
        assert vocabulary.merge_form == "bytes"
        assert len(vocabulary.merges) == len(twin.merges) == int(name.split("_")[-2])
        assert vocabulary.id_order == tuple(twin.vocabulary)
        assert len(set(twin.vocabulary.values())) == len(twin.vocabulary)

    @pytest.mark.slow
    def test_ids_are_the_references_on_real_records(self, test_data):
        """Exact on a sample; on all records with ECGBYTE_CONVERSION_RECORDS=all.

        ECGBYTE_CONVERSION_REPORT names a file for the counts.
        """
        wanted = os.environ.get("ECGBYTE_CONVERSION_RECORDS", "2")
        counts = []
        tokenizers = [_both(test_data / "tokenizers" / f"{name}.pkl") for name in TOKENIZERS]
        for folder, paths in record_paths(test_data).items():
            chosen = paths if wanted == "all" else paths[:: max(1, len(paths) // int(wanted))][: int(wanted)]
            compared = dict.fromkeys(TOKENIZERS, 0)
            num_signals = num_compared = 0
            for signal in cleaned_signals(chosen):
                num_signals += 1
                own_range = float(signal.min()), float(signal.max())
                ranges = {"minmax": own_range}
                if wanted != "all" or folder in ("ptbxl/records500", "mimic_iv_ecg"):
                    ranges["percentile"] = PERCENTILES[0] - 0.5, PERCENTILES[1] + 0.5
                for method, (low, high) in ranges.items():
                    text = letters(signal, low, high)
                    num_compared += 1
                    for name, (twin, ours) in zip(TOKENIZERS, tokenizers, strict=True):
                        expected = twin.encode(text)
                        got = ours[method].to_reference_ids(ours[method].encode_signal(signal))
                        assert got.tolist() == expected, (folder, name, method)
                        compared[name] += len(expected)
            assert num_signals
            counts.append(
                {"folder": folder, "files": len(chosen), "records": num_signals, "strings": num_compared}
                | {"tokens": compared}
            )
        assert all(sum(count["tokens"].values()) > 0 for count in counts)
        if report := os.environ.get("ECGBYTE_CONVERSION_REPORT"):
            Path(report).write_text(json.dumps(counts, indent=2))


def _both(path: Path) -> tuple[ReferenceTwin, dict[str, EcgByteTokenizer]]:
    vocabulary = read_reference_vocabulary(path)
    calibrations = {"minmax": None, "percentile": EcgCalibration.from_percentiles(*PERCENTILES)}
    return ReferenceTwin(path), {
        method: make_processor(vocabulary, calibration=calibration).tokenizer
        for method, calibration in calibrations.items()
    }


class TestRefusals:
    """Plain data that is no tokenizer; each names what is wrong."""

    def refuse(self, tmp_path, data, match: str) -> None:
        path = write(tmp_path / "t.pkl", data)
        with pytest.raises(VocabularyError, match=match) as caught:
            read_reference_vocabulary(path)
        assert str(caught.value).startswith(f"{path}: ") and len(str(caught.value)) < 400 + len(str(path))

    @pytest.mark.parametrize(
        ("data", "match"),
        [
            (None, "got a NoneType"),
            ([{}, []], "got a list"),
            (({},), r"got \(dict\)"),
            (({}, [], 1), r"got \(dict, list, int\)"),
            (([], {}), r"got \(list, dict\)"),
            (({}, []), "0 ids and 0 merges, expected 256 ids more"),
        ],
    )
    def test_no_pair(self, tmp_path, data, match):
        self.refuse(tmp_path, data, match)

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            (lambda v, m: v.pop(300), "ids more than merges"),
            (lambda v, m: v.update({9_999: v.pop(300)}), "the id 9999 is out of range"),
            (lambda v, m: v.update({-1: v.pop(300)}), "the id -1 is out of range"),
            (lambda v, m: v.update({"300": v.pop(300)}), "maps a str to a str"),
            (lambda v, m: v.update({300: b"ab"}), "maps a int to a bytes"),
            (lambda v, m: v.update({300: 5}), "maps a int to a int"),
            (lambda v, m: v.update({97: "b"}), "the id 97 is 'b', expected 'a'"),
            (lambda v, m: v.update({300: v[301]}), "the tokens 300 and 301 have the same letters"),
            (lambda v, m: v.update({300: "aB"}), "letters a to z"),
            (lambda v, m: v.update({300: "a\u00e9"}), "letters a to z"),
            (lambda v, m: v.update({300: "a"}), "the token 300 has 1 letters"),
            (lambda v, m: v.update({300: "ab" * 40_000}), "has 80000 letters"),
            (lambda v, m: v.update({300: v[300] + "z"}), "merge 44 has other letters"),
            (lambda v, m: m.__setitem__(7, 5), "merge 7 is a int"),
            (lambda v, m: m.__setitem__(7, [m[7][0], 263]), "merge 7 is a list"),
            (lambda v, m: m.__setitem__(7, (m[7][0], 263, 0)), r"merge 7 is \(list, int, int\)"),
            (lambda v, m: m.__setitem__(7, ("ab", 263)), r"merge 7 is \(str, int\)"),
            (lambda v, m: m.__setitem__(7, (m[7][0], 264)), "merge 7 makes the id 264, expected 263"),
            (lambda v, m: m.__setitem__(7, (m[7][0], "263")), "merge 7 makes the id str"),
            (lambda v, m: m.__setitem__(7, (m[7][0], True)), "merge 7 makes the id bool"),
            (lambda v, m: m.__setitem__(7, ([97], 263)), "merge 7 has 1 parts"),
            (lambda v, m: m.__setitem__(7, ([97, "a"], 263)), "merge 7 has a part that is no number"),
            (lambda v, m: m.__setitem__(7, ([97, 98.0], 263)), "merge 7 has a part that is no number"),
            (lambda v, m: m.__setitem__(7, ([-1, 97], 263)), "merge 7 has other letters"),
            (lambda v, m: m.__setitem__(7, ([97, 256], 263)), "others have ids from 256"),
        ],
    )
    def test_expanded_bytes(self, tmp_path, merges, change, match):
        vocabulary, parts = reference_data(merges, "bytes")
        change(vocabulary, parts)
        self.refuse(tmp_path, (vocabulary, parts), match)

    @pytest.mark.parametrize(
        ("pair", "match"),
        [
            ([97, 263], "merge 7 uses the id 263"),  # itself
            ([97, 300], "merge 7 uses the id 300"),  # a later one
            ([97, 10**12], "merge 7 uses the id 1000000000000"),
            ([3, 97], "merge 7 uses the id 3"),  # a byte that never occurs
            ([-97, 97], "merge 7 uses the id -97"),
            ([97, 122], "merge 7 joins 97 and 122"),
        ],
    )
    def test_pairs(self, tmp_path, merges, pair, match):
        vocabulary, parts = reference_data(merges, "pair")
        parts[7] = (pair, 263)
        self.refuse(tmp_path, (vocabulary, parts), match)

    def test_letters_that_no_training_gives(self, tmp_path):
        merges = np.array([[0, 1], [2, 3], [26, 27]], dtype=np.uint32)
        vocabulary, parts = reference_data(merges, "bytes")
        vocabulary[258] = "xyz"
        parts[2] = (list(b"xyz"), 258)
        self.refuse(tmp_path, (vocabulary, parts), "merge 2, the token 'xyz', is 3 tokens of the merges before it")

    def test_shared_values_are_not_expanded(self, tmp_path):
        # 20,000 entries of one text of 60,000 letters: 1.2 GB if anything joined them.
        count = 20_000
        text, parts = "ab" * 30_000, list(b"ab" * 30_000)
        vocabulary = {index: chr(index) if index < 256 else text for index in range(256 + count)}
        self.refuse(tmp_path, (vocabulary, [(parts, 256 + rank) for rank in range(count)]), "the same letters")

    def test_files(self, tmp_path):
        with pytest.raises(EcgFileError, match="no such file"):
            read_reference_vocabulary(tmp_path / "none.pkl")
        (tmp_path / "best_model.pth").write_bytes(b"PK\x03\x04archive")
        with pytest.raises(EcgFileError, match="give a checkpoint to `ecgbyte convert checkpoint`"):
            read_reference_vocabulary(tmp_path / "best_model.pth")
        large = tmp_path / "large.pkl"
        with large.open("wb") as file:
            file.truncate(17 << 20)
        with pytest.raises(EcgFileError, match="more than 16777216 bytes"):
            read_reference_vocabulary(large)


class TestFolder:
    def test_loads_and_encodes_as_the_twin(self, tmp_path, merges, capsys):
        source = write(tmp_path / "tokenizer.pkl", reference_data(merges, "bytes"))
        assert main(["convert", "tokenizer", str(source), "--output", str(tmp_path / "out")]) == 0
        said = capsys.readouterr().out
        assert f"{len(merges)} merges (given as bytes)" in said and "own minimum and maximum" in said
        processor = EcgByteProcessor.from_pretrained(tmp_path / "out")
        assert processor.feature_extractor.profile == "reference"
        assert processor.tokenizer.calibration == EcgCalibration.minmax()
        assert processor.tokenizer.algorithm == "greedy" and processor.tokenizer.lead_boundary == "cross"
        generator = np.random.default_rng(1)
        signal = np.cumsum(generator.integers(-1, 2, (12, 800)), axis=1) / 50.0
        ids = processor.tokenizer.to_reference_ids(processor.tokenizer.encode_signal(signal))
        expected = ReferenceTwin(source).encode(letters(signal, signal.min(), signal.max()))
        assert ids.tolist() == expected and len(expected) < signal.size / 2

    def test_says_where_it_came_from(self, tmp_path, merges):
        source = write(tmp_path / "tokenizer.pkl", reference_data(merges, "pair"))
        report = convert_tokenizer(source, tmp_path / "out")
        stored = json.loads((tmp_path / "out" / "conversion.json").read_text())
        assert stored == json.loads(json.dumps(report))
        assert stored["source"] == "tokenizer.pkl" and len(stored["sha256"]) == 64
        assert (stored["merge_form"], stored["merges"]) == ("pair", len(merges))
        assert (stored["reference_ids"], stored["dead_ids"]) == (256 + len(merges), 230)
        assert str(tmp_path) not in json.dumps(stored)

    def test_with_percentiles_rate_and_leads(self, tmp_path, merges, capsys):
        source = write(tmp_path / "tokenizer.pkl", reference_data(merges, "bytes"))
        np.save(tmp_path / "stats.npy", {"percentile_1": np.float64(-0.75), "percentile_99": np.float64(1.25)})
        arguments = ["--percentiles", str(tmp_path / "stats.npy"), "--sampling-rate", "125", "--leads", "II", "V1"]
        assert main(["convert", "tokenizer", str(source), "--output", str(tmp_path / "out"), *arguments]) == 0
        assert "-1.25 to 1.75 mV" in capsys.readouterr().out
        tokenizer = EcgByteProcessor.from_pretrained(tmp_path / "out").tokenizer
        assert tokenizer.calibration == EcgCalibration("percentile", -1.25, 1.75)
        assert tokenizer.sampling_rate == 125 and tokenizer.leads == ("II", "V1")

    def test_no_folder_is_overwritten_or_left_in_half(self, tmp_path, merges):
        source = write(tmp_path / "tokenizer.pkl", reference_data(merges, "bytes"))
        (tmp_path / "out").mkdir()
        convert_tokenizer(source, tmp_path / "out")  # an empty one is filled
        with pytest.raises(EcgFileError, match="not empty"):
            convert_tokenizer(source, tmp_path / "out")
        with pytest.raises(EcgError):
            convert_tokenizer(source, tmp_path / "other", leads=["II", "II"])
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tokenizer.pkl"]

    def test_options_of_checkpoints_are_refused(self, tmp_path, capsys):
        assert main(["convert", "tokenizer", "x.pkl", "--output", str(tmp_path / "o"), "--stage", "1"]) == 1
        assert "--stage does not apply to convert tokenizer" in capsys.readouterr().err
