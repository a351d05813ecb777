"""Forge scene caches with right checksums, read and score them; a process of its own, since it might crash.

    python tests/support/forged_caches.py CACHE FOLDER FIRST COUNT

Each of COUNT forgeries is one edit of the scene cache CACHE, drawn from its number. Prints how many were refused in a
sentence and how many scored; what else happens ends the process.
"""

import copy
import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.scene_cache.format import load_scene
from mtdrive.simulation.scoring import IDM, score

PREFIX = struct.Struct("<8sIIII")
PLANS = np.zeros((2, 8, 3))
PLANS[1, :, 0] = np.arange(1, 9) * 4.0
EDITS = {  # with how often they are made
    "element": 0.4,
    "elements": 0.1,
    "dtype": 0.1,
    "shape": 0.1,
    "offset": 0.1,
    "array": 0.1,
    "value": 0.06,
    "body": 0.02,
    "header": 0.02,
}
NUMBERS = [-1, 0, 1, 2, 7, 8, 127, -128, 2**31, 2**62, -(2**62), 0.5, 1e300, -1e300, np.nan, np.inf, 1e9]
OTHERS = [None, True, -1, 2**70, 1.5, "x", [], {}, [[1]], ["pdms_v1"], float("nan")]
DTYPES = [
    "<f8",
    "<i8",
    "|b1",
    "|i1",
    "<U4",
    "<U0",
    "<U99999999999",
    "|O",
    "<c16",
    "<f4",
    ">f8",
    "<M8[s]",
    "f8,f8",
    "",
    3,
]


def forge(header: dict, body: bytes, rng: np.random.Generator) -> tuple[dict, bytes]:
    """The header and body with one edit."""
    header, body = copy.deepcopy(header), bytearray(body)
    table, values = header["arrays"], header["values"]
    name = str(rng.choice(list(table)))
    dtype, shape, offset = table[name]
    kind = rng.choice(list(EDITS), p=list(EDITS.values()))
    if kind in ("element", "elements"):
        array = np.frombuffer(body, dtype.replace("<U", "<u4") if "U" not in dtype else np.uint32, offset=offset)
        count = max(1, int(np.prod(shape))) * (int(dtype[2:]) if "U" in dtype else 1)
        rows = slice(None, count) if kind == "elements" else rng.integers(count)
        with np.errstate(all="ignore"):
            array[rows] = np.array(rng.choice(NUMBERS)).astype(array.dtype)
    elif kind == "dtype":
        table[name][0] = DTYPES[rng.integers(len(DTYPES))]
    elif kind == "shape":
        axis = int(rng.integers(len(shape)))
        edited = [*shape]
        edited[axis] = [-1, 0, edited[axis] + 1, edited[axis] - 1, 2**40, 2**70, 1.0, None, True][rng.integers(9)]
        table[name][1] = [edited, edited[::-1], [], [*shape, 1], None][rng.choice(5, p=[0.6, 0.1, 0.1, 0.1, 0.1])]
    elif kind == "offset":
        table[name][2] = [-8, offset + 1, offset + 8, offset + 64, 2**40, 2**70, len(body), 0.5, None][rng.integers(9)]
    elif kind == "array":
        other = str(rng.choice(list(table)))
        edited = [{}, {name: table[other]}, {name: table.pop(name), "more": table.get(other)}][rng.integers(3)]
        table.update(edited)
    elif kind == "value":
        key = str(rng.choice(list(values)))
        values[key] = OTHERS[rng.integers(len(OTHERS))]
    elif kind == "body":
        body = body[: int(rng.integers(len(body)))] if rng.random() < 0.5 else body + bytes(64)
    else:
        key = str(rng.choice(list(header)))
        header[key] = OTHERS[rng.integers(len(OTHERS))]
    return header, bytes(body)


def write(path: Path, header: dict, body: bytes) -> None:
    """A scene cache with right checksums."""
    text = json.dumps(header).encode()
    path.write_bytes(PREFIX.pack(b"MTDSCENE", len(text), zlib.crc32(text), zlib.crc32(body), 0) + text + body)


def read(path: Path) -> tuple[dict, bytes]:
    """Header and body of a scene cache."""
    data = path.read_bytes()
    length = PREFIX.unpack(data[: PREFIX.size])[1]
    return json.loads(data[PREFIX.size : PREFIX.size + length]), data[PREFIX.size + length :]


def main(cache: str, folder: str, first: str, count: str) -> None:
    header, body = read(Path(cache))
    forged, refused = Path(folder) / "forged.scene", 0
    for number in range(int(first), int(first) + int(count)):
        print(number, file=sys.stderr, flush=True)
        write(forged, *forge(header, body, np.random.default_rng(number)))
        try:
            scene = load_scene(forged)
            for metric in scene.observations:
                with np.errstate(all="ignore"):
                    score(scene, PLANS, metric=metric)
                    if metric == "epdms_v2":
                        score(scene, PLANS, metric=metric, traffic=IDM)
        except MTDriveError as error:
            if "\n" in str(error):
                raise
            refused += 1
    print(f"{refused} refused, {int(count) - refused} scored")


if __name__ == "__main__":
    main(*sys.argv[1:])
