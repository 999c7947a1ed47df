"""Pickles made to run something, to fill the memory, or to break a reader. Each names what its refusal must say."""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Asks:
    """Pickled, it calls a function when it is read."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call

    def __call__(self) -> None:
        """`pickle` wants to call what it is given as a function."""


class Plain:
    """An ordinary object."""

    def __init__(self) -> None:
        self.value = 1


def command(mark: Path) -> str:
    """A shell command that leaves a mark."""
    return f"touch {mark}"


def code(mark: Path) -> str:
    """Python that leaves a mark."""
    return f"open({str(mark)!r}, 'w').close()"


def running(mark: Path, protocol: int) -> dict[str, tuple[bytes, str]]:
    """Pickles that would leave a mark, with the global that each asks for."""
    return {
        name: (pickle.dumps(asked, protocol), wanted)
        for name, asked, wanted in [
            ("os.system", Asks(os.system, command(mark)), "system"),
            ("eval", Asks(eval, code(mark)), "eval"),
            ("exec", Asks(exec, code(mark)), "exec"),
            ("getattr", Asks(getattr, Asks(__import__, "os"), "system"), "getattr"),
            ("nested", Asks(Asks(getattr, Asks(__import__, "os"), "system"), command(mark)), "getattr"),
            ("in a list", [1, {"a": Asks(os.system, command(mark))}], "system"),
            ("in a vocabulary", ({97: "a"}, [([97], Asks(os.system, command(mark)))]), "system"),
        ]
    } | {
        "object": (pickle.dumps(Plain(), protocol), "_reconstructor" if protocol < 2 else "Plain"),
    }


def written_by_hand(mark: Path) -> dict[str, tuple[bytes, str]]:
    """Programs that `pickle.dumps` does not write."""
    shell = command(mark).encode()
    text = b"\x8c" + bytes([len(shell)]) + shell
    names = b"\x8c\x06system\x94\x8c\x05posix\x94"
    return {
        # The names lie in the memo, in a list that is left on the stack, and are called from there.
        "memo": (b"\x80\x04(" + names + b"lh\x01h\x00\x93" + text + b"\x85R.", "posix.system"),
        "stack global": (b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + text + b"\x85R.", "posix.system"),
        "popped": (b"\x80\x04" + names + b"00h\x01h\x00\x93" + text + b"\x85R.", "POP"),
        "dotted": (b"\x80\x04\x8c\x08builtins\x8c\x0beval.__call\x93.", "builtins.eval.__call"),
        "instance": (b"(S'" + shell + b"'\nios\nsystem\n.", "STRING"),
        "instance of text": (b"(V" + shell + b"\nios\nsystem\n.", "os.system"),
        "object of class": (b"(cos\nsystem\nV" + shell + b"\no.", "os.system"),
        "new object": (b"\x80\x02cos\nsystem\n)\x81.", "os.system"),
        "global without name": (b"\x80\x04]]\x93.", "without a name"),
        "call of a list": (b"\x80\x04])R.", "calls a list"),
        "persistent": (b"Pposix.system\n.", "PERSID"),
        "persistent of the stack": (b"\x80\x02K\x01Q.", "BINPERSID"),
        "extension": (b"\x80\x02\x82\x01.", "EXT1"),
        "out of band": (b"\x80\x05\x97.", "NEXT_BUFFER"),
        "bytearray": (b"\x80\x05\x96" + struct.pack("<Q", 1 << 60) + b".", "bytearray8|BYTEARRAY8|not a whole pickle"),
        "set": (b"\x80\x04\x8f.", "EMPTY_SET"),
        "build of data": (b"\x80\x04]}b.", "expected a Call"),
    }


def bombs() -> dict[str, tuple[bytes, str]]:
    """Small files that stand for much."""
    doubled: Any = []
    for _ in range(60):
        doubled = [doubled, doubled]
    return {
        "a billion laughs": (pickle.dumps(doubled), "nests"),
        "doubled by DUP": (b"\x80\x02]" + b"2a" * 1000 + b".", "DUP"),
        "deep lists": (b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".", "more than 10000"),
        "deep tuples": (b"\x80\x02)" + b"\x85" * 100_000 + b".", "nests"),
        "a deep key": (b"\x80\x02})" + b"\x85" * 100_000 + b"K\x01s.", "a key of type tuple"),
        "deep marks": (b"\x80\x02" + b"(" * 50_000 + b".", "nests"),
        "a list in itself": (b"\x80\x02]q\x00h\x00a.", ""),
        "many objects": (b"\x80\x02](" + b"]" * 9_000 + b"e" + (b"(" + b"]" * 9_000 + b"e") * 2 + b".", "objects"),
        "a long number": (b"\x80\x02\x8b" + struct.pack("<i", 5000) + b"\x01" * 5000 + b".", "LONG4"),
        "a number of 255 bytes": (b"\x80\x02\x8a\xff" + b"\x01" * 255 + b".", "bits"),
        "a number of many digits": (b"I" + b"9" * 5000 + b"\n.", "not a whole pickle"),
        "claims bytes": (b"\x80\x03B" + struct.pack("<I", 2**32 - 1) + b"x.", "not a whole pickle"),
        "claims more bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.", "not a whole pickle"),
        "claims a text": (b"\x80\x03X" + struct.pack("<I", 2**32 - 1) + b"x.", "not a whole pickle"),
        "claims a frame": (b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"\x82\x01.", "EXT1"),
    }


def damaged() -> dict[str, tuple[bytes, str]]:
    """What no pickler ends with."""
    return {
        "empty": (b"", "not a whole pickle"),
        "no pickle": (b"PK\x03\x04 something else", "not a whole pickle"),
        "trailing": (pickle.dumps([1]) + b"\x00", "1 bytes behind the end"),
        "two pickles": (pickle.dumps([1]) + pickle.dumps([2]), "behind the end"),
        "nothing left": (b"\x80\x02.", "ends with 0 values"),
        "two left": (b"\x80\x02]].", "ends with 2 values"),
        "an open mark": (b"\x80\x02](.", "ends with 1 values"),
        "an empty stack": (b"\x80\x02a.", "not a whole pickle"),
        "below the mark": (b"\x80\x02](a.", "not a whole pickle"),
        "no such memo": (b"\x80\x02h\x07.", "not a whole pickle"),
        "append to a tuple": (b"\x80\x02)K\x01a.", "into a tuple"),
        "half an item": (b"\x80\x02}(K\x01u.", "without a value"),
        "a key twice": (b"\x80\x02}(K\x01K\x02K\x01K\x03u.", "there twice"),
        "not unicode": (b"\x80\x02X\x01\x00\x00\x00\xff.", "not a whole pickle"),
    }
