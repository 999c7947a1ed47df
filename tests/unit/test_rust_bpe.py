"""The Rust core against its plain twin, and its behaviour at the Python border."""

import copy
import itertools
import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path

import bpe_twin
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rust_bpe

EXAMPLES = settings(max_examples=int(os.environ.get("ECGBYTE_HYPOTHESIS_EXAMPLES", "60")), deadline=None)


def symbols_array(symbols):
    return np.array(symbols, dtype=np.uint8)


def random_records(count=6, length=400, num_symbols=5, seed=0):
    """Random walks: neighbouring symbols are alike, as in a signal."""
    steps = np.random.default_rng(seed).integers(-1, 2, (count, length)).cumsum(axis=1)
    return list((np.abs(steps) % num_symbols).astype(np.uint8))


def noise(length, num_symbols=26, seed=0):
    return np.random.default_rng(seed).integers(0, num_symbols, length).astype(np.uint8)


def arbitrary_records(num_symbols):
    """Noise, runs (flat lines) and short periods; empty records among them."""
    symbol = st.integers(0, num_symbols - 1)
    runs = st.lists(st.tuples(symbol, st.integers(1, 15)), max_size=6).map(
        lambda runs: [symbol for symbol, length in runs for _ in range(length)]
    )
    periods = st.tuples(st.lists(symbol, min_size=1, max_size=4), st.integers(0, 12)).map(
        lambda period: period[0] * period[1]
    )
    record = st.one_of(st.lists(symbol, max_size=40), runs, periods)
    return st.lists(record.map(symbols_array), max_size=5)


CORPORA = {
    "random": random_records(),
    "flat line": [np.full(length, 7, dtype=np.uint8) for length in (1, 2, 3, 64, 333)],
    "single symbol": [symbols_array([3])],
    "empty record": [symbols_array([])],
    "empty": [],
}


class TestTrain:
    @pytest.mark.parametrize("name", CORPORA)
    def test_equals_the_twin(self, name):
        merges = rust_bpe.train(CORPORA[name], 60)
        assert merges.dtype == np.uint32
        assert merges.shape == (len(merges), 2)
        assert list(map(tuple, merges.tolist())) == bpe_twin.train(CORPORA[name], 60)

    @EXAMPLES
    @given(
        records=arbitrary_records(3),
        num_merges=st.integers(0, 30),
        max_token_length=st.none() | st.integers(2, 9),
        num_threads=st.integers(1, 3),
    )
    def test_equals_the_twin_on_anything(self, records, num_merges, max_token_length, num_threads):
        merges = rust_bpe.train(
            records, num_merges, num_symbols=3, max_token_length=max_token_length, num_threads=num_threads
        )
        expected = bpe_twin.train(records, num_merges, 3, max_token_length or np.inf)
        assert list(map(tuple, merges.tolist())) == expected

    def test_stops_early_only_when_no_pair_is_left(self):
        assert rust_bpe.train([symbols_array([0, 1, 2, 3])], 99).tolist() == [[0, 1], [2, 3], [26, 27]]

    def test_every_thread_count_gives_the_same(self):
        # 160,000 symbols of an alphabet of 4: the first steps are above the threshold for threads.
        records = [noise(20_000, 4, seed) for seed in range(8)]
        expected = rust_bpe.train(records, 300, num_symbols=4, num_threads=1)
        for num_threads in (2, 3, 16, None):
            merges = rust_bpe.train(records, 300, num_symbols=4, num_threads=num_threads)
            np.testing.assert_array_equal(merges, expected)

    def test_takes_any_iterable_and_any_stride(self):
        records = random_records()
        expected = rust_bpe.train(records, 40)
        np.testing.assert_array_equal(rust_bpe.train((record for record in records), 40), expected)
        np.testing.assert_array_equal(rust_bpe.train(np.stack(records), 40), expected)
        strided = [np.repeat(record, 3)[::3] for record in records]
        reversed_twice = [record[::-1].copy()[::-1] for record in records]
        np.testing.assert_array_equal(rust_bpe.train(strided, 40), expected)
        np.testing.assert_array_equal(rust_bpe.train(reversed_twice, 40), expected)

    def test_progress_goes_from_none_to_all(self):
        calls = []
        rust_bpe.train(random_records(), 50, progress=lambda *call: calls.append(call))
        assert calls[0] == (0, 50)
        assert calls[-1] == (50, 50)
        assert calls == sorted(set(calls))

    def test_progress_ends_where_training_ends(self):
        calls = []
        rust_bpe.train([symbols_array([0, 1])], 50, progress=lambda *call: calls.append(call))
        assert calls[-1] == (1, 50)

    def test_an_exception_in_progress_comes_out(self):
        def fail(done, total):
            raise LookupError("from progress")

        with pytest.raises(LookupError, match="from progress"):
            rust_bpe.train(random_records(), 50, progress=fail)

    def test_an_exception_in_the_generator_comes_out(self):
        def records():
            yield symbols_array([0, 1])
            raise LookupError("from the generator")

        with pytest.raises(LookupError, match="from the generator"):
            rust_bpe.train(records(), 50)

    @pytest.mark.parametrize(
        ("record", "error", "message"),
        [
            (symbols_array([0, 26]), ValueError, "record 1: symbol 26 at position 1 .* expected 0 to 25"),
            (np.array([0, 1]), TypeError, "record 1: got an array of dtype int64: expected a 1-D uint8 array"),
            (symbols_array([[0], [1]]), ValueError, "record 1: the uint8 array is 2-D: expected 1-D"),
            ([0, 1], TypeError, "record 1: got list: expected a 1-D uint8 array"),
            (None, TypeError, "record 1: got NoneType: expected a 1-D uint8 array"),
        ],
    )
    def test_a_wrong_record_is_named(self, record, error, message):
        with pytest.raises(error, match=message):
            rust_bpe.train([symbols_array([0, 1]), record], 5)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"num_symbols": 0}, "num_symbols is 0: expected 1 to 256"),
            ({"num_symbols": 257}, "num_symbols is 257: expected 1 to 256"),
            ({"num_merges": -1}, "num_merges is -1: expected a number that is not negative"),
            ({"num_merges": 2**40}, "num_merges is 1099511627776: expected at most 2147483620"),
            ({"num_threads": 0}, "num_threads is 0: expected 1 to 1024"),
            ({"num_threads": 10**9}, "num_threads is 1000000000: expected 1 to 1024"),
            ({"max_token_length": 1}, "max_token_length is 1: expected at least 2"),
        ],
    )
    def test_a_wrong_option_is_named(self, options, message):
        with pytest.raises(ValueError, match=message):
            rust_bpe.train([symbols_array([0, 1])], **({"num_merges": 1} | options))

    def test_progress_must_be_callable(self):
        with pytest.raises(TypeError, match=r"progress is int: expected a function of \(done_merges, num_merges\)"):
            rust_bpe.train([symbols_array([0, 1])], 1, progress=3)


class TestWhileTraining:
    """What Python can do during `train`. All pairs of a long noise take 14 s, which no test waits for."""

    @pytest.fixture
    def busy(self):
        return [noise(2_000_000, 256)], 10_000_000

    def test_ctrl_c_in_progress(self, busy):
        with pytest.raises(KeyboardInterrupt):
            rust_bpe.train(*busy, num_symbols=256, progress=lambda *_: signal.raise_signal(signal.SIGINT))

    @pytest.mark.parametrize("num_threads", [1, 2])
    def test_ctrl_c_from_outside(self, busy, num_threads):
        # Only the main thread reacts to a signal, whichever thread it reaches.
        started = threading.Event()

        def interrupt():
            started.wait()
            signal.raise_signal(signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                rust_bpe.train(*busy, num_symbols=256, num_threads=num_threads, progress=lambda *_: started.set())
        finally:
            started.set()
            thread.join()

    def test_other_threads_run(self, busy):
        # With so long a switch interval nobody is made to hand over the GIL: the other thread can only
        # answer while the core has let go of it.
        called, answered = threading.Event(), threading.Event()

        def answer():
            called.wait()
            answered.set()

        def progress(done, total):
            if answered.is_set():
                raise StopIteration
            called.set()

        thread = threading.Thread(target=answer)
        thread.start()
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1000)
        try:
            with pytest.raises(StopIteration):
                rust_bpe.train(*busy, num_symbols=256, progress=progress)
        finally:
            sys.setswitchinterval(interval)
            called.set()
            thread.join()


@pytest.fixture(scope="module")
def bpe():
    return rust_bpe.Bpe(rust_bpe.train(random_records(), 80))


class TestBpe:
    @pytest.mark.parametrize("name", CORPORA)
    def test_encodings_equal_the_twins(self, name):
        merges = rust_bpe.train(CORPORA[name], 60)
        pairs = list(map(tuple, merges.tolist()))
        bpe = rust_bpe.Bpe(merges)
        for symbols in [*CORPORA[name], noise(300), noise(300, 5)]:
            greedy, ranked = bpe.encode_greedy(symbols), bpe.encode_bpe(symbols)
            assert greedy.dtype == ranked.dtype == np.uint32
            assert greedy.tolist() == bpe_twin.encode_greedy(symbols, pairs)
            assert ranked.tolist() == bpe_twin.encode_bpe(symbols, pairs)
            np.testing.assert_array_equal(bpe.decode(greedy), symbols)
            np.testing.assert_array_equal(bpe.decode(ranked), symbols)

    @EXAMPLES
    @given(learn=arbitrary_records(3), encode=arbitrary_records(3), num_merges=st.integers(0, 30))
    def test_encodings_equal_the_twins_on_anything(self, learn, encode, num_merges):
        pairs = bpe_twin.train(learn, num_merges, 3)
        bpe = rust_bpe.Bpe(pairs, 3)
        batches = zip(encode, bpe.encode_greedy_batch(encode), bpe.encode_bpe_batch(encode), strict=True)
        for symbols, greedy, ranked in batches:
            assert greedy.tolist() == bpe_twin.encode_greedy(symbols, pairs, 3)
            assert ranked.tolist() == bpe_twin.encode_bpe(symbols, pairs, 3)
            np.testing.assert_array_equal(bpe.decode(greedy), symbols)
            np.testing.assert_array_equal(bpe.decode(ranked), symbols)

    def test_describes_itself(self):
        bpe = rust_bpe.Bpe([(0, 1), (3, 1)], num_symbols=3)
        assert (bpe.num_symbols, bpe.num_merges, bpe.vocab_size) == (3, 2, 5)
        assert repr(bpe) == "Bpe(num_symbols=3, num_merges=2)"
        assert bpe.merges.dtype == bpe.token_lengths.dtype == np.uint32
        assert bpe.merges.tolist() == [[0, 1], [3, 1]]
        assert bpe.token_lengths.tolist() == [1, 1, 1, 2, 3]
        assert [bpe.token(token).tolist() for token in range(5)] == [[0], [1], [2], [0, 1], [0, 1, 1]]
        assert bpe.token(4).dtype == np.uint8

    def test_without_merges(self):
        for merges in ([], np.empty((0, 2), dtype=np.uint32)):
            bpe = rust_bpe.Bpe(merges)
            assert bpe.merges.shape == (0, 2)
            assert bpe.encode_greedy(symbols_array([5, 25])).tolist() == [5, 25]

    def test_spans(self):
        bpe = rust_bpe.Bpe([(0, 1), (3, 1)], num_symbols=3)
        spans = bpe.spans([4, 2, 3])
        assert spans.dtype == np.int64
        assert spans.tolist() == [[0, 3], [3, 4], [4, 6]]
        assert bpe.spans([]).shape == (0, 2)

    @pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint32, np.uint64])
    def test_ids_of_any_integer_type(self, bpe, dtype):
        ids = np.array([0, 30, 7, 81], dtype=dtype)
        np.testing.assert_array_equal(bpe.decode(ids), bpe.decode(ids.tolist()))
        np.testing.assert_array_equal(bpe.decode(ids[::-1]), bpe.decode(ids.tolist()[::-1]))

    def test_batches_equal_single_calls(self, bpe):
        records = random_records(seed=1)
        for single, batch in [
            (bpe.encode_greedy, bpe.encode_greedy_batch),
            (bpe.encode_bpe, bpe.encode_bpe_batch),
        ]:
            expected = [single(record).tolist() for record in records]
            for num_threads in (1, 2, None):
                assert [ids.tolist() for ids in batch(records, num_threads=num_threads)] == expected
            assert batch([]) == []

    def test_copies(self, bpe):
        symbols = random_records(seed=1)[0]
        for other in (copy.copy(bpe), copy.deepcopy(bpe)):
            assert other.num_symbols == bpe.num_symbols
            np.testing.assert_array_equal(other.merges, bpe.merges)
            np.testing.assert_array_equal(other.encode_greedy(symbols), bpe.encode_greedy(symbols))

    @pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
    def test_threads_work_in_a_forked_process(self, bpe):
        # A pool that outlives its call would be inherited without its threads, and waited for.
        records = random_records()
        bpe.encode_greedy_batch(records, num_threads=2)
        process = multiprocessing.get_context("fork").Process(
            target=bpe.encode_greedy_batch, args=(records,), kwargs={"num_threads": 2}
        )
        process.start()
        process.join(timeout=60)
        exitcode = process.exitcode
        process.kill()
        assert exitcode == 0

    @pytest.mark.parametrize(
        ("merges", "error", "message"),
        [
            ([(0, 3)], ValueError, "merge 0 joins token 3: expected ids 0 to 2"),
            ([(0, 1), (4, 0)], ValueError, "merge 1 joins token 4: expected ids 0 to 3"),
            ([(0, -1)], ValueError, "merge 0 joins token -1"),
            ([(0, 2**33)], ValueError, "merge 0 joins token 8589934592"),
            ([(0, 1), (0, 1)], ValueError, "merge 1 makes the symbols that token 3 already has"),
            ([(0, 1), (1, 2), (3, 2), (0, 4)], ValueError, "merge 3 makes the symbols that token 5 already has"),
            ([(0, 0), *((token, token) for token in range(3, 43))], ValueError, "vocabulary over 67108864 symbols"),
            ([0, 1], ValueError, r"merges has shape \[2\]: expected \(merges, 2\)"),
            ([(0, 1, 2)], ValueError, r"merges has shape \[1, 3\]: expected \(merges, 2\)"),
            ([(0.0, 1.0)], TypeError, "merges has dtype float64: expected integers"),
        ],
    )
    def test_damaged_merges_are_refused(self, merges, error, message):
        with pytest.raises(error, match=message):
            rust_bpe.Bpe(merges, num_symbols=3)

    def test_refusals_name_the_position(self, bpe):
        with pytest.raises(ValueError, match="symbol 26 at position 1 is outside the alphabet: expected 0 to 25"):
            bpe.encode_greedy(symbols_array([0, 26]))
        with pytest.raises(ValueError, match="sequence 1: symbol 99 at position 0"):
            bpe.encode_bpe_batch([symbols_array([0]), symbols_array([99])])
        with pytest.raises(TypeError, match="sequence 1: got str: expected a 1-D uint8 array"):
            bpe.encode_greedy_batch([symbols_array([0]), "abc"])
        with pytest.raises(TypeError, match="got an array of dtype float64: expected a 1-D uint8 array"):
            bpe.encode_greedy(np.zeros(3))
        with pytest.raises(ValueError, match="num_threads is 0"):
            bpe.encode_greedy_batch([], num_threads=0)

    @pytest.mark.parametrize("token", [-1, 106, 2**40])
    def test_an_unknown_id_is_a_key_error(self, bpe, token):
        with pytest.raises(KeyError, match=f"there is no token {token}: expected 0 to 105"):
            bpe.token(token)
        for method in (bpe.decode, bpe.spans):
            with pytest.raises(KeyError, match=f"position 1: there is no token {token}"):
                method([0, token])

    def test_ids_must_be_integers_in_one_dimension(self, bpe):
        with pytest.raises(TypeError, match="ids has dtype float64: expected integers"):
            bpe.decode([0.5])
        with pytest.raises(ValueError, match="ids is 2-D: expected 1-D"):
            bpe.decode([[0]])


SIGNAL = np.random.default_rng(3).normal(0, 1, (4, 250))


class TestQuantize:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize(
        "view",
        [
            lambda x: x,
            lambda x: x[0],
            lambda x: x.T,
            lambda x: np.asfortranarray(x),
            lambda x: x[::-1, ::-3],
            lambda x: x[1, ::2],
            lambda x: x[:, :0],
        ],
    )
    def test_equals_the_twin_for_any_layout(self, dtype, view):
        values = view(SIGNAL.astype(dtype))
        symbols = rust_bpe.quantize(values, -1.4, 1.7)
        assert symbols.dtype == np.uint8
        assert symbols.shape == values.shape
        np.testing.assert_array_equal(symbols, bpe_twin.quantize(values, -1.4, 1.7))

    def test_unaligned_values(self):
        packed = np.zeros(50, dtype=[("flag", np.uint8), ("value", np.float32)])
        packed["value"] = SIGNAL[0, :50]
        assert not packed["value"].flags.aligned
        np.testing.assert_array_equal(
            rust_bpe.quantize(packed["value"], -1, 1), bpe_twin.quantize(packed["value"], -1, 1)
        )

    @EXAMPLES
    @given(
        values=st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.floats(-3, 3), max_size=20),
        low=st.floats(-5, 5),
        width=st.just(0.0) | st.floats(0, 10),
        num_symbols=st.integers(1, 256),
    )
    def test_equals_the_twin_on_anything(self, values, low, width, num_symbols):
        values = np.array(values, dtype=np.float64)
        with np.errstate(over="ignore"):
            expected = bpe_twin.quantize(values, low, low + width, num_symbols)
        symbols = rust_bpe.quantize(values, low, low + width, num_symbols=num_symbols)
        np.testing.assert_array_equal(symbols, expected)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_a_value_that_is_not_finite_is_named(self, value):
        signal = SIGNAL.astype(np.float32)
        signal[2, 31] = value
        with pytest.raises(ValueError, match=r"signal\[2, 31\] is .*: expected finite values"):
            rust_bpe.quantize(signal, -1, 1)
        with pytest.raises(ValueError, match=r"signal\[31\] is .*: expected finite values"):
            rust_bpe.quantize(signal[2], -1, 1)

    @pytest.mark.parametrize("bounds", [(1, 0), (np.nan, 1), (0, np.inf)])
    def test_a_range_that_is_none(self, bounds):
        with pytest.raises(ValueError, match="the quantisation range is .*: expected finite low <= high"):
            rust_bpe.quantize(SIGNAL, *bounds)

    def test_other_arrays_are_refused(self):
        with pytest.raises(TypeError, match="got an array of dtype int64: expected a float32 or float64 array"):
            rust_bpe.quantize(np.arange(3), 0, 1)
        with pytest.raises(TypeError, match="got list: expected a float32 or float64 array"):
            rust_bpe.quantize([0.5], 0, 1)
        with pytest.raises(ValueError, match="the signal is 3-D: expected 1-D or 2-D"):
            rust_bpe.quantize(np.zeros((1, 1, 1)), 0, 1)


@pytest.fixture(scope="module")
def signal_bpe():
    return rust_bpe.Bpe(rust_bpe.train([rust_bpe.quantize(SIGNAL, -1, 1).ravel()], 60))


class TestEncodeSignal:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("algorithm", ["greedy", "bpe"])
    @pytest.mark.parametrize("lead_boundary", ["cross", "split"])
    def test_quantises_and_encodes(self, signal_bpe, dtype, algorithm, lead_boundary):
        signal = SIGNAL.astype(dtype)
        encode = {"greedy": signal_bpe.encode_greedy, "bpe": signal_bpe.encode_bpe}[algorithm]
        symbols = rust_bpe.quantize(signal, -1, 1)
        parts = [symbols.ravel()] if lead_boundary == "cross" else list(symbols)
        expected = np.concatenate([encode(part) for part in parts])
        for layout in (signal, np.asfortranarray(signal), np.repeat(signal, 2, axis=1)[:, ::2]):
            ids = signal_bpe.encode_signal(layout, -1, 1, algorithm=algorithm, lead_boundary=lead_boundary)
            assert ids.dtype == np.uint32
            np.testing.assert_array_equal(ids, expected)

    def test_split_keeps_tokens_in_one_lead(self):
        bpe = rust_bpe.Bpe([(0, 1)], num_symbols=2)
        signal = np.array([[0.0, 0.0], [1.0, 1.0]])
        assert bpe.encode_signal(signal, 0, 1).tolist() == [0, 2, 1]
        assert bpe.encode_signal(signal, 0, 1, lead_boundary="split").tolist() == [0, 0, 1, 1]

    @pytest.mark.parametrize("num_threads", [1, 2, None])
    def test_batches_equal_single_calls(self, signal_bpe, num_threads):
        signals = [SIGNAL, SIGNAL[:2, :100].astype(np.float32), SIGNAL[:, :0], SIGNAL[:, ::-1]]
        low, high = [-1.0, -2.0, 0.0, -1.5], np.array([1.0, 2.0, 1.0, 0.5])
        for bounds in ((low, high), (-1, 1), (low, 3.0)):
            batch = signal_bpe.encode_signal_batch(signals, *bounds, lead_boundary="split", num_threads=num_threads)
            each = zip(signals, *(np.broadcast_to(bound, 4) for bound in bounds), strict=True)
            expected = [signal_bpe.encode_signal(*single, lead_boundary="split") for single in each]
            assert [ids.tolist() for ids in batch] == [ids.tolist() for ids in expected]

    def test_refusals(self, signal_bpe):
        broken = SIGNAL.copy()
        broken[3, 7] = np.nan
        with pytest.raises(ValueError, match=r"^signal\[3, 7\] is NaN: expected finite values"):
            signal_bpe.encode_signal(broken, -1, 1)
        with pytest.raises(ValueError, match=r"^signal 1: signal\[3, 7\] is NaN"):
            signal_bpe.encode_signal_batch([SIGNAL, broken], -1, 1)
        with pytest.raises(ValueError, match=r"^signal 1: the quantisation range is \[2, 1\]"):
            signal_bpe.encode_signal_batch([SIGNAL, SIGNAL], [0, 2], [1, 1])
        with pytest.raises(ValueError, match="low has 3 values for 2 signals: expected one number, or one per signal"):
            signal_bpe.encode_signal_batch([SIGNAL, SIGNAL], [0, 0, 0], 1)
        with pytest.raises(ValueError, match=r"the signal is 1-D: expected 2-D \(leads, samples\)"):
            signal_bpe.encode_signal(SIGNAL[0], -1, 1)
        with pytest.raises(ValueError, match=r'algorithm is "fast": expected one of \["greedy", "bpe"\]'):
            signal_bpe.encode_signal(SIGNAL, -1, 1, algorithm="fast")
        with pytest.raises(ValueError, match=r'lead_boundary is "": expected one of \["cross", "split"\]'):
            signal_bpe.encode_signal(SIGNAL, -1, 1, lead_boundary="")


@pytest.mark.skipif("ECGBYTE_TEST_DATA" not in os.environ, reason="ECGBYTE_TEST_DATA is not set")
def test_real_recordings_equal_the_twin():
    wfdb = pytest.importorskip("wfdb")
    headers = sorted(Path(os.environ["ECGBYTE_TEST_DATA"]).glob("ptbxl/records500/*/*_hr.hea"))[:3]
    assert len(headers) == 3
    signals = [wfdb.rdrecord(header.with_suffix("")).p_signal.T[:, 500:700] for header in headers]
    low, high = np.percentile(np.concatenate(signals, axis=1), [1, 99]) + [-0.5, 0.5]
    records = []
    for values in signals:
        symbols = rust_bpe.quantize(values, low, high)
        np.testing.assert_array_equal(symbols, bpe_twin.quantize(values, low, high))
        records.append(symbols.ravel())

    pairs = bpe_twin.train(records, 60)
    merges = rust_bpe.train(records, 60)
    assert list(map(tuple, merges.tolist())) == pairs
    bpe = rust_bpe.Bpe(merges)
    for values, symbols in zip(signals, records, strict=True):
        ids = bpe.encode_signal(values, low, high)
        assert ids.tolist() == bpe_twin.encode_greedy(symbols, pairs)
        assert bpe.encode_signal(values, low, high, algorithm="bpe").tolist() == bpe_twin.encode_bpe(symbols, pairs)
        np.testing.assert_array_equal(bpe.decode(ids), symbols)
        assert len(ids) < len(symbols)
        assert all(start == stop for (_, start), (stop, _) in itertools.pairwise(bpe.spans(ids).tolist()))
