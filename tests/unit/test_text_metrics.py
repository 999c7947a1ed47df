"""Text metrics against values worked out by hand."""

import math
import socket
import sys

import nltk
import nltk.corpus
import pytest
from nltk.corpus.reader.wordnet import WordNetCorpusReader
from nltk.corpus.util import LazyCorpusLoader

from ecgbyte_hf.evaluation import text_metrics as module
from ecgbyte_hf.evaluation.text_metrics import (
    bert_scores,
    compute_text_metrics,
    find_wordnet,
    load_text_metrics,
    meteor,
    rouge,
    sentence_bleu,
    token_f1,
)
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgFileError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "sinus", "rhythm", "normal", "yes", "no"]


class Lemma:
    def __init__(self, name):
        self._name = name

    def name(self):
        return self._name


class Synset:
    def __init__(self, names):
        self._names = names

    def lemmas(self):
        return [Lemma(name) for name in self._names]


class SmallWordNet:
    """Two synonyms, and no other word."""

    def synsets(self, word):
        return [Synset(["fast", "quick"])] if word in ("fast", "quick") else []


@pytest.fixture
def wordnet(monkeypatch):
    monkeypatch.setattr(module, "find_wordnet", SmallWordNet)
    return SmallWordNet()


@pytest.fixture
def no_wordnet(monkeypatch, tmp_path):
    """Also where somebody downloaded it."""
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    monkeypatch.setattr(nltk.corpus, "wordnet", LazyCorpusLoader("wordnet", WordNetCorpusReader))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """The folder of a random BERT with two layers and ten words."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("encoder") / "bert"
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=16, **size)).save_pretrained(folder)
    BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)}).save_pretrained(folder)
    return folder


class TestOneText:
    def test_a_perfect_word_is_not_perfect(self, wordnet):
        """The fact that every table of the paper's convention has to be read with."""
        assert round(100 * sentence_bleu("yes", "yes")["bleu_4"], 2) == 17.78
        assert 100 * meteor("yes", "yes", wordnet) == 50.0

    def test_bleu(self):
        """Both 1-grams and the 2-gram are right, 3- and 4-grams count 0.1 of 1; two words instead of three."""
        short = math.exp(1 - 3 / 2)
        assert sentence_bleu("sinus rhythm", "normal sinus rhythm") == pytest.approx(
            {"bleu_1": short, "bleu_2": short, "bleu_3": short * 0.1 ** (1 / 3), "bleu_4": short * 0.01 ** (1 / 4)}
        )

    def test_meteor(self, wordnet):
        """Precision 1, recall 2/3, one chunk of two words."""
        mean = (2 / 3) / (0.9 + 0.1 * 2 / 3)
        assert meteor("sinus rhythm", "normal sinus rhythm", wordnet) == pytest.approx(mean * (1 - 0.5 * 0.5**3))
        assert meteor("quick", "fast", wordnet) == 0.5
        assert meteor("slow", "fast", wordnet) == 0.0

    def test_rouge(self):
        """Of "b a c" two words stand in the right order in "a b c", none of its pairs does."""
        assert rouge("b a c", "a b c") == pytest.approx({"rouge_1": 1.0, "rouge_2": 0.0, "rouge_l": 2 / 3})

    @pytest.mark.parametrize(
        ("prediction", "reference", "value"),
        [
            ("Yes.", "yes", 1.0),
            ("the sinus rhythm", "sinus  rhythm", 1.0),
            ("sinus sinus rhythm", "sinus rhythm", 4 / 5),
            ("sinus", "normal sinus rhythm", 2 / 4),
            ("no", "yes", 0.0),
            ("", "yes", 0.0),
            ("...", "yes", 0.0),
        ],
    )
    def test_token_f1(self, prediction, reference, value):
        assert token_f1(prediction, reference) == pytest.approx(value)

    def test_an_empty_text_scores_nothing(self, wordnet):
        scores = [*sentence_bleu("", "yes").values(), *rouge("", "yes").values(), meteor("", "yes", wordnet)]
        assert scores == [0.0] * 8


class TestAllTexts:
    def test_two_conventions(self, wordnet):
        """One perfect text of five words, one wrong word: 5 of 6 words, and all longer n-grams, are right."""
        long = "sinus rhythm with st changes"
        result = compute_text_metrics([long, "slow"], [long, "fast"])
        corpus, samples = result["corpus_level"], result["paper_per_sample"]
        assert corpus == pytest.approx(
            {f"bleu_{order}": (5 / 6) ** (1 / order) for order in (1, 2, 3, 4)} | {"token_f1": 5 / 6}
        )
        assert samples["bleu_4"] == samples["rouge_l"] == samples["token_f1"] == 0.5
        assert samples["meteor"] == pytest.approx((1 - 0.5 * 0.2**3) / 2)
        assert result["perfect_answers"]["paper_per_sample"]["bleu_4"] == pytest.approx((1 + 0.1**0.75) / 2)
        assert result["perfect_answers"]["corpus_level"]["bleu_4"] == pytest.approx(1.0)
        assert result["settings"]["corpus_bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")

    def test_equal_pairs_are_counted_each(self, wordnet):
        result = compute_text_metrics(["yes", "yes", "no", ""], ["yes", "yes", "yes", "yes"])
        assert result["n"] == 4 and result["empty_predictions"] == 1
        assert result["paper_per_sample"]["token_f1"] == 2 / 4
        assert result["paper_per_sample"]["meteor"] == 0.5 * 2 / 4
        assert result["corpus_level"]["token_f1"] == pytest.approx(2 * 2 / (3 + 4))

    def test_what_is_left_out_is_said_so(self, no_wordnet):
        assert find_wordnet() is None
        result = compute_text_metrics(["yes"], ["yes"])
        assert "nltk.download('wordnet')" in result["left_out"]["meteor"]
        assert "--bertscore-model" in result["left_out"]["bertscore"]
        for scores in (result["paper_per_sample"], result["perfect_answers"]["paper_per_sample"]):
            assert set(scores) == {*(f"bleu_{n}" for n in (1, 2, 3, 4)), "rouge_1", "rouge_2", "rouge_l", "token_f1"}

    @pytest.mark.parametrize(("predictions", "references"), [([], []), (["yes"], []), (["a", "b"], ["a"])])
    def test_texts_without_references(self, predictions, references):
        with pytest.raises(EcgDataError, match=f"got {len(predictions)} predictions and {len(references)} references"):
            compute_text_metrics(predictions, references)

    def test_as_a_module_of_evaluate_without_network(self, wordnet, monkeypatch):
        def refuse(*_):
            raise AssertionError("the network was asked")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        texts = {"predictions": ["yes", "sinus rhythm", ""], "references": ["yes", "normal sinus rhythm", "no"]}
        assert load_text_metrics().compute(**texts) == compute_text_metrics(**texts)

    def test_a_missing_package_names_the_extra(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
        with pytest.raises(ImportError, match=r"rouge_score.*`pip install 'ecgbyte-hf\[eval\]'"):
            rouge("yes", "yes")


class TestBertScore:
    def test_greedy_cosines(self, encoder):
        """Each token of one text against its nearest of the other, without [CLS] and [SEP] of either."""
        import torch
        from transformers import BertModel

        model = BertModel.from_pretrained(encoder).eval()

        def states(ids):
            with torch.no_grad():
                found = model(torch.tensor([[2, *ids, 3]]), output_hidden_states=True).hidden_states[1][0]
            return torch.nn.functional.normalize(found, dim=-1)

        similarity = (states([5, 6]) @ states([7, 5, 6]).T)[1:-1, 1:-1]
        precision, recall = (float(similarity.max(dim).values.mean()) for dim in (1, 0))
        pairs = module.Counter({("sinus rhythm", "normal sinus rhythm"): 2, ("", "yes"): 1})
        scores, layer = bert_scores(pairs, encoder, 1)
        f1 = 2 * precision * recall / (precision + recall)
        assert layer == 1
        assert [3 * value for value in scores.values()] == pytest.approx([2 * precision, 2 * recall, 2 * f1], abs=1e-5)

    def test_perfect_and_empty(self, encoder, wordnet):
        result = compute_text_metrics(["sinus rhythm", "  "], ["sinus rhythm", "no"], bertscore_model=encoder)
        samples = result["paper_per_sample"]
        for name in ("precision", "recall", "f1"):
            assert samples[f"bertscore_{name}"] == pytest.approx(0.5, abs=1e-6)
        assert result["settings"]["bertscore"]["layer"] == 2 and "bertscore" not in result["left_out"]

    def test_only_empty_texts(self, encoder):
        assert set(bert_scores(module.Counter({("", "yes"): 3}), encoder)[0].values()) == {0.0}

    def test_a_layer_that_is_not_there(self, encoder):
        with pytest.raises(EcgDataError, match="got layer 3 of .*, expected 1 to 2"):
            bert_scores(module.Counter({("yes", "yes"): 1}), encoder, 3)

    def test_a_name_is_not_downloaded(self):
        with pytest.raises(EcgFileError, match="roberta-large is not a folder with an encoder"):
            compute_text_metrics(["yes"], ["yes"], bertscore_model="roberta-large")

    def test_a_path_that_bert_score_misreads(self, tmp_path):
        folder = tmp_path / "chart50"
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        with pytest.raises(EcgFileError, match="takes .* for a T5 model"):
            bert_scores(module.Counter({("yes", "yes"): 1}), folder)
