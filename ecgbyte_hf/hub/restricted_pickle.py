"""Reads pickles of plain data without running what they ask for.

A pickle is a program: `pickle.load` imports and calls whatever it names. An `Unpickler` whose `find_class` admits a
few names still calls what those stand for with the file's arguments: numpy's `_reconstruct` with a shape of 2**40
numbers, or a `dtype` whose state numpy trusts. So nothing of `pickle` is used here. `pickletools`, which only decodes,
takes the program apart, and the opcodes of plain data are interpreted on a stack of our own: nothing is imported,
nothing is called. Where a reader admits names, an opcode that would call one leaves a `Call`, a description of what
was asked for.

What is read: None, bool, int of 64 bits, float, str, bytes, list, tuple, dict. Everything else is refused by name:
other globals, persistent ids, extension codes, objects, sets, bytearrays, out-of-band buffers, `DUP`, `POP`.

Bounds: the caller bounds the file; here no container nests deeper than `MAX_DEPTH`, the stack holds `MAX_STACK` values
and at most `MAX_OBJECTS` containers and memo entries are made, so memory is proportional to the file. Values may be
shared (that is what makes the "billion laughs" of a few bytes): callers look at sizes before they walk or join.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError

#: Containers within containers. The released tokenizers have 4, percentiles 6.
MAX_DEPTH = 16
#: Values on the stack. Python writes containers in batches of 1,000 items, so 2,000 for a dictionary.
MAX_STACK = 10_000
#: Containers made and values remembered. A tokenizer of 6,000 merges needs 36,000.
MAX_OBJECTS = 1 << 20

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_INTEGERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1"}
_OTHER_VALUES = {
    "FLOAT",
    "BINFLOAT",
    "UNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE",
    "SHORT_BINBYTES",
    "BINBYTES",
}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class Name:
    """A global that a pickle asks for and that was admitted; it is not looked up.

    Attributes:
        path: Such as `numpy.dtype`.
    """

    path: str


@dataclass(eq=False)
class Call:
    """A call that a pickle asks for; it is not made.

    Attributes:
        name: What would be called.
        arguments: With what.
        state: What the result would be built from; `None` without.
    """

    name: Name
    arguments: tuple[Any, ...]
    state: Any = None


def read_content(path: str | Path, largest: int) -> bytes:
    """The bytes of a file.

    Args:
        path: The file.
        largest: Bytes it may have.

    Raises:
        EcgFileError: no file, not readable, or larger.
    """
    path = Path(path)
    if not path.is_file():
        raise EcgFileError(f"{path}: no such file, or no ordinary one; give the file that the paper's code wrote")
    try:
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise EcgFileError(f"{path}: cannot be read ({error.strerror or error})") from error
    if len(content) > largest:
        raise EcgFileError(f"{path}: more than {largest} bytes, which no file of this kind has; check what it is")
    return content


def read_plain_pickle(content: bytes, where: str, *, admitted: Collection[str] = ()) -> Any:
    r"""The plain data in a pickle.

    Args:
        content: The whole pickle, without anything behind it.
        where: The file, with which messages begin.
        admitted: Globals that may be asked for, such as `"numpy.dtype"`; they come back as `Name` and `Call`.

    Returns:
        Values as the module says. Parts of it may be shared.

    Raises:
        EcgFileError: the pickle is damaged, asks for anything else, or exceeds a bound.

    Example:
        >>> read_plain_pickle(b"\x80\x04]\x94(K\x01K\x02e.", "example.pkl")
        [1, 2]
    """
    machine = _Machine(where, frozenset(admitted))
    try:
        for opcode, argument, position in pickletools.genops(content):
            if opcode.name == "STOP":
                behind = len(content) - 1 - (position or 0)
                if behind:
                    raise EcgFileError(
                        f"{where}: {behind} bytes behind the end of the pickle; it is damaged, "
                        "or something was hidden there"
                    )
                return machine.result()
            machine.step(opcode.name, argument)
    # `pickletools` says so of a truncated or unknown opcode, a bad number or text; the stack of a program that takes
    # more than it gave is empty, and a memo entry that was never made is missing.
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        if isinstance(error, EcgFileError):
            raise
        raise EcgFileError(
            f"{where}: not a whole pickle ({type(error).__name__}: {str(error)[:100]!a}); copy or download it again"
        ) from error
    raise EcgFileError(f"{where}: the pickle has no end; copy or download it again")


class _Machine:
    """The stack, marks and memo of a pickle's program."""

    def __init__(self, where: str, admitted: frozenset[str]) -> None:
        self.where = where
        self.admitted = admitted
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.num_objects = 0

    def step(self, name: str, argument: Any) -> None:
        """Carry out one opcode."""
        if name in _CONSTANTS:
            self._push(_CONSTANTS[name])
        elif name in _INTEGERS:
            self._push_integer(argument)
        elif name in _OTHER_VALUES:
            self._push(argument)
        elif name in _EMPTY:
            self._push_new(_EMPTY[name]())
        elif name in _TUPLES:
            self._push_new(tuple(self._take(_TUPLES[name])))
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name in ("GLOBAL", "INST"):
            self._ask_for(str(argument).replace(" ", ".", 1), is_call=name == "INST")
        else:
            raise EcgFileError(
                f"{self.where}: the pickle has the opcode {name}, which plain data does not need; it is not the file "
                "that the paper's code writes, and was not read"
            )

    def result(self) -> Any:
        """What is left on the stack at the end."""
        if len(self.stack) != 1 or self.marks:
            raise EcgFileError(f"{self.where}: the pickle ends with {len(self.stack)} values, expected one; damaged")
        value = self.stack[0]
        _check_depth(value, self.where)
        return value

    # ---- values ------------------------------------------------------------------------------------------------

    def _push(self, value: Any) -> None:
        if len(self.stack) >= MAX_STACK:
            raise EcgFileError(f"{self.where}: the pickle nests or holds back more than {MAX_STACK} values; refused")
        self.stack.append(value)

    def _push_integer(self, value: Any) -> None:
        # Protocol 0 writes True as the INT "01".
        if not isinstance(value, bool) and not -(2**63) <= value < 2**63:
            raise EcgFileError(f"{self.where}: a number of {value.bit_length()} bits, expected at most 64; refused")
        self._push(value)

    def _push_new(self, container: Any) -> None:
        self._count()
        self._push(container)

    def _count(self) -> None:
        self.num_objects += 1
        if self.num_objects > MAX_OBJECTS:
            raise EcgFileError(f"{self.where}: the pickle makes more than {MAX_OBJECTS} objects; refused")

    def _take(self, number: int) -> list[Any]:
        """Take the topmost values, not beyond the last mark."""
        floor = self.marks[-1] if self.marks else 0
        if len(self.stack) - number < floor:
            raise IndexError("the stack is empty")
        taken = self.stack[len(self.stack) - number :]
        del self.stack[len(self.stack) - number :]
        return taken

    def _take_marked(self, _: Any = None) -> list[Any]:
        start = self.marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def _top(self, kind: type) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise IndexError("the stack is empty")
        if type(self.stack[-1]) is not kind:
            raise EcgFileError(
                f"{self.where}: the pickle puts items into a {type(self.stack[-1]).__name__}, expected a "
                f"{kind.__name__}; damaged, or made to break a reader"
            )
        return self.stack[-1]

    # ---- containers --------------------------------------------------------------------------------------------

    def _mark(self, _: Any) -> None:
        if len(self.marks) >= MAX_STACK:
            raise EcgFileError(f"{self.where}: the pickle nests more than {MAX_STACK} containers; refused")
        self.marks.append(len(self.stack))

    def _append(self, _: Any) -> None:
        (value,) = self._take(1)
        self._top(list).append(value)

    def _append_marked(self, _: Any) -> None:
        values = self._take_marked()
        self._top(list).extend(values)

    def _set_item(self, _: Any) -> None:
        items = self._take(2)
        self._set(self._top(dict), items)

    def _set_marked(self, _: Any) -> None:
        items = self._take_marked()
        self._set(self._top(dict), items)

    def _set(self, target: dict[Any, Any], items: list[Any]) -> None:
        if len(items) % 2:
            raise EcgFileError(f"{self.where}: a key without a value in the pickle; damaged")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Only these: the hash of a deeply nested tuple ends the process.
            if type(key) not in (int, str):
                raise EcgFileError(f"{self.where}: a key of type {type(key).__name__}, expected a number or a text")
            if key in target:
                raise EcgFileError(f"{self.where}: the key {key!a} is there twice; no dictionary is written like that")
            target[key] = value

    def _list(self, _: Any) -> None:
        self._push_new(self._take_marked())

    def _tuple(self, _: Any) -> None:
        self._push_new(tuple(self._take_marked()))

    def _dict(self, _: Any) -> None:
        items = self._take_marked()
        self._push_new({})
        self._set(self.stack[-1], items)

    # ---- memo --------------------------------------------------------------------------------------------------

    def _put(self, index: int) -> None:
        self._count()
        self.memo[index] = self.stack[-1]

    def _memoize(self, _: Any) -> None:
        self._put(len(self.memo))

    def _get(self, index: int) -> None:
        self._push(self.memo[index])

    # ---- what would be calls -----------------------------------------------------------------------------------

    def _ask_for(self, path: str, *, is_call: bool = False) -> None:
        if path not in self.admitted or is_call:
            known = ", ".join(sorted(self.admitted)) or "no global at all"
            raise EcgFileError(
                f"{self.where}: the pickle asks for {path[:100]!a}, expected {known}. Nothing of it was run; do not "
                "open this file with other programs"
            )
        self._push(Name(path))

    def _stack_global(self, _: Any) -> None:
        module, name = self._take(2)
        if type(module) is not str or type(name) is not str:
            raise EcgFileError(f"{self.where}: the pickle asks for a global without a name; damaged, or made to break")
        self._ask_for(f"{module[:100]}.{name[:100]}")

    def _reduce(self, _: Any) -> None:
        name, arguments = self._take(2)
        if type(name) is not Name or type(arguments) is not tuple:
            raise EcgFileError(f"{self.where}: the pickle calls a {type(name).__name__}, expected plain data")
        self._push_new(Call(name, arguments))

    def _build(self, _: Any) -> None:
        (state,) = self._take(1)
        call = self._top(Call)
        if call.state is not None:
            raise EcgFileError(f"{self.where}: the pickle builds {call.name.path} twice; damaged, or made to break")
        call.state = state


_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, argument: None,
    "FRAME": lambda machine, argument: None,
    "MARK": _Machine._mark,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._append_marked,
    "SETITEM": _Machine._set_item,
    "SETITEMS": _Machine._set_marked,
    "LIST": _Machine._list,
    "TUPLE": _Machine._tuple,
    "DICT": _Machine._dict,
    "PUT": _Machine._put,
    "BINPUT": _Machine._put,
    "LONG_BINPUT": _Machine._put,
    "MEMOIZE": _Machine._memoize,
    "GET": _Machine._get,
    "BINGET": _Machine._get,
    "LONG_BINGET": _Machine._get,
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._reduce,
    "BUILD": _Machine._build,
}


def _check_depth(value: Any, where: str) -> None:
    """Refuse what nests deeply; every container is looked at once, however often it is shared."""
    level, seen = [value], set()
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, (list, tuple, dict, Call)) and id(item) not in seen:
                seen.add(id(item))
                below.extend(_parts(item))
        if not below:
            return
        level = below
    raise EcgFileError(f"{where}: the pickle nests more than {MAX_DEPTH} containers; refused")


def _parts(item: Any) -> list[Any]:
    if isinstance(item, Call):
        return [item.arguments, item.state]
    return list(item.values() if isinstance(item, dict) else item)
