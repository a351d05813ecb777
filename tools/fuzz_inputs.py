"""The inputs of fuzz_files.py: for each kind of file how a forged one is made, and what reading it must give."""

from __future__ import annotations

import csv
import io
import json
import pickle
import sqlite3
import struct
import zipfile
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
import yaml

from mtdrive.datasets.reader import check_shard
from mtdrive.datasets.schema import SCHEMA
from mtdrive.rollout.episode import Episode, EpisodeStatus, Turn, TurnStatus
from mtdrive.rollout.episode_file import EpisodesHeader, read_episodes, write_episodes
from mtdrive.simulation.navsim_format import logs
from mtdrive.simulation.navsim_format.images import decode_image
from mtdrive.simulation.navsim_format.maps import load_map
from mtdrive.simulation.navsim_format.pickle_names import name_table
from mtdrive.simulation.navsim_format.restricted_pickle import load_pickle
from mtdrive.simulation.navsim_format.scene_filter import all_windows
from mtdrive.simulation.navsim_format.synthetic_scenes import CLASSES
from mtdrive.simulation.scene_cache.build import build_caches
from mtdrive.simulation.scene_cache.format import SUFFIX, load_scene
from mtdrive.simulation.scoring import score
from mtdrive.simulation.submission.files import read_submission
from mtdrive.simulation.submission.mapping import KEY, read_mapping

Random = np.random.Generator
DATA = Path(__file__).parents[1] / "tests/data/navsim_reference/dataset"
PLAN = np.cumsum(np.tile([3.0, 0.1, 0.01], (8, 1)), axis=0)
EXTREMES = [0, 1, 2, 7, 8, 127, 128, 255, 256, 1 << 15, (1 << 16) - 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 62]
FORGED_TEXT = [
    "",
    "..",
    "../" * 9 + "etc/passwd",
    "a" * 5000,
    "\0",
    "nan",
    "1e999",
    "None",
    "[/bold]",
    "\ud7ff",
    "9" * 400,
]


@dataclass(frozen=True)
class Kind:
    """name: of the file. make: one from a generator. read: raises MTDriveError to refuse it,
    AssertionError if it reads otherwise than a reader without bounds."""

    name: str
    make: Callable[[Random], bytes]
    read: Callable[[Path], None]


def mutated(random: Random, data: bytes, most: int = 6) -> bytes:
    """Bytes flipped, cut, repeated, moved, or overwritten by numbers at the edge of what fits."""
    content = bytearray(data)
    for _ in range(random.integers(1, most)):
        if not content:
            break
        at, size = int(random.integers(len(content))), int(random.geometric(0.05))
        match random.integers(7):
            case 0:
                content[at] = random.integers(256)
            case 1:
                content[at] ^= 1 << int(random.integers(8))
            case 2:
                del content[at : at + size]
            case 3:
                content[at:at] = content[at : at + size] * int(random.integers(1, 9))
            case 4:
                content[at : at + 4] = struct.pack("<Q", EXTREMES[random.integers(len(EXTREMES))])[:4]
            case 5:
                source = int(random.integers(len(content)))
                content[at : at + size] = content[source : source + size]
            case 6:
                del content[at if random.random() < 0.2 else len(content) - size :]
    return bytes(content)


def equal(first: object, second: object) -> bool:
    """The same types, values and bits, all the way down."""
    if type(first) is not type(second):
        return False
    if isinstance(first, np.ndarray | np.generic):
        return first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes()
    if isinstance(first, dict):
        return list(first) == list(second) and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple | deque):
        return len(first) == len(second) and all(map(equal, first, second))
    if hasattr(first, "__dict__") and type(first).__module__.startswith("mtdrive"):
        return equal(vars(first), vars(second)) if not isinstance(first, int) else first is second
    return first == second or (first != first and second != second)


# pickle


class _Plain(pickle._Unpickler):
    """Python's own unpickler, written in Python: what the fast one must give of a pickle that passed the check."""

    def find_class(self, module: str, name: str) -> object:
        return name_table(CLASSES)[0][module, name]


_ATOMS = [
    b"N",
    b"\x88",
    b"\x89",
    b")",
    b"]",
    b"}",
    b"\x8f",
    b"K\x00",
    b"K\x01",
    b"K\x08",
    b"J\xff\xff\xff\xff",
    b"I01\n",
]
_ATOMS += [
    b"G" + bytes(8),
    b"C\x01b",
    b"C\x08" + bytes(8),
    b"X\x01\0\0\0<",
    b"X\x02\0\0\0f8",
    b"X\x02\0\0\0U2",
    b"F1.5\n",
]
_ATOMS += [b"X\x06\0\0\0latin1", b"X\x01\0\0\0a", b"Va\n", b"U\x01a", b"\x8a\x09" + b"\xff" * 9, b"\x96" + bytes(8)]
_ACTS = [
    b"(",
    b"a",
    b"e",
    b"s",
    b"u",
    b"t",
    b"\x85",
    b"\x86",
    b"\x87",
    b"R",
    b"b",
    b"\x90",
    b"\x91",
    b"\x81",
    b"l",
    b"d",
    b"\x94",
]
_ACTS += [b"h\x00", b"h\x01", b"h\x02", b"q\x00", b"0", b"2", b"1", b"o", b"\x92", b"Q", b"\x93", b"\x97", b"\x98"]


def _gadget(random: Random) -> bytes:
    """A program of opcodes at random, with the names of the table in it, most of what needs the stack after pushes."""
    names = [b"c" + module.encode() + b"\n" + name.encode() + b"\n" for module, name in name_table(CLASSES)[0]]
    array = b"cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01K\x01\x85"
    dtype = b"cnumpy\ndtype\nX\x02\0\0\0f8\x89\x88\x87R(K\x03X\x01\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    pieces = [*_ATOMS, *_ACTS, array + dtype + b"\x89C\x08" + bytes(8) + b"tb", array, dtype]
    program = [
        pieces[i] if i < len(pieces) else names[i % len(names)] for i in random.integers(len(pieces) * 2, size=30)
    ]
    whole = b"(" + b"".join(program[: random.integers(1, 30)]) + b"l."
    return mutated(random, whole) if random.random() < 0.3 else whole


def pickle_kind(_folder: Path) -> Kind:
    originals = []
    for path in sorted(DATA.rglob("*.pkl")):
        frames = pickle.loads(path.read_bytes())
        originals += [pickle.dumps(frames[:count], protocol) for count in (1, 3) for protocol in range(1, 6)]
        originals.append(path.read_bytes())

    def make(random: Random) -> bytes:
        if random.random() < 0.5:
            return _gadget(random)
        data = originals[random.integers(len(originals))]
        return data if random.random() < 0.01 else mutated(random, data)

    def read(path: Path) -> None:
        content = load_pickle(path, kind="synthetic scene", classes=CLASSES)
        if path.stat().st_size < 1 << 17:
            assert equal(content, _Plain(io.BytesIO(path.read_bytes()), fix_imports=False).load())

    return Kind("log.pkl", make, read)


# scene cache


def cache_kind(folder: Path) -> Kind:
    log = logs.log_names(DATA, "test")[0]
    build_caches(DATA, DATA / "maps", "test", folder, log_names=[log], workers=1)
    originals = [path.read_bytes() for path in sorted(folder.rglob(f"*{SUFFIX}"))][:2]
    prefix = struct.Struct("<8sIIII")

    def make(random: Random) -> bytes:
        data = originals[random.integers(len(originals))]
        magic, length, *_ = prefix.unpack_from(data)
        header, body = json.loads(data[prefix.size : prefix.size + length]), bytearray(data[prefix.size + length :])
        arrays = header["arrays"]
        for _ in range(random.integers(1, 4)):
            name = list(arrays)[random.integers(len(arrays))]
            dtype, shape, offset = arrays[name]
            size = np.dtype(dtype).itemsize
            match random.integers(4):
                case 0 if shape and np.prod(shape):
                    at = offset + size * int(random.integers(np.prod(shape)))
                    value = (
                        random.choice([-1, 0, 1, 1 << 20, 1 << 30])
                        if "i" in dtype
                        else random.choice([np.nan, 1e9, -1])
                    )
                    if np.dtype(dtype).kind in "if":
                        kind = np.iinfo(dtype) if np.dtype(dtype).kind == "i" else None
                        value = np.clip(value, kind.min, kind.max) if kind else value
                        body[at : at + size] = np.array(value).astype(dtype).tobytes()
                case 1 if shape:
                    arrays[name] = (dtype, [max(shape[0] + int(random.integers(-3, 4)), 0), *shape[1:]], offset)
                case 2:
                    arrays[name] = (dtype, shape, int(random.integers(len(body))))
                case _:
                    values = header["values"]
                    key = list(values)[random.integers(len(values))]
                    values[key] = [None, -1, 1e300, "../a", [], ["1"] * 9][random.integers(6)]
        text = json.dumps(header).encode()
        text = text.ljust(-(-(prefix.size + len(text)) // 64) * 64 - prefix.size)
        return prefix.pack(magic, len(text), zlib.crc32(text), zlib.crc32(bytes(body)), 0) + text + bytes(body)

    def read(path: Path) -> None:
        scene = load_scene(path)
        scores = score(scene, PLAN[None])
        assert len(scores.score) == 1

    return Kind(f"a{SUFFIX}", make, read)


# map


def map_kind(folder: Path) -> Kind:
    source = DATA / "maps/us-ma-boston/9.12.1817/map.gpkg"
    original, scratch = source.read_bytes(), folder / "scratch.gpkg"
    with sqlite3.connect(source) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = {t: [row[1] for row in database.execute(f'PRAGMA table_info("{t}")')] for t in tables}
        blobs = [row[0] for row in database.execute("SELECT geom FROM lanes_polygons")]
    parts = shapely.MultiPolygon([shapely.from_wkb(blob[40:]) for blob in blobs[:3]])  # behind envelopes of 32 bytes
    blobs += [b"GP\0\1" + struct.pack("<i", 4326) + shapely.to_wkb(parts)] * len(blobs)

    def make(random: Random) -> bytes:
        if random.random() < 0.4:
            return mutated(random, original)
        scratch.write_bytes(original)
        with sqlite3.connect(scratch) as database:
            table = tables[random.integers(len(tables))]
            column = columns[table][random.integers(len(columns[table]))]
            value = [
                None,
                -1,
                1 << 62,
                float("nan"),
                "a" * 99,
                b"",
                mutated(random, blobs[random.integers(len(blobs))]),
            ][random.integers(7)]
            try:
                match random.integers(4):
                    case 0:
                        database.execute(f'DROP TABLE "{table}"')
                    case 1:
                        database.execute(f'ALTER TABLE "{table}" RENAME TO other')
                        database.execute(f'CREATE VIEW "{table}" AS SELECT * FROM other AS a, other AS b, other AS c')
                    case _:
                        database.execute(f'UPDATE "{table}" SET "{column}" = ?', (value,))
            except sqlite3.Error:
                return mutated(random, original)
        return scratch.read_bytes()

    def read(path: Path) -> None:
        place = path.parent / "us-ma-boston/9.12.1817/map.gpkg"
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
        lanes = load_map(place).lanes
        with sqlite3.connect(place) as database:
            fids = [str(fid) for (fid,) in database.execute("SELECT fid FROM lanes_polygons")]
        assert set(fids) <= set(lanes)

    return Kind("map.gpkg", make, read)


# image


def image_kind(_folder: Path) -> Kind:
    pictures = [cv2.resize(cv2.imread(str(path)), (160, 90)) for path in sorted(DATA.rglob("*.jpg"))[:3]]
    originals = [
        cv2.imencode(suffix, picture, flags)[1].tobytes()
        for picture in pictures
        for suffix, flags in ((".jpg", []), (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]), (".png", []), (".bmp", []))
    ]

    def make(random: Random) -> bytes:
        data = originals[random.integers(len(originals))]
        if random.random() < 0.1:
            return data + bytes(int(random.integers(5000)))
        if random.random() < 0.3:  # the header alone
            return mutated(random, data[:40]) + data[40:]
        return mutated(random, data)

    def read(path: Path) -> None:
        image = decode_image(path)
        plain = cv2.imdecode(
            np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        )
        np.testing.assert_array_equal(image, plain[..., ::-1])

    return Kind("a.jpg", make, read)


# tables and documents


def npz_kind(_folder: Path) -> Kind:
    tokens = np.array([f"{index:016x}" for index in range(4)])

    def make(random: Random) -> bytes:
        target = io.BytesIO()
        arrays = {"token": tokens, "poses": np.tile(PLAN, (4, 1, 1)), "interval_length": np.float64(0.5)}
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:
            for name, array in arrays.items():
                content = io.BytesIO()
                np.save(content, array)
                data = content.getvalue()
                if random.random() < 0.4:
                    data = (
                        mutated(random, data[:128], 3) + data[128:] if random.random() < 0.7 else mutated(random, data)
                    )
                if random.random() < 0.95:
                    file.writestr(f"{name}.npy", data)
        data = target.getvalue()
        return mutated(random, data, 3) if random.random() < 0.3 else data

    def read(path: Path) -> None:
        submission = read_submission(path)
        with np.load(path, allow_pickle=False) as file:
            np.testing.assert_array_equal(submission.poses, file["poses"])
            np.testing.assert_array_equal(submission.tokens, file["token"])

    return Kind("a.npz", make, read)


def csv_kind(_folder: Path) -> Kind:
    columns = ["token", *(f"{name}_{k}" for k in range(8) for name in ("x", "y", "heading"))]

    def make(random: Random) -> bytes:
        rows = [columns] + [[f"{index:016x}", *map(str, PLAN.ravel())] for index in range(3)]
        for _ in range(random.integers(4)):
            row = rows[random.integers(1, len(rows))]
            row[random.integers(len(row))] = FORGED_TEXT[random.integers(len(FORGED_TEXT))]
        data = "\n".join(map(",".join, rows)).encode(errors="surrogatepass")
        return mutated(random, data) if random.random() < 0.6 else data

    def read(path: Path) -> None:
        submission = read_submission(path)
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))[1:]
        assert submission.tokens.tolist() == [row[0] for row in rows]
        np.testing.assert_array_equal(submission.poses.reshape(len(rows), -1), [[*map(float, row[1:])] for row in rows])

    return Kind("a.csv", make, read)


def parquet_kind(_folder: Path) -> Kind:
    plain = {name: pa.nulls(3, SCHEMA.field(name).type) for name in SCHEMA.names}
    table = pa.table(plain, schema=SCHEMA)
    target = io.BytesIO()
    pq.write_table(table, target)
    original = target.getvalue()

    def make(random: Random) -> bytes:
        if random.random() < 0.6:
            return mutated(random, original)
        length = len(original)
        return original[: length // 2] + mutated(random, original[length // 2 : -8], 4) + original[-8:]

    def read(path: Path) -> None:
        check_shard(path)
        assert pq.read_metadata(path).num_rows >= 0

    return Kind("part-00000.parquet", make, read)


def _document(random: Random, content: object) -> object:
    """A copy with some of it replaced by what does not belong there."""
    if random.random() < 0.05:
        return [None, -1, 1e300, True, [], {}, FORGED_TEXT[random.integers(len(FORGED_TEXT) - 2)]][random.integers(7)]
    if isinstance(content, dict):
        return {key: _document(random, value) for key, value in content.items() if random.random() > 0.02}
    return [_document(random, value) for value in content] if isinstance(content, list) else content


def jsonl_kind(folder: Path) -> Kind:
    """Episodes of three scenes, more or less damaged; a scene may repeat."""
    empty = np.zeros(0)
    turn = Turn(empty, empty, empty, "A plan.", TurnStatus.OK, 1.0, "", poses=PLAN, score=1.0, scores={"comfort": 1.0})
    header = EpisodesHeader(
        "tiny", "released", all_windows("test").scene_set, "pdms_v1", 1, "privileged", False, 3, 0.0, 0, 3
    )
    scenes = [Episode(letter * 16, letter * 32, (turn, turn), EpisodeStatus.TRUNCATED) for letter in "abc"]
    write_episodes(folder / "whole.jsonl", header, scenes)
    whole = [json.loads(line) for line in (folder / "whole.jsonl").read_text().splitlines()]

    def make(random: Random) -> bytes:
        if random.random() < 0.02:
            return [b"[", b'{"a":', b"9"][random.integers(3)] * int(random.integers(1, 200_000))
        damaged = int(random.integers(len(whole) + 1))  # one line, or none
        lines = [_document(random, line) if number == damaged else line for number, line in enumerate(whole)]
        data = "\n".join(map(json.dumps, lines)).encode()
        return mutated(random, data, 3) if random.random() < 0.5 else data

    def read(path: Path) -> None:
        header, episodes = read_episodes(path)
        first, *others = (json.loads(line) for line in path.open(encoding="utf-8"))
        assert asdict(header) == {name: first[name] for name in vars(header)}
        assert [episode.scene_token for episode in episodes] == [document["token"] for document in others]
        for episode, document in zip(episodes, others, strict=True):
            for read_turn, plain in zip(episode.turns, document["turns"], strict=True):
                assert (read_turn.text, read_turn.status) == (plain["text"], plain["status"])
                assert (None if read_turn.poses is None else read_turn.poses.tolist()) == plain["poses"]

    return Kind("episodes.jsonl", make, read)


def yaml_kind(_folder: Path) -> Kind:
    groups = [["a" * 16, "b" * 16, [["c" * 17, "d" * 17], ["e" * 17, "f" * 17]]] for _ in range(3)]

    def make(random: Random) -> bytes:
        if random.random() < 0.05:
            return b"a: " + [b"[", b"{", b"- ", b"&a "][random.integers(4)] * int(random.integers(1, 50_000))
        data = yaml.safe_dump({KEY: _document(random, groups)}, default_flow_style=bool(random.integers(2))).encode()
        return mutated(random, data, 3) if random.random() < 0.5 else data

    def read(path: Path) -> None:
        found = read_mapping(path)
        plain = yaml.load(path.read_text(), Loader=yaml.CBaseLoader)[KEY]  # Python's own parser refuses more
        assert [[group.now, group.previous] for group in found] == [entry[:2] for entry in plain]

    return Kind("mapping.yaml", make, read)


KINDS: dict[str, Callable[[Path], Kind]] = {
    "pickle": pickle_kind,
    "cache": cache_kind,
    "map": map_kind,
    "image": image_kind,
    "npz": npz_kind,
    "csv": csv_kind,
    "parquet": parquet_kind,
    "jsonl": jsonl_kind,
    "yaml": yaml_kind,
}
SHARES = {"pickle": 0.4, "cache": 0.1, "map": 0.05, "image": 0.1, "npz": 0.1, "csv": 0.1}  # of all inputs
SHARES |= dict.fromkeys(KINDS.keys() - SHARES.keys(), 0.05)
