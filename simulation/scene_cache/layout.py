"""The arrays of a scene cache: elements, values, and shapes in the letters of `mtdrive.simulation.scene`.

A checksum detects damage, not forgery, and compiled code trusts indices and counts. So each array is checked against
its line below when a cache is read: in one compiled pass over the body, as training waits for it.
"""

from __future__ import annotations

import dataclasses
import typing
from array import array
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain

import numpy as np

from mtdrive.simulation.metrics.registry import score_version
from mtdrive.simulation.navsim_format.logs import LEAST_FUTURE, NUM_FUTURE
from mtdrive.simulation.runtime.kernels import kernel
from mtdrive.simulation.scene import (
    Camera,
    DrivableMap,
    IdmPaths,
    MapLayer,
    ObjectType,
    Observation,
    Polygons,
    Reference,
    Scene,
)

ALIGNMENT = 64  # of the arrays in the body

# Elements, then the shape. `offsets N 4` rises from 0 to N by at least 4; `index N` lies in 0..N - 1; `number` is
# finite, `pose` NaN exactly where the next array, `present`, is false. A line of a nested class says what P is there.
_LINES = {
    Scene: {
        "origin": "number | 3",
        "velocity": "number | 2",
        "acceleration": "number | 2",
        "history_poses": "number | 4 3",
        "history_velocity": "number | 4 2",
        "history_acceleration": "number | 4 2",
        "history_timestamps": "time | 4",
        "human_poses": "number | F 3",
        "centerline": "number | C 3",
        "current_tokens": "text | A0",
        "current_kind": f"class {len(ObjectType)} | A0",
        "current_boxes": "number | A0 5",
        "current_velocity": "number | A0 2",
    },
    Polygons: {
        "xy": "number | V 2",
        "ring_start": "offsets V 4 | R+1",
        "polygon_start": "offsets R 1 | P+1",
        "bounds": "number | P 4",
    },
    DrivableMap: {
        "polygons": "P",
        "layer": f"class {len(MapLayer)} | P",
        "ids": "text | P",
        "on_route": "truth | P",
    },
    Observation: {
        "tokens": "text | A",
        "kind": f"class {len(ObjectType)} | A",
        "size": "number | A 2",
        "first_heading": "number | A",
        "first_speed": "number | A",
        "poses": "pose | S A 3",
        "present": "truth | S A",
        "light_ids": "text | K",
        "light_polygons": "K",
        "light_red": "truth | S K",
        "ignored": "truth | A",
    },
    Reference: {
        "states": "number | 41 11",
        "simulated": "number | 41 11",
        "proposal_scores": "number | 15",
    },
    IdmPaths: {
        "track": "index A0 | K",
        "pose": "number | K 3",
        "progress": "number | K",
        "speed": "number | K",
        "target_speed": "number | K",
        "lane": "index L | K",
        "path": "number | N 4",
        "path_start": "offsets N 2 | L+1",
        "parked": "index A0 | M",
    },
    Camera: {
        "intrinsic": "number | 3 3",
        "to_ego": "number | 4 4",
        "distortion": "number | 5",
    },
}
_DTYPES = {
    "number": "<f8",
    "pose": "<f8",
    "time": "<i8",
    "offsets": "<i8",
    "index": "<i8",
    "class": "|i1",
    "truth": "|b1",
    "text": "<U",
}
_ELEMENTS = {name: code for code, name in enumerate(_DTYPES)}
_NUMBER, _POSE, _TIME, _OFFSETS, _INDEX, _CLASS, _TRUTH, _TEXT = range(len(_DTYPES))
_EXPONENT = 0x7FF0000000000000  # bits that are set in what is not finite
_LAST_LETTER = 0x10FFFF
_MOST_SPAN = 600_000_000  # [us] that the four frames of the history may take


class _Line(typing.NamedTuple):
    name: str
    elements: str
    arguments: list[str]
    shape: list[str]
    scope: str
    letters: dict[str, str]

    def letter(self, name: str) -> str:
        """A letter with the scope that distinguishes it from the same letter of other objects."""
        return self.letters.get(name, name if name == "A0" else self.scope + name)


class Layout(typing.NamedTuple):
    """The n arrays of scenes with observations for given metrics, in the order of the file."""

    names: list[str]
    """Dotted name of each array."""

    dtypes: list[str]
    """dtype of each array; of texts without their length."""

    ranks: list[int]
    """Number of dimensions of each array."""

    texts: list[int]
    """Indices of the arrays that hold texts."""

    rules: np.ndarray
    """(n, 5) int64 rule of each array: code of its elements, its first row in `dimensions`, its number of dimensions,
    and what its elements are compared with: a dimension (-1 for none) and a number."""

    dimensions: np.ndarray
    """(d, 3) int64 of each dimension of all arrays: its length, or -1 where a letter stands for it; then another
    dimension of the same letter, and what is added to the letter here."""


@lru_cache
def layout(metrics: tuple[str, ...]) -> Layout:
    """The layout of scenes with observations and references for these metrics."""
    lines = list(_arrays(Scene, "", {}, metrics))
    first: dict[str, int] = {}  # dimension where a letter stands first
    dimensions: list[tuple[int, int, int]] = []
    rules: list[list[int]] = []
    for line in lines:
        start = len(dimensions)
        for length in line.shape:
            letter, _, plus = length.partition("+")
            if letter.isdigit():
                dimensions.append((int(letter), 0, 0))
            else:
                at = first.setdefault(line.letter(letter), len(dimensions))
                dimensions.append((-1, at, int(plus or 0)))
        rules.append([_ELEMENTS[line.elements], start, len(line.shape), -1, 0])
    for line, rule in zip(lines, rules, strict=True):
        for argument in line.arguments:
            if argument.isdigit():
                rule[4] = int(argument)
            else:
                rule[3] = first[line.letter(argument)]
    return Layout(
        names=[line.name for line in lines],
        dtypes=[_DTYPES[line.elements] for line in lines],
        ranks=[len(line.shape) for line in lines],
        texts=[index for index, line in enumerate(lines) if line.elements == "text"],
        rules=np.array(rules, dtype=np.int64),
        dimensions=np.array(dimensions, dtype=np.int64),
    )


def _arrays(cls: type, prefix: str, letters: dict[str, str], metrics: tuple[str, ...]) -> Iterator[_Line]:
    lines = _LINES[cls]
    for field, kind in typing.get_type_hints(cls).items():
        name = prefix + field
        if kind is np.ndarray:
            contents, lengths = lines[field].split(" | ")
            elements, *arguments = contents.split()
            shape = [_steps(prefix) if length == "S" else length for length in lengths.split()]
            yield _Line(name, elements, arguments, shape, prefix, letters)
        elif typing.get_origin(kind) is dict:
            for metric in metrics:
                yield from _arrays(typing.get_args(kind)[1], f"{name}.{metric}.", {}, metrics)
        elif isinstance(kind, type) and dataclasses.is_dataclass(kind):
            bound = {"P": prefix + lines[field]} if field in lines else {}
            yield from _arrays(kind, f"{name}.", bound, metrics)


def _steps(prefix: str) -> str:
    """S of the observation with this prefix, `observations.<metric>.`"""
    return str(score_version(prefix.split(".")[1]).traffic.num_steps)


def is_consistent(scene: Scene) -> bool:
    """Whether the arrays and values of a scene agree with each other, where no single array shows it."""
    return (
        len(scene.human_poses) in (0, *range(LEAST_FUTURE, NUM_FUTURE + 1))
        and len(scene.centerline) > 1
        and scene.history_timestamps[-1] == scene.timestamp
        and len(scene.observations) > 0
        and all(len(seen.tokens) >= len(scene.current_tokens) for seen in scene.observations.values())
    )


def first_misfit(table: dict[str, list], body: bytes, metrics: tuple[str, ...]) -> str | None:
    """The name of the first array that does not fit the layout, or None.

    table: array -> its dtype, shape and offset in the body, as the header has them.
    """
    fit = layout(metrics)
    found, shapes, offsets = zip(*table.values(), strict=True)
    if list(table) != fit.names or list(map(len, shapes)) != fit.ranks:
        return next((name for name in table if name not in fit.names), "other arrays")
    dtypes = list(found)
    widths = [int(dtypes[index][2:]) for index in fit.texts]
    for index in fit.texts:
        dtypes[index] = dtypes[index][:2]
    if dtypes != fit.dtypes or len(body) % ALIGNMENT:
        return "arrays of other elements"
    numbers = np.frombuffer(array("q", [*widths, *offsets, *chain.from_iterable(shapes)]), dtype=np.int64)
    misfit = _first_misfit(np.frombuffer(body, dtype=np.uint8), numbers, fit.rules, fit.dimensions)
    return None if misfit < 0 else fit.names[misfit]


@kernel
def _first_misfit(bytes_, numbers, rules, dimensions):
    """Index of the first array that does not fit; -1 if all do.

    numbers: of characters in each text, then the offset of each array, then its lengths.
    """
    ints, letters = bytes_.view(np.int64), bytes_.view(np.uint32)
    lengths = numbers[len(numbers) - len(dimensions) :]
    offsets = numbers[len(numbers) - len(dimensions) - len(rules) :]
    end, text = 0, 0
    for a in range(len(rules)):
        elements, bound, number = rules[a, 0], rules[a, 3], rules[a, 4]
        size = 8 if elements <= _INDEX else 1
        if elements == _TEXT:
            if not 0 < numbers[text] <= len(bytes_):
                return a
            size = 4 * numbers[text]
            text += 1
        for d in range(rules[a, 1], rules[a, 1] + rules[a, 2]):
            wanted, same = dimensions[d, 0], dimensions[d, 1]
            if wanted < 0:
                wanted = lengths[same] - dimensions[same, 2] + dimensions[d, 2]
            if lengths[d] != wanted or not 0 <= wanted <= len(bytes_):
                return a
            size *= lengths[d]
        if offsets[a] != end or size > len(bytes_) - end:
            return a
        limit = lengths[bound] - dimensions[bound, 2] if bound >= 0 else 0
        low, high, following = end // 8, (end + size) // 8, end + -(-size // ALIGNMENT) * ALIGNMENT
        fits = True
        if elements == _NUMBER:
            values = ints[low:high]
            wrong = np.int64(0)  # integers, so that many are looked at in one instruction
            for k in range(len(values)):
                wrong |= np.int64((values[k] & _EXPONENT) == _EXPONENT)
            fits = wrong == 0
        elif elements == _POSE:
            count = size // 24
            if count > len(bytes_) - following:
                return a
            values, present = ints[low:high], bytes_[following : following + count]
            wrong = np.int64(0)
            for k in range(count):
                absent = np.int64(present[k] == 0)
                x = np.int64((values[3 * k] & _EXPONENT) == _EXPONENT)
                y = np.int64((values[3 * k + 1] & _EXPONENT) == _EXPONENT)
                heading = np.int64((values[3 * k + 2] & _EXPONENT) == _EXPONENT)
                wrong |= (x ^ absent) | (y ^ absent) | (heading ^ absent)
            fits = wrong == 0
        elif elements == _TIME:
            for k in range(low + 1, high):
                fits &= ints[k - 1] >= 0 and 0 < ints[k] - ints[k - 1] <= _MOST_SPAN
        elif elements == _OFFSETS:
            if high == low or ints[low] != 0 or ints[high - 1] != limit:
                return a
            for k in range(low + 1, high):
                fits &= number <= ints[k] - ints[k - 1] <= limit
        elif elements == _INDEX:
            for k in range(low, high):
                fits &= 0 <= ints[k] < limit
        elif elements == _TEXT:
            for k in range(end // 4, (end + size) // 4):
                fits &= letters[k] <= _LAST_LETTER
        else:
            for k in range(end, end + size):
                fits &= bytes_[k] < (number if elements == _CLASS else 2)
        if not fits:
            return a
        end = following
    return -1 if end == len(bytes_) else len(rules) - 1
