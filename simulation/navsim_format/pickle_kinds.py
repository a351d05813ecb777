"""Kinds of objects that a pickle may make, and from what: plain containers, numbers, strings, and arrays of them.

An array is allowed as numpy itself writes it: `_reconstruct(ndarray, (0,), b"b")`, then a state of version, shape,
dtype, order and bytes; a dtype as `dtype("f8", False, True)`, then a state. All values in these tuples are compared
with what numpy writes for plain numbers and strings, since numpy trusts them.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from mtdrive.simulation.runtime.kernels import kernel

Role = IntEnum(
    "Role",
    "NDARRAY RECONSTRUCT DTYPE ENCODE BYTES ORDERED_DICT SET RECORD VALUE FACTORY TYPE DEFAULT_DICT DEQUE",
    start=0,
)
Role.__doc__ = """What a name in a pickle stands for.

NDARRAY: the class, as an argument of RECONSTRUCT, which makes a new array. DTYPE: what makes a new one. ENCODE: makes
bytes of a string, for protocols without bytes. BYTES: makes empty bytes. ORDERED_DICT, SET: as it says. RECORD: a class
whose objects hold fields. VALUE: makes something that does not change and may be a key. FACTORY: other plain data.
TYPE: what a default dict makes of a missing key, as its argument alone. DEFAULT_DICT, DEQUE: make an empty one.
"""

Kind = IntEnum(
    "Kind",
    "NONE BOOL INT FLOAT STR BYTES VALUE "  # up to VALUE they may be keys: their hash takes bounded time
    "LIST DICT SET RECORD ARRAY OTHER TUPLE SHAPE DTYPE_ARGUMENTS DTYPE_STATE TEXT "  # up to TEXT they are data
    "NAME DTYPE ARRAY_ARGUMENTS ARRAY_STATE ARGUMENTS TYPE_ARGUMENT",  # these are met on the way to data
    start=0,
)
FORBIDDEN = -1  # in place of a kind, or of a number of bytes

# An object. closed: it may not change any more. depth: of nesting. weight: its memory [bytes], what it shares counted
# each time. a, b: of BOOL and INT the value; of STR, BYTES, TEXT the span in the file; of SHAPE the number of elements,
# and the same with 1 for lengths of 0; of NAME its index and role; of DTYPE and DTYPE_ARGUMENTS item size and
# character; of DTYPE_STATE item size, and the rest in one number; of ARRAY_STATE the bytes of the array.
OBJECT = np.dtype(
    [("kind", "i1"), ("closed", "?"), ("depth", "u1"), ("weight", "i8"), ("a", "i8"), ("b", "i8")], align=True
)

# Upper bounds of memory [bytes] in CPython on 64 bits
SMALL, LARGE = 96, 512  # of a number, string, tuple, list; of a dict, set, record, array: all without what they hold
DEQUE = 1024  # of a deque, which has a block of 64 places from the start
ITEM, SLOT = 10, 64  # of a place in a list or tuple; in a dict or set, both of which grow in steps
GROWTH = 16  # of a set, path or enum against what it is made of

_MOST = 1 << 31  # where products of lengths stop


@kernel
def equal(data: np.ndarray, start: int, stop: int, text: bytes) -> bool:
    """Whether the bytes start:stop of the file are this text."""
    same = stop - start == len(text)
    for i in range(len(text) if same else 0):
        same = same and data[start + i] == text[i]
    return same


@kernel
def decimal(data: np.ndarray, start: int, stop: int) -> int:
    """The number in bytes start:stop, of at most 20 digits; 2 ** 59 if it is larger, -1 if it is no number."""
    value = 0
    for i in range(start, stop):
        if data[i] < 48 or data[i] > 57 or i - start > 19:
            return -1
        value = min(10 * value + data[i] - 48, 1 << 59)
    return value if stop > start else -1


@kernel
def tuple_kind(objects: np.ndarray, stack: np.ndarray, first: int, top: int, data: np.ndarray) -> tuple[int, int, int]:
    """Kind, a and b of a tuple of the objects on the stack from first to top."""
    count, head = top - first, objects[stack[first]]
    if head.kind == Kind.NAME:
        if count == 1 and (head.b == Role.TYPE or head.b == Role.SET or head.b == Role.ORDERED_DICT):
            return Kind.TYPE_ARGUMENT, 0, 0
        return _array_arguments(objects, stack, first, data) if count == 3 else (FORBIDDEN, 0, 0)
    if count == 2 and head.kind == Kind.STR:
        codec = objects[stack[first + 1]]
        if codec.kind == Kind.STR and (
            equal(data, codec.a, codec.b, b"latin1") or equal(data, codec.a, codec.b, b"latin-1")
        ):
            return Kind.TEXT, head.a, head.b
    if count == 3 and head.kind == Kind.STR:
        size = _item_size(objects, stack, first, data)
        if size >= 0:
            return Kind.DTYPE_ARGUMENTS, size, data[head.a]
    if count == 5 and objects[stack[first + 2]].kind == Kind.DTYPE:
        return _array_state(objects, stack, first, data)
    if count == 8 and head.kind == Kind.INT and objects[stack[first + 1]].kind == Kind.STR:
        return _dtype_state(objects, stack, first, data)

    kind, elements, nonzero, lengths = Kind.TUPLE, 1, 1, True
    for i in range(first, top):
        part = objects[stack[i]]
        if part.kind == Kind.DTYPE:
            kind = Kind.ARGUMENTS
        elif part.kind > Kind.TEXT:
            return FORBIDDEN, 0, 0
        lengths = lengths and part.kind == Kind.INT and part.a >= 0
        if lengths:
            elements = min(elements * min(part.a, _MOST), _MOST)
            nonzero = min(nonzero * min(max(part.a, 1), _MOST), _MOST)
    return (Kind.SHAPE, elements, nonzero) if lengths else (kind, 0, 0)


@kernel
def _array_arguments(objects: np.ndarray, stack: np.ndarray, first: int, data: np.ndarray) -> tuple[int, int, int]:
    if objects[stack[first]].b != Role.NDARRAY:
        return FORBIDDEN, 0, 0
    shape, character = objects[stack[first + 1]], objects[stack[first + 2]]
    text = character.kind == Kind.STR or character.kind == Kind.BYTES
    if shape.kind != Kind.SHAPE or shape.b != 1 or shape.a != 0 or not text:
        return FORBIDDEN, 0, 0
    return (Kind.ARRAY_ARGUMENTS, 0, 0) if equal(data, character.a, character.b, b"b") else (FORBIDDEN, 0, 0)


@kernel
def _array_state(objects: np.ndarray, stack: np.ndarray, first: int, data: np.ndarray) -> tuple[int, int, int]:
    version, shape, dtype = objects[stack[first]], objects[stack[first + 1]], objects[stack[first + 2]]
    order, content = objects[stack[first + 3]], objects[stack[first + 4]]
    if version.kind != Kind.INT or version.a != 1 or shape.kind != Kind.SHAPE:
        return FORBIDDEN, 0, 0
    if order.kind != Kind.BOOL or content.kind != Kind.BYTES:
        return FORBIDDEN, 0, 0
    # numpy compares the size with the bytes; items of no bytes and lengths beside a 0 would be as long as one likes
    if shape.b * max(dtype.a, 1) > len(data) or (dtype.a == 0 and shape.a > 0):
        return FORBIDDEN, 0, 0
    if dtype.b == ord("b"):  # numpy counts by the values of a mask, and copies by what is not 0
        for i in range(content.a, content.b):
            if data[i] > 1:
                return FORBIDDEN, 0, 0
    return Kind.ARRAY_STATE, shape.a * dtype.a, 0


@kernel
def _item_size(objects: np.ndarray, stack: np.ndarray, first: int, data: np.ndarray) -> int:
    """Bytes of an item for the arguments of a plain dtype; -1 if they are no such arguments."""
    code, aligned, copied = objects[stack[first]], objects[stack[first + 1]], objects[stack[first + 2]]
    for flag, value in ((aligned, 0), (copied, 1)):
        if (flag.kind != Kind.BOOL and flag.kind != Kind.INT) or flag.a != value:
            return -1
    if not 2 <= code.b - code.a <= 7:
        return -1
    character, size = data[code.a], decimal(data, code.a + 1, code.b)
    if character == ord("U"):
        return 4 * size if size >= 0 else -1
    if character == ord("S"):
        return size
    plain = (
        (character == ord("b") and size == 1)
        or ((character == ord("i") or character == ord("u")) and (size == 1 or size == 2 or size == 4 or size == 8))
        or (character == ord("f") and (size == 2 or size == 4 or size == 8 or size == 16))
        or (character == ord("c") and (size == 8 or size == 16 or size == 32))
    )
    return size if plain else -1


@kernel
def _dtype_state(objects: np.ndarray, stack: np.ndarray, first: int, data: np.ndarray) -> tuple[int, int, int]:
    version, order = objects[stack[first]], objects[stack[first + 1]]
    size, alignment, flags = objects[stack[first + 5]], objects[stack[first + 6]], objects[stack[first + 7]]
    if version.a != 3 or order.b - order.a != 1:
        return Kind.TUPLE, 0, 0
    for i in range(2, 5):
        if objects[stack[first + i]].kind != Kind.NONE:
            return FORBIDDEN, 0, 0
    for i in range(5, 8):
        if objects[stack[first + i]].kind != Kind.INT:
            return FORBIDDEN, 0, 0
    if abs(alignment.a) > 4 or flags.a < 0 or flags.a > 8:
        return FORBIDDEN, 0, 0
    return Kind.DTYPE_STATE, size.a, _rest(alignment.a, flags.a, data[order.a])


@kernel
def _rest(alignment: int, flags: int, order: int) -> int:
    return ((alignment + 4) * 16 + flags) * 256 + order


@kernel
def _fits(dtype, state) -> bool:
    """Whether a state is the one that numpy writes for a dtype."""
    size, alignment, flags = -1, -1, 0
    if dtype.b == ord("U"):
        size, alignment, flags = dtype.a, 4, 8
    elif dtype.b == ord("S"):
        size, alignment, flags = dtype.a, 1, 0
    if state.a != size:
        return False
    if dtype.b == ord("S") or (dtype.b != ord("U") and dtype.a == 1):
        return state.b == _rest(alignment, flags, ord("|"))
    return state.b == _rest(alignment, flags, ord("<")) or state.b == _rest(alignment, flags, ord("="))


@kernel
def called(name, arguments, are_none: bool) -> tuple[int, int, int, int]:
    """Kind, a, b and memory of the object that calling a name makes. are_none: the arguments are the empty tuple."""
    role, kind = name.b, arguments.kind
    plain = kind >= Kind.TUPLE and kind <= Kind.TEXT
    if name.kind != Kind.NAME:
        return FORBIDDEN, 0, 0, 0
    if role == Role.RECONSTRUCT and kind == Kind.ARRAY_ARGUMENTS:
        return Kind.ARRAY, 0, 0, LARGE
    if role == Role.DTYPE and kind == Kind.DTYPE_ARGUMENTS:
        return Kind.DTYPE, arguments.a, arguments.b, LARGE
    if role == Role.ENCODE and kind == Kind.TEXT:
        return Kind.BYTES, arguments.a, arguments.b, arguments.weight
    if role == Role.BYTES and are_none:
        return Kind.BYTES, 0, 0, SMALL
    if role == Role.ORDERED_DICT and are_none:
        return Kind.DICT, 0, 0, LARGE
    if role == Role.DEFAULT_DICT and (are_none or kind == Kind.TYPE_ARGUMENT):
        return Kind.DICT, 0, 0, LARGE
    if role == Role.DEQUE and plain:
        return Kind.LIST, 0, 0, DEQUE + arguments.weight
    if role == Role.SET and plain:
        return Kind.OTHER, 0, 0, LARGE + GROWTH * arguments.weight
    if role == Role.VALUE and plain:
        return Kind.VALUE, 0, 0, LARGE + GROWTH * arguments.weight
    if role == Role.FACTORY and (plain or kind == Kind.ARGUMENTS):
        return Kind.OTHER, 0, 0, LARGE + 2 * arguments.weight
    return FORBIDDEN, 0, 0, 0


@kernel
def built(instance, state) -> int:
    """Memory [bytes] that a new object takes when its state is set; FORBIDDEN if it may not be set."""
    if instance.closed:
        return FORBIDDEN
    if instance.kind == Kind.RECORD and (state.kind == Kind.DICT or state.kind == Kind.TUPLE):
        return 0
    if instance.kind == Kind.ARRAY and state.kind == Kind.ARRAY_STATE:
        return state.a
    if instance.kind == Kind.DTYPE and state.kind == Kind.DTYPE_STATE and _fits(instance, state):
        return 0
    return FORBIDDEN


@kernel
def grown(objects: np.ndarray, container: int, stack: np.ndarray, first: int, top: int) -> int:
    """Memory [bytes] that a new container takes for the objects on the stack; FORBIDDEN if it may not hold them."""
    kind = objects[container].kind
    if objects[container].closed or (kind == Kind.DICT and (top - first) % 2):
        return FORBIDDEN
    step = 1 if kind == Kind.SET else 2
    for i in range(first, top):
        is_key = kind != Kind.LIST and (i - first) % step == 0
        if objects[stack[i]].kind > (Kind.VALUE if is_key else Kind.TEXT):
            return FORBIDDEN
    return (top - first) * (ITEM if kind == Kind.LIST else SLOT)


@kernel
def fill(objects: np.ndarray, whole: int, stack: np.ndarray, first: int, top: int) -> None:
    """Make the objects on the stack parts of another one; they may not change any more."""
    for i in range(first, top):
        part = objects[stack[i]]
        part.closed = True
        objects[whole].weight += part.weight
        objects[whole].depth = max(objects[whole].depth, part.depth + 1)
