import pickle

import hostile_pickles
import numpy as np
import pytest

from ecgbyte_hf.hub import restricted_pickle
from ecgbyte_hf.hub.restricted_pickle import Call, Name, read_content, read_plain_pickle
from ecgbyte_hf.models.errors_ecg_byte import EcgFileError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
PLAIN = [
    None,
    True,
    False,
    0,
    -1,
    255,
    256,
    65_536,
    -(2**31),
    2**62,
    -(2**63),
    1.5,
    "text",
    "\u00e4\U0001f600",
    "x" * 300,
    [],
    (),
    {},
    (1,),
    (1, 2, 3),
    (1, 2, 3, 4, 5),
    [[1, 2], [3]],
    {"a": 1, 2: ["b", (3.0, None)]},
    list(range(5_000)),
    {index: str(index) for index in range(3_000)},
]


def refuse(content: bytes, match: str | None = None) -> None:
    with pytest.raises(EcgFileError, match=match) as caught:
        read_plain_pickle(content, "file.pkl")
    message = str(caught.value)
    assert message.startswith("file.pkl: ")
    assert len(message) < 400 and message.isprintable()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_data_as_pickle_reads_it(protocol):
    for value in PLAIN:
        content = pickle.dumps(value, protocol)
        got = read_plain_pickle(content, "file.pkl")
        assert got == value and repr(got) == repr(pickle.loads(content))


def test_bytes_and_shared_parts():
    assert read_plain_pickle(pickle.dumps([b"", b"\x00\xff", b"x" * 300], 3), "file.pkl") == [
        b"",
        b"\x00\xff",
        b"x" * 300,
    ]
    shared = [1, 2]
    first, second = read_plain_pickle(pickle.dumps((shared, shared)), "file.pkl")
    assert first is second and first == shared


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_is_run(tmp_path, protocol):
    mark = tmp_path / "mark"
    hostile = hostile_pickles.running(mark, protocol)
    for content, wanted in hostile.values():
        refuse(content, f"(?s)asks for '.*{wanted}'.*expected no global at all.*Nothing of it was run")
    assert not mark.exists()


def test_the_mark_works(tmp_path):
    """What the tests above refuse does run in `pickle`."""
    mark = tmp_path / "mark"
    for name in ("memo", "stack global", "popped", "instance", "object of class"):
        pickle.loads(hostile_pickles.written_by_hand(mark)[name][0])
        assert mark.exists(), name
        mark.unlink()


@pytest.mark.parametrize("name", hostile_pickles.written_by_hand(hostile_pickles.Path()))
def test_programs_by_hand(tmp_path, name):
    mark = tmp_path / "mark"
    content, wanted = hostile_pickles.written_by_hand(mark)[name]
    refuse(content, wanted)
    assert not mark.exists()


BOMBS = hostile_pickles.bombs()
DAMAGED = hostile_pickles.damaged()


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name, monkeypatch):
    content, wanted = BOMBS[name]
    if name == "many objects":  # a million takes seconds
        monkeypatch.setattr(restricted_pickle, "MAX_OBJECTS", 20_000)
    if name == "a list in itself":  # small; its shape is for the caller to refuse
        value = read_plain_pickle(content, "file.pkl")
        assert value[0] is value
    else:
        refuse(content, wanted)


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged(name):
    refuse(*DAMAGED[name])


def test_every_truncation_is_refused():
    content = pickle.dumps(({97: "a", 256: "aa"}, [([97, 97], 256)]))
    assert read_plain_pickle(content, "file.pkl")
    for length in range(len(content)):
        refuse(content[:length])


def test_every_changed_byte_is_read_or_refused():
    content = pickle.dumps(({97: "a", 256: "aa"}, [([97, 97], 256)], 1.5, None))
    generator = np.random.default_rng(0)
    for _ in range(3_000):
        changed = bytearray(content)
        changed[generator.integers(len(content))] = generator.integers(256)
        try:
            read_plain_pickle(bytes(changed), "file.pkl")
        except EcgFileError:
            continue


def test_admitted_names_are_described_and_not_called(tmp_path):
    mark = tmp_path / "mark"
    content, _ = hostile_pickles.written_by_hand(mark)["stack global"]
    call = read_plain_pickle(content, "file.pkl", admitted=["posix.system"])
    assert type(call) is Call and call.name == Name("posix.system")
    assert call.arguments == (hostile_pickles.command(mark),) and call.state is None
    assert not mark.exists()
    with pytest.raises(EcgFileError, match="expected numpy.dtype"):
        read_plain_pickle(content, "file.pkl", admitted=["numpy.dtype"])


def test_a_call_is_built_once():
    head = b"\x80\x02cnumpy\ndtype\n)R}b"
    call = read_plain_pickle(head + b".", "file.pkl", admitted=["numpy.dtype"])
    assert call.state == {}
    with pytest.raises(EcgFileError, match="builds numpy.dtype twice"):
        read_plain_pickle(head + b"}b.", "file.pkl", admitted=["numpy.dtype"])


def test_files(tmp_path):
    path = tmp_path / "file.pkl"
    with pytest.raises(EcgFileError, match="no such file"):
        read_content(path, 10)
    with pytest.raises(EcgFileError, match="no such file, or no ordinary one"):
        read_content("/dev/zero", 10)
    path.write_bytes(b"x" * 10)
    assert read_content(path, 10) == b"x" * 10
    with pytest.raises(EcgFileError, match="more than 9 bytes"):
        read_content(path, 9)
