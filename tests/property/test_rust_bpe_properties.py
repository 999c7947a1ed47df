"""The Rust core at its border: any layout of an array gives the twin's result, anything else a typed error."""

import copy
import itertools
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time

import bpe_twin
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import rust_bpe

EXAMPLES = settings(
    max_examples=int(os.environ.get("ECGBYTE_HYPOTHESIS_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],  # on a machine that is busy with other things
)
NUM_SYMBOLS = 4


class Labelled(np.ndarray):
    """An array of a class of its own."""


def every_other(values):
    wide = np.zeros((*values.shape[:-1], 2 * values.shape[-1]), dtype=values.dtype)
    wide[..., ::2] = values
    return wide[..., ::2]


def reversed_in_memory(values):
    return values[..., ::-1].copy()[..., ::-1]


def column(values):
    """Neighbouring values lie far apart."""
    return np.stack([values, values], axis=-1)[..., 1]


def unaligned(values):
    packed = np.zeros(values.shape, dtype=[("flag", np.uint8), ("values", values.dtype)])
    packed["values"] = values
    return packed["values"]


def read_only(values):
    values = values.copy()
    values.flags.writeable = False
    return values


def mapped(values):
    """In a file, as large corpora are."""
    if values.size == 0:
        return values
    with tempfile.TemporaryFile() as file:
        file.write(values.tobytes())
        file.flush()
        return np.memmap(file, dtype=values.dtype, mode="r", shape=values.shape)


LAYOUTS = [
    np.ascontiguousarray,
    np.asfortranarray,
    every_other,
    reversed_in_memory,
    column,
    unaligned,
    read_only,
    mapped,
    lambda values: values.view(Labelled),
]
layouts = st.sampled_from(LAYOUTS)
symbols = hnp.arrays(np.uint8, st.integers(0, 60), elements=st.integers(0, NUM_SYMBOLS - 1)) | st.tuples(
    st.lists(st.integers(0, NUM_SYMBOLS - 1), min_size=1, max_size=3), st.integers(0, 40)
).map(lambda period: np.array(period[0] * period[1], dtype=np.uint8))
vocabularies = st.lists(symbols, max_size=3).map(lambda records: bpe_twin.train(records, 25, NUM_SYMBOLS))


class TestAnyLayout:
    @EXAMPLES
    @given(records=st.lists(st.tuples(symbols, layouts), max_size=4), num_merges=st.integers(0, 30))
    def test_train(self, records, num_merges):
        expected = bpe_twin.train([record for record, _ in records], num_merges, NUM_SYMBOLS)
        laid_out = (layout(record) for record, layout in records)
        merges = rust_bpe.train(laid_out, num_merges, num_symbols=NUM_SYMBOLS)
        assert list(map(tuple, merges.tolist())) == expected

    @EXAMPLES
    @given(pairs=vocabularies, record=symbols)
    def test_encode(self, pairs, record):
        bpe = rust_bpe.Bpe(pairs, NUM_SYMBOLS)
        greedy = bpe_twin.encode_greedy(record, pairs, NUM_SYMBOLS)
        ranked = bpe_twin.encode_bpe(record, pairs, NUM_SYMBOLS)
        all_laid_out = [layout(record) for layout in LAYOUTS]
        for laid_out in all_laid_out:
            assert bpe.encode_greedy(laid_out).tolist() == greedy
            assert bpe.encode_bpe(laid_out).tolist() == ranked
            np.testing.assert_array_equal(laid_out, record)
        for ids in bpe.encode_greedy_batch(all_laid_out, num_threads=2):
            assert ids.tolist() == greedy
        for ids in bpe.encode_bpe_batch(iter(all_laid_out), num_threads=2):
            assert ids.tolist() == ranked

    @EXAMPLES
    @example(pairs=[], choices=[0], dtype="i8")  # one value, contiguous whatever its address
    @given(
        pairs=vocabularies,
        choices=st.lists(st.integers(0, 10_000), max_size=30),
        dtype=st.sampled_from(["u2", ">u2", "i4", ">i4", ">u4", "i8", ">i8", "u8"]),
    )
    def test_decode_and_spans(self, pairs, choices, dtype):
        bpe = rust_bpe.Bpe(pairs, NUM_SYMBOLS)
        tokens = bpe_twin.tokens(pairs, NUM_SYMBOLS)
        ids = [choice % len(tokens) for choice in choices]
        stops = np.cumsum([len(tokens[token]) for token in ids], dtype=np.int64).tolist()
        spans = [list(span) for span in zip([0, *stops], stops, strict=False)]
        for layout in LAYOUTS:
            laid_out = layout(np.array(ids, dtype=dtype))
            assert bpe.decode(laid_out).tobytes() == b"".join(tokens[token] for token in ids)
            assert bpe.spans(laid_out).tolist() == spans

    @EXAMPLES
    @given(merges=st.lists(st.tuples(*[st.integers(0, NUM_SYMBOLS - 1)] * 2), unique=True, max_size=9))
    def test_merges(self, merges):
        for dtype, layout in itertools.product(("u1", "u4", ">u4", "i8"), LAYOUTS):
            laid_out = layout(np.array(merges, dtype=dtype).reshape(-1, 2))
            assert rust_bpe.Bpe(laid_out, NUM_SYMBOLS).merges.tolist() == [list(pair) for pair in merges]

    @EXAMPLES
    @given(
        pairs=vocabularies,
        values=hnp.arrays(
            st.sampled_from([np.float32, np.float64]),
            hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=20),
            elements=st.floats(-2, 2, width=32),
        ),
        algorithm=st.sampled_from(["greedy", "bpe"]),
        lead_boundary=st.sampled_from(["cross", "split"]),
    )
    def test_signal(self, pairs, values, algorithm, lead_boundary):
        symbols = bpe_twin.quantize(values, -1.1, 1.3, NUM_SYMBOLS)
        encode = {"greedy": bpe_twin.encode_greedy, "bpe": bpe_twin.encode_bpe}[algorithm]
        leads = [symbols.ravel()] if lead_boundary == "cross" else symbols
        expected = [token for lead in leads for token in encode(lead, pairs, NUM_SYMBOLS)]

        bpe = rust_bpe.Bpe(pairs, NUM_SYMBOLS)
        how = {"algorithm": algorithm, "lead_boundary": lead_boundary}
        all_laid_out = [layout(values) for layout in LAYOUTS]
        for laid_out in all_laid_out:
            np.testing.assert_array_equal(rust_bpe.quantize(laid_out, -1.1, 1.3, num_symbols=NUM_SYMBOLS), symbols)
            assert bpe.encode_signal(laid_out, -1.1, 1.3, **how).tolist() == expected
        for ids in bpe.encode_signal_batch(all_laid_out, -1.1, 1.3, **how, num_threads=2):
            assert ids.tolist() == expected


BPE = rust_bpe.Bpe([(0, 1), (26, 1)])
SYMBOLS = np.zeros(3, dtype=np.uint8)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3), dtype=">f4"),
        np.zeros((2, 3), dtype=">f8"),
        np.zeros((2, 3), dtype=np.float16),
        np.zeros((2, 3), dtype=np.longdouble),
        np.zeros((2, 3), dtype=complex),
        np.zeros((2, 3), dtype=np.int16),
        np.zeros((2, 3), dtype=object),
        np.array([["a"]]),
        np.zeros(3, dtype=[("x", np.float32)]),
        [[0.0]],
        0.0,
        None,
        memoryview(b"abcd"),
    ],
)
def test_what_is_no_signal_is_a_type_error(array):
    expected = "expected a float32 or float64 array; convert it with numpy first"
    with pytest.raises(TypeError, match=expected):
        rust_bpe.quantize(array, 0, 1)
    with pytest.raises(TypeError, match=expected):
        BPE.encode_signal(array, 0, 1)
    with pytest.raises(TypeError, match=f"signal 1: .*{expected}"):
        BPE.encode_signal_batch([np.zeros((1, 1)), array], 0, 1)


@pytest.mark.parametrize(
    "array",
    [
        SYMBOLS.astype(np.int8),
        SYMBOLS.astype(bool),
        SYMBOLS.astype(np.uint16),
        SYMBOLS.astype(object),
        SYMBOLS.view("S3"),
        b"abc",
        "abc",
        3,
    ],
)
def test_what_are_no_symbols_is_a_type_error(array):
    expected = "expected a 1-D uint8 array of symbols; convert it with numpy first"
    for encode in (BPE.encode_greedy, BPE.encode_bpe):
        with pytest.raises(TypeError, match=expected):
            encode(array)
    with pytest.raises(TypeError, match=f"record 1: .*{expected}"):
        rust_bpe.train([SYMBOLS, array], 1)


def test_the_wrong_number_of_dimensions_is_a_value_error():
    for array in (np.array(3, dtype=np.uint8), SYMBOLS.reshape(1, 3)):
        for encode in (BPE.encode_greedy, BPE.encode_bpe):
            with pytest.raises(ValueError, match="-D: expected 1-D; reshape it first"):
                encode(array)
    for array in (np.array(3.0), np.zeros((1, 1, 1), dtype=np.float32)):
        with pytest.raises(ValueError, match="-D: expected 1-D or 2-D; reshape it first"):
            rust_bpe.quantize(array, 0, 1)
    for ids in (3, np.array(3), [[1]]):
        with pytest.raises(ValueError, match="-D: expected 1-D; reshape it first"):
            BPE.decode(ids)


@pytest.mark.parametrize("ids", [["a"], [None], [0.5], [True], [2**70], [1j], [{}], "abc", None, object()])
def test_what_are_no_integers_is_a_type_error(ids):
    for method in (BPE.decode, BPE.spans, rust_bpe.Bpe):
        with pytest.raises(TypeError, match="expected integers"):
            method(ids)


@pytest.mark.parametrize("number", [1.0, "1", None, [1]])
def test_options_are_integers(number):
    calls = [
        lambda: rust_bpe.train([SYMBOLS], number),
        lambda: rust_bpe.train([SYMBOLS], 1, num_symbols=number),
        lambda: rust_bpe.Bpe([], number),
        lambda: BPE.token(number),
    ]
    if number is not None:
        calls += [
            lambda: rust_bpe.train([SYMBOLS], 1, num_threads=number),
            lambda: rust_bpe.train([SYMBOLS], 1, max_token_length=number),
            lambda: BPE.encode_greedy_batch([SYMBOLS], num_threads=number),
        ]
    for call in calls:
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            call()


@pytest.mark.parametrize("number", [-(2**62), -1, 2**62])
def test_numbers_far_outside_are_value_errors(number):
    # A token may be as long as it likes.
    names = ["num_merges", "num_symbols", "num_threads"] + ["max_token_length"] * (number < 0)
    for name in names:
        with pytest.raises(ValueError, match=f"{name} is {number}: expected"):
            rust_bpe.train([SYMBOLS], **({"num_merges": 1} | {name: number}))
    with pytest.raises(ValueError, match=f"num_symbols is {number}: expected"):
        rust_bpe.Bpe([], number)
    with pytest.raises(KeyError, match=f"there is no token {number}: expected 0 to 27"):
        BPE.token(number)


@pytest.mark.parametrize("num_threads", [0, 1025, 10**9])
@pytest.mark.parametrize("items", [0, 1, 2])
def test_no_threads_and_thousands_are_refused(num_threads, items):
    for call in (
        lambda: rust_bpe.train([SYMBOLS] * items, 1, num_threads=num_threads),
        lambda: BPE.encode_greedy_batch([SYMBOLS] * items, num_threads=num_threads),
        lambda: BPE.encode_bpe_batch([SYMBOLS] * items, num_threads=num_threads),
        lambda: BPE.encode_signal_batch([np.zeros((1, 1))] * items, 0, 1, num_threads=num_threads),
    ):
        with pytest.raises(ValueError, match=f"num_threads is {num_threads}: expected 1 to 1024"):
            call()


def test_numbers_that_no_machine_word_holds():
    for name in ("num_merges", "num_symbols", "num_threads", "max_token_length"):
        with pytest.raises(OverflowError):
            rust_bpe.train([SYMBOLS], **({"num_merges": 1} | {name: 2**70}))
    with pytest.raises(OverflowError):
        BPE.token(2**70)


def test_limits_that_nothing_reaches():
    expected = [[0, 0], [26, 0]]
    assert rust_bpe.train([SYMBOLS], 2**31 - 30).tolist() == expected
    assert rust_bpe.train([SYMBOLS], 9, max_token_length=2**62).tolist() == expected


class TestRecordsFromAGenerator:
    def test_what_is_written_into_an_array_after_its_turn_is_not_learnt(self):
        records = [np.array([0, 1, 0, 1], dtype=np.uint8), np.array([2, 2], dtype=np.uint8)]
        expected = rust_bpe.train(records, 9, num_symbols=3)

        def one_buffer():
            buffer = np.zeros(4, dtype=np.uint8)
            for record in records:
                buffer[: len(record)] = record
                yield buffer[: len(record)]
                buffer[:] = 255

        np.testing.assert_array_equal(rust_bpe.train(one_buffer(), 9, num_symbols=3), expected)

    @pytest.mark.parametrize("error", [LookupError, KeyboardInterrupt, SystemExit, GeneratorExit])
    @pytest.mark.parametrize("after", [0, 1, 3000])
    def test_what_it_raises_comes_out(self, error, after):
        def records():
            for _ in range(after):
                yield SYMBOLS
            raise error("from the generator")

        with pytest.raises(error, match="from the generator"):
            rust_bpe.train(records(), 9)
        with pytest.raises(error, match="from the generator"):
            BPE.encode_bpe_batch(records())

    def test_a_wrong_record_in_the_middle_is_named_and_nothing_after_it_is_taken(self):
        taken = []

        def records():
            for record in (SYMBOLS, "abc", SYMBOLS):
                taken.append(record)
                yield record

        with pytest.raises(TypeError, match="record 1: got str"):
            rust_bpe.train(records(), 9)
        assert len(taken) == 2

    def test_the_core_may_be_used_meanwhile(self):
        def records():
            yield BPE.decode(BPE.encode_greedy(SYMBOLS))
            yield rust_bpe.quantize(np.zeros(3), 0, 1)

        def progress(*_):
            rust_bpe.train(records(), 9, num_threads=2)

        assert rust_bpe.train(records(), 9, progress=progress).tolist() == [[0, 0], [26, 0]]


class TestCopies:
    @pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
    def test_pickled(self, protocol):
        loaded = pickle.loads(pickle.dumps(BPE, protocol))
        assert loaded.num_symbols == BPE.num_symbols
        np.testing.assert_array_equal(loaded.merges, BPE.merges)

    @pytest.mark.parametrize("protocol", [0, 1])
    def test_old_protocols_are_refused(self, protocol):
        with pytest.raises(TypeError, match="cannot pickle 'Bpe' object"):
            pickle.dumps(BPE, protocol)

    def test_what_it_gives_away_is_a_copy(self):
        for bpe in (BPE, copy.deepcopy(BPE)):
            for array in (bpe.merges, bpe.token_lengths, bpe.token(27)):
                array.fill(9)
            assert bpe.merges.tolist() == [[0, 1], [26, 1]]
            assert bpe.token_lengths[-1] == 3
            assert bpe.token(27).tolist() == [0, 1, 1]


class TestCtrlC:
    """Ctrl-C in the middle of a training that takes ten seconds and more."""

    @pytest.mark.parametrize("num_threads", [1, 2])
    @pytest.mark.parametrize("num_symbols", [6, 256])
    def test_ends_training_soon(self, num_threads, num_symbols):
        # Few symbols: scans, for a long time; 256: lists from the start.
        length = 60_000_000 if num_symbols == 6 else 2_000_000
        record = np.random.default_rng(0).integers(0, num_symbols, length, dtype=np.uint8)
        started = threading.Event()
        pressed = []

        def press():
            started.wait()
            pressed.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=press)
        thread.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                rust_bpe.train(
                    [record],
                    10_000_000,
                    num_symbols=num_symbols,
                    num_threads=num_threads,
                    progress=lambda *_: started.set(),
                )
            # It takes 0.2 s; a machine that is busy with other things may need longer.
            assert time.monotonic() - pressed[0] < 30
        finally:
            started.set()
            thread.join()
        assert rust_bpe.train([SYMBOLS], 9, num_threads=num_threads).tolist() == [[0, 0], [26, 0]]


def run(script, timeout=60):
    """What a program of its own prints; it must end well and in time."""
    script = f"import os, threading\nimport numpy as np\nimport rust_bpe\n{script}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_may_use_threads_after_its_parent_did():
    script = """
records = [np.random.default_rng(seed).integers(0, 4, 5000).astype(np.uint8) for seed in range(8)]
def work():
    merges = rust_bpe.train(records, 50, num_threads=3)
    return [len(ids) for ids in rust_bpe.Bpe(merges).encode_bpe_batch(records, num_threads=3)]
expected = work()
child = os.fork()
if child == 0:
    os._exit(work() != expected)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run(script) == "0\n"


def test_a_thread_with_a_small_stack_is_enough():
    # Where others than glibc start threads, they have some hundred kilobytes.
    script = """
threading.stack_size(128 * 1024)
symbols = np.random.default_rng(0).integers(0, 26, 9000).astype(np.uint8)
def work():
    bpe = rust_bpe.Bpe(rust_bpe.train([symbols], 60, num_threads=2))
    print((bpe.decode(bpe.encode_greedy(symbols)) == symbols).all(), len(bpe.encode_bpe(symbols)) < 9000)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    assert run(script) == "True True\n"
