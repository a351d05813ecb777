"""Check a pickle before it is loaded: its opcodes are run over kinds of objects instead of objects.

Unpickling is safe if it makes nothing but plain data, and changes nothing that is already in use. The run follows
stack and memo as `pickle.Unpickler` does, and allows only

- kinds of objects as `pickle_kinds` describes them, and the names of a table;
- changes to a container, record or array while it is new: neither fetched from the memo nor part of another object. So
  there are no cycles, and the nesting depth of an object is known;
- objects up to MAX_DEPTH deep and of bounded memory, where shared parts are counted each time that they are used.

It takes time in proportion to the size of the file.
"""

from __future__ import annotations

import pickletools
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from mtdrive.simulation.navsim_format.pickle_kinds import (
    FORBIDDEN,
    ITEM,
    LARGE,
    OBJECT,
    SMALL,
    Kind,
    Role,
    built,
    called,
    decimal,
    fill,
    grown,
    tuple_kind,
)
from mtdrive.simulation.runtime.kernels import kernel

MAX_DEPTH = 64
LONGEST_NUMBER = 40  # characters of a number that is written as text
LONGEST_INTEGER = 9  # bytes: any of 64 bits, signed or not
NEWEST_PROTOCOL = 5

Verdict = IntEnum("Verdict", "FINE TRUNCATED DAMAGED FOREIGN FORBIDDEN DEEP LARGE", start=0)


class Names(NamedTuple):
    """The N names that a pickle may hold."""

    text: np.ndarray
    """(B,) uint8, `module` + newline + `name` of all names, one after the other."""

    start: np.ndarray
    """(N + 1,) where each name begins in the text."""

    role: np.ndarray
    """(N,) Role of each name."""


class Finding(NamedTuple):
    """What a check found."""

    verdict: Verdict
    """Whether the pickle may be loaded, or why not."""

    position: int
    """Byte of the opcode that decided."""

    module: slice
    """Bytes of the file that hold the module of a foreign name."""

    name: slice
    """Bytes of the file that hold the foreign name itself."""


def _opcodes() -> Any:
    """Every opcode by its name; a type checker cannot know names that are computed."""
    return IntEnum("_Op", {opcode.name: ord(opcode.code) for opcode in pickletools.opcodes})


_Op = _opcodes()

# Objects that every run has, 256 small integers from _INTEGERS on
_NONE, _FALSE, _TRUE, _EMPTY, _INTEGERS = range(1, 6)
_FIRST = _INTEGERS + 256
_TRACKED = 64  # bytes that this check, and stack and memo of the unpickler, take for an object at most

_NEWLINE = 10
_LENGTHS = {  # bytes of the length before an argument
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_LENGTH = np.zeros(256, dtype=np.int64)
_ARGUMENT = np.zeros(256, dtype=np.int64)  # bytes of an argument without such a length; -1, -2: lines
_TAKES = np.zeros(256, dtype=np.int64)  # objects that an opcode takes off the stack; -1: all from the last mark on
for _opcode in pickletools.opcodes:
    _code, _before = ord(_opcode.code), _opcode.stack_before
    _TAKES[_code] = -1 if pickletools.markobject in _before else len(_before)
    if _opcode.arg is not None:
        _LENGTH[_code] = _LENGTHS.get(_opcode.arg.n, 0)
        _ARGUMENT[_code] = 0 if _LENGTH[_code] else _opcode.arg.n
_ARGUMENT[_Op.GLOBAL] = -2


def check_pickle(data: bytes, names: Names, limit: int) -> Finding:
    """Whether a pickle may be loaded, with objects of `limit` bytes at most."""
    objects = np.zeros(len(data) + _FIRST, dtype=OBJECT)  # the system gives memory for what is used of it
    stack, memo, marks = (np.zeros(len(data) + 1, dtype=np.int32) for _ in range(3))
    found = _run(np.frombuffer(data, dtype=np.uint8), *names, limit, objects, stack, memo, marks)
    return Finding(Verdict(found[0]), found[1], slice(*found[2:4]), slice(*found[4:6]))


@kernel
def _number(data: np.ndarray, start: int, size: int) -> np.int64:
    """Little-endian integer without sign; negative if it has more than 63 bits."""
    value = np.int64(0)
    for i in range(size):
        value |= np.int64(data[start + i]) << (8 * i)
    return value


@kernel
def _text_integer(data: np.ndarray, start: int, stop: int) -> tuple[bool, int]:
    """Whether a line is a decimal integer, and its value."""
    start_of_digits = start + (data[start] == ord("-"))
    stop -= stop - start_of_digits > 1 and data[stop - 1] == ord("L")
    value = decimal(data, start_of_digits, stop)
    octal = stop - start_of_digits > 1 and data[start_of_digits] == ord("0")
    return value >= 0 and not octal, value if start_of_digits == start else -value


@kernel
def _find(data: np.ndarray, spans: tuple[int, int, int, int], text: np.ndarray, starts: np.ndarray) -> int:
    """Index of a name in the table; -1 if it is foreign."""
    m0, m1, n0, n1 = spans
    for index in range(len(starts) - 1):
        start, cut = starts[index], starts[index] + m1 - m0
        if starts[index + 1] - cut != 1 + n1 - n0 or text[cut] != _NEWLINE:
            continue
        same = True
        for i in range(m1 - m0):
            same = same and text[start + i] == data[m0 + i]
        for i in range(n1 - n0):
            same = same and text[cut + 1 + i] == data[n0 + i]
        if same:
            return index
    return -1


@kernel
def _run(
    data: np.ndarray,
    text: np.ndarray,
    starts: np.ndarray,
    roles: np.ndarray,
    limit: int,
    objects: np.ndarray,
    stack: np.ndarray,
    memo: np.ndarray,
    marks: np.ndarray,
) -> tuple[int, int, int, int, int, int]:
    """Verdict, position, and the spans of a foreign name."""
    objects[_NONE].kind, objects[_EMPTY].kind = Kind.NONE, Kind.SHAPE
    objects[_FALSE].kind, objects[_TRUE].kind = Kind.BOOL, Kind.BOOL
    objects[_TRUE].a, objects[_EMPTY].a, objects[_EMPTY].b = 1, 1, 1
    for value in range(256):
        objects[_INTEGERS + value].kind, objects[_INTEGERS + value].a = Kind.INT, value
    used, top, num_marks, memoized, memory, done = _FIRST, 0, 0, 0, 0, 0
    end, position, frame_end = len(data), 0, 0
    while position < end:
        at, op = position, data[position]
        done += 1

        # the argument lies from start to stop
        start = at + 1 + _LENGTH[op]
        size = _ARGUMENT[op]
        if _LENGTH[op]:
            size = _number(data, at + 1, _LENGTH[op]) if start <= end else -1
        elif size < 0:
            lines, size = -size, -1
            while lines > 0 and size < end - start:
                size += 1
                lines -= start + size < end and data[start + size] == _NEWLINE
        if size < 0 or size > end - start:
            return Verdict.TRUNCATED, at, 0, 0, 0, 0
        stop = start + size
        position = stop + (_ARGUMENT[op] < 0)
        if at < frame_end < position:
            return Verdict.DAMAGED, at, 0, 0, 0, 0

        # what is taken lies on the stack from first on; below the fence lies what was there before the last mark
        first, fence = top - _TAKES[op], marks[num_marks]
        if _TAKES[op] < 0:
            if num_marks == 0:
                return Verdict.DAMAGED, at, 0, 0, 0, 0
            first, num_marks = fence, num_marks - 1
            fence = marks[num_marks]
        if first < fence:
            return Verdict.DAMAGED, at, 0, 0, 0, 0

        allowed, pushed = True, 0
        kind, a, b, cost = FORBIDDEN, 0, 0, 0  # of an object that is made
        whole, parts = 0, top  # what gets the objects on the stack from parts on
        if op == _Op.BINGET or op == _Op.LONG_BINGET or op == _Op.GET:
            index = decimal(data, start, stop) if op == _Op.GET else _number(data, start, size)
            if index < 0 or index >= len(memo) or memo[index] == 0:
                return Verdict.DAMAGED, at, 0, 0, 0, 0
            pushed = memo[index]
            objects[pushed].closed = True
        elif op == _Op.MEMOIZE or op == _Op.BINPUT or op == _Op.LONG_BINPUT or op == _Op.PUT:
            index = memoized
            if op == _Op.PUT:
                index = decimal(data, start, stop)
            elif op != _Op.MEMOIZE:
                index = _number(data, start, size)
            if top == fence or index < 0 or index > done:  # numbers are given in turn
                return Verdict.DAMAGED, at, 0, 0, 0, 0
            memoized += memo[index] == 0
            memo[index] = stack[top - 1]
        elif op == _Op.SHORT_BINUNICODE or op == _Op.BINUNICODE or op == _Op.BINUNICODE8 or op == _Op.UNICODE:
            kind, a, b, cost = Kind.STR, start, stop, SMALL + 4 * size
        elif op == _Op.BININT1:
            pushed = _INTEGERS + data[start]
        elif op == _Op.MARK:
            num_marks += 1
            marks[num_marks] = top
        elif op == _Op.TUPLE1 or op == _Op.TUPLE2 or op == _Op.TUPLE3 or (op == _Op.TUPLE and first < top):
            kind, a, b = tuple_kind(objects, stack, first, top, data)
            whole, parts, cost = used, first, SMALL + ITEM * (top - first)
            allowed = kind != FORBIDDEN
        elif op == _Op.EMPTY_TUPLE or op == _Op.TUPLE:
            pushed = _EMPTY
        elif op == _Op.NONE:
            pushed = _NONE
        elif op == _Op.NEWTRUE or op == _Op.NEWFALSE:
            pushed = _TRUE if op == _Op.NEWTRUE else _FALSE
        elif op == _Op.BINFLOAT or op == _Op.FLOAT:
            kind, cost, allowed = Kind.FLOAT, SMALL, size <= LONGEST_NUMBER
        elif op == _Op.REDUCE:
            kind, a, b, cost = called(objects[stack[first]], objects[stack[first + 1]], stack[first + 1] == _EMPTY)
            top, allowed = first, kind != FORBIDDEN
        elif op == _Op.BUILD:
            cost = built(objects[stack[first]], objects[stack[first + 1]])
            whole, parts, allowed = stack[first], first + 1, cost != FORBIDDEN
        elif op == _Op.SHORT_BINBYTES or op == _Op.BINBYTES or op == _Op.BINBYTES8:
            kind, a, b, cost = Kind.BYTES, start, stop, SMALL + size
        elif op == _Op.BININT or op == _Op.BININT2 or op == _Op.LONG1:
            kind, cost, allowed = Kind.INT, SMALL, size <= LONGEST_INTEGER
            a = _number(data, start, min(size, 8))
            if op != _Op.BININT2 and 0 < size < 8 and data[stop - 1] >= 128:
                a -= 1 << (8 * size)
        elif op == _Op.EMPTY_LIST:
            kind, cost = Kind.LIST, SMALL
        elif op == _Op.EMPTY_DICT:
            kind, cost = Kind.DICT, LARGE
        elif op == _Op.EMPTY_SET:
            kind, cost = Kind.SET, LARGE
        elif op == _Op.APPENDS or op == _Op.SETITEMS or op == _Op.ADDITEMS:
            if first <= fence:
                return Verdict.DAMAGED, at, 0, 0, 0, 0
            whole, parts = stack[first - 1], first
            wanted = Kind.LIST if op == _Op.APPENDS else Kind.DICT if op == _Op.SETITEMS else Kind.SET
            allowed = objects[whole].kind == wanted
        elif op == _Op.APPEND or op == _Op.SETITEM:
            whole, parts = stack[first], first + 1
            allowed = objects[whole].kind == (Kind.LIST if op == _Op.APPEND else Kind.DICT)
        elif op == _Op.LIST or op == _Op.DICT or op == _Op.FROZENSET:
            kind = Kind.LIST if op == _Op.LIST else Kind.DICT if op == _Op.DICT else Kind.SET
            whole, parts, cost = used, first, LARGE
        elif op == _Op.GLOBAL or op == _Op.STACK_GLOBAL:
            cut = start
            if op == _Op.GLOBAL:
                while data[cut] != _NEWLINE:
                    cut += 1
                spans = (start, cut, cut + 1, stop)
            else:
                module, name = objects[stack[first]], objects[stack[first + 1]]
                if module.kind != Kind.STR or name.kind != Kind.STR:
                    return Verdict.DAMAGED, at, 0, 0, 0, 0
                spans = (module.a, module.b, name.a, name.b)
                top = first
            kind, a, cost = Kind.NAME, _find(data, spans, text, starts), SMALL
            if a < 0:
                return Verdict.FOREIGN, at, spans[0], spans[1], spans[2], spans[3]
            b = roles[a]
        elif op == _Op.NEWOBJ:
            name = objects[stack[first]]
            allowed = name.kind == Kind.NAME and name.b == Role.RECORD and stack[first + 1] == _EMPTY
            kind, cost, top = Kind.RECORD, LARGE, first
        elif op == _Op.INT and size == 2 and data[start] == ord("0"):  # how it writes booleans
            pushed = _TRUE if data[start + 1] == ord("1") else _FALSE
            allowed = data[start + 1] == ord("0") or data[start + 1] == ord("1")
        elif op == _Op.INT or op == _Op.LONG:
            kind, cost = Kind.INT, SMALL
            allowed, a = _text_integer(data, start, stop)
        elif op == _Op.STRING or op == _Op.BINSTRING or op == _Op.SHORT_BINSTRING:
            quote = op == _Op.STRING and size > 1
            kind, a, b, cost = Kind.STR, start + quote, stop - quote, SMALL + 4 * size
        elif op == _Op.BYTEARRAY8:
            kind, cost = Kind.OTHER, SMALL + size
        elif op == _Op.FRAME:
            length = _number(data, start, size)
            if length < 0 or length > end - stop:
                return Verdict.TRUNCATED, at, 0, 0, 0, 0
            allowed, frame_end = at >= frame_end, stop + length
        elif op == _Op.STOP:
            fine = top == 1 and num_marks == 0 and objects[stack[0]].kind <= Kind.TEXT
            return Verdict.FINE if fine else Verdict.DAMAGED, at, 0, 0, 0, 0
        else:
            allowed = op == _Op.PROTO and data[start] <= NEWEST_PROTOCOL
        if not allowed:
            return Verdict.FORBIDDEN, at, 0, 0, 0, 0

        if kind != FORBIDDEN:
            new = objects[used]
            new.kind, new.a, new.b, new.weight = kind, a, b, cost
            pushed = used
            used += 1
            memory += cost + _TRACKED
        if whole:
            more = cost if op == _Op.BUILD else 0
            if op == _Op.BUILD:
                objects[whole].closed = True
            elif objects[whole].kind <= Kind.SET:
                more = grown(objects, whole, stack, parts, top)
                if more == FORBIDDEN:
                    return Verdict.FORBIDDEN, at, 0, 0, 0, 0
            memory += more
            objects[whole].weight += more
            fill(objects, whole, stack, parts, top)
            top = parts
            if objects[whole].depth > MAX_DEPTH:
                return Verdict.DEEP, at, 0, 0, 0, 0
            if objects[whole].weight > limit:
                return Verdict.LARGE, at, 0, 0, 0, 0
        if memory > limit:
            return Verdict.LARGE, at, 0, 0, 0, 0
        if pushed:
            stack[top] = pushed
            top += 1
    return Verdict.TRUNCATED, end, 0, 0, 0, 0
