"""Pickles from strangers: each is read as `pickle.load` would, or refused in a sentence; the process lives."""

from __future__ import annotations

import collections
import pickle
import struct
import sys
import types
from datetime import UTC, date, datetime, time, timedelta, timezone
from pathlib import Path, PosixPath, PurePosixPath, PureWindowsPath

import numpy as np
import pytest

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.logs import ego_poses, read_log
from mtdrive.simulation.navsim_format.restricted_pickle import load_pickle
from mtdrive.simulation.navsim_format.synthetic_scenes import CLASSES
from mtdrive.simulation.scene import ObjectType

LOGS = sorted((Path(__file__).parent / "data").rglob("*.pkl"))


def equal(first: object, second: object) -> bool:
    """The same types, values and bits, all the way down."""
    if type(first) is not type(second):
        return False
    if isinstance(first, np.ndarray):
        return (first.dtype, first.shape, first.tobytes("A")) == (second.dtype, second.shape, second.tobytes("A"))
    if isinstance(first, np.generic):
        return first.dtype == second.dtype and first.tobytes() == second.tobytes()
    if isinstance(first, dict):
        return list(first) == list(second) and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple | collections.deque):
        return len(first) == len(second) and all(map(equal, first, second))
    return first == second


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_logs_are_read_bit_by_bit(path, tmp_path):
    frames = pickle.loads(path.read_bytes())
    assert equal(load_pickle(path), frames)
    for protocol in range(6):
        (tmp_path / "log.pkl").write_bytes(pickle.dumps(frames[:5], protocol))
        assert equal(load_pickle(tmp_path / "log.pkl"), frames[:5])


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_of_every_protocol_is_read(tmp_path, protocol):
    arrays = [np.arange(6, dtype=code).reshape(2, 3) for code in ("i1", "u2", "i4", "u8", "f2", "f4", "f8", "c16")]
    content = {
        "arrays": [
            *arrays,
            arrays[-1].T,
            np.empty((0, 7)),
            np.array(3.5),
            np.array([b"ab", b""]),
            np.array(["é", "ab"]),
        ],
        "numbers": [0, -1, 255, -256, 70000, -(2**31), 2**31, 2**63 - 1, -(2**63), 2**64 - 1, 1.5, 1j],
        "scalars": [np.float32(1.5), np.int64(-3), np.float64(0.1), np.str_("ab"), np.bool_(True)],
        "texts": ["", "é\n\\u", "\U0001f600", b"", b"\x00\xff", bytearray(b"ab"), bytearray()],
        "containers": [(), (1,), [[]], {}, {1, 2}, frozenset({"a"}), set(), collections.OrderedDict(a=1), True, None],
        "keys": {1: 0, "a": 1, 2.5: 2, False: 3, None: 4, b"b": 5},
        "shared": [arrays[0]] * 3,
        "long": list(range(5000)),
    }
    content["flags"] = np.array([True, False]) if protocol else None  # the text protocol escapes the bytes of flags
    path = tmp_path / "log.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    loaded = load_pickle(path)
    assert equal(loaded, content)
    assert loaded["shared"][0] is loaded["shared"][2]


ZONE = timezone(timedelta(hours=8), "Singapore")


@pytest.mark.parametrize("protocol", range(2, 6))
def test_values_of_the_standard_library_are_read(tmp_path, protocol):
    content = {
        "days": [date(2021, 6, 11), date.min, date.max],
        "times": [time(12, 10, 21), time(1, 2, 3, 456_789, UTC), time.max],
        "moments": [datetime(2021, 6, 11, 12, 10, 21, 654_321), datetime(2021, 6, 11, tzinfo=ZONE), datetime.max],
        "spans": [timedelta(1, 2, 3), -timedelta.resolution, UTC, ZONE],
        "paths": [PurePosixPath("a/b.jpg"), PureWindowsPath("c:/d"), PurePosixPath()],
        "queues": [collections.deque([1, [2]]), collections.deque(range(9), maxlen=3), collections.deque()],
        "keys": {date(2021, 6, 11): 0, datetime(2021, 6, 11, tzinfo=ZONE): 1, PurePosixPath("a"): 2, ZONE: 3},
        "ordered": collections.OrderedDict(b=1, a=collections.OrderedDict()),
    }
    path = tmp_path / "log.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    loaded = load_pickle(path)
    assert equal(loaded, content)
    assert [moment.tzinfo for moment in loaded["moments"]] == [None, ZONE, None]
    assert loaded["queues"][1].maxlen == 3


def test_repeated_hours_are_told_apart(tmp_path):
    moments = [datetime(2021, 11, 7, 1, 30, fold=fold) for fold in (0, 1)] + [time(1, 30, fold=1)]
    (tmp_path / "log.pkl").write_bytes(pickle.dumps(moments, 4))
    assert [moment.fold for moment in load_pickle(tmp_path / "log.pkl")] == [0, 1, 1]


def test_paths_and_default_dicts_are_read_without_what_they_do(tmp_path):
    """A path cannot reach the disk, and what a default dict makes of a missing key is not in the file."""
    factories = [None, list, dict, int, float, str, bool, tuple, set, collections.OrderedDict]
    tables = [collections.defaultdict(factory, {"a": [1]}) for factory in factories]
    (tmp_path / "log.pkl").write_bytes(pickle.dumps([PosixPath("/etc/passwd"), *tables]))
    where, *loaded = load_pickle(tmp_path / "log.pkl")
    assert (type(where), str(where)) == (PurePosixPath, "/etc/passwd")
    assert all(equal(table, {"a": [1]}) for table in loaded)


def test_a_rotation_may_be_a_quaternion_of_pyquaternion(tmp_path, monkeypatch):
    """pyquaternion 0.9.9 keeps one field, q."""
    module = types.ModuleType("pyquaternion.quaternion")
    module.Quaternion = type("Quaternion", (), {"__module__": module.__name__})
    monkeypatch.setitem(sys.modules, "pyquaternion", types.ModuleType("pyquaternion"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    frames = pickle.loads(LOGS[0].read_bytes())
    turned = []
    for frame in frames:
        rotation = module.Quaternion()
        rotation.q = np.array(frame["ego2global_rotation"])
        turned.append(frame | {"ego2global_rotation": rotation})
    (tmp_path / "log.pkl").write_bytes(pickle.dumps(turned))
    np.testing.assert_array_equal(ego_poses(read_log(tmp_path / "log.pkl")), ego_poses(frames))


# Pieces of forged pickles, as opcodes
def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def name(module: str, attribute: str) -> bytes:
    return text(module) + text(attribute) + b"\x93"


def raw(value: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(value)) + value


NDARRAY, DTYPE = name("numpy", "ndarray"), name("numpy", "dtype")
RECONSTRUCT = name("numpy._core.multiarray", "_reconstruct")
ENUM = name("nuplan.common.actor_state.tracked_objects_types", "TrackedObjectType")
FILE = name("pathlib", "PosixPath")
DATE, MOMENT = name("datetime", "date"), name("datetime", "datetime")
DEQUE, TABLE = name("collections", "deque"), name("collections", "defaultdict")
QUATERNION = name("pyquaternion.quaternion", "Quaternion")
NEW_ARRAY = RECONSTRUCT + NDARRAY + b"K\x00\x85C\x01b\x87R"
PLAIN = b"(J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"


def dtype(code: str, state: bytes | None = None) -> bytes:
    made = DTYPE + text(code) + b"\x89\x88\x87R"
    return (
        made
        + (b"(K\x03" + text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t" if state is None else state)
        + b"b"
    )


def array(shape: bytes, of: bytes, content: bytes) -> bytes:
    return NEW_ARRAY + b"(K\x01" + shape + of + b"\x89" + content + b"tb"


F8 = dtype("f8")
EIGHT = raw(bytes(8))
FORGED = {
    "array over foreign bytes": NDARRAY + b"K\x01\x85" + F8 + EIGHT + b"\x87R",
    "array at a negative offset": NDARRAY + b"(K\x01\x85" + F8 + EIGHT + b"J\x00\xff\xff\xfftR",
    "new array of objects": RECONSTRUCT + NDARRAY + b"K\x02\x85C\x01O\x87R",
    "new array with a size": RECONSTRUCT + NDARRAY + b"J\xff\xff\xff\x7f\x85C\x01b\x87R",
    "array of objects": array(b"K\x01\x85", dtype("O8"), EIGHT),
    "array of dates": array(b"K\x01\x85", dtype("M8"), EIGHT),
    "negative lengths": array(b"J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86", F8, EIGHT),
    "lengths beyond the bytes": array(b"J\xff\xff\xff\x7f\x85", F8, EIGHT),
    "lengths that overflow": array(b"J\x00\x00\x00\x40J\x00\x00\x00\x40J\x00\x00\x00\x40\x87", F8, EIGHT),
    "lengths beside a zero": array(b"K\x00J\xff\xff\xff\x7f\x86", F8, raw(b"")),
    "items of no bytes": array(b"J\xff\xff\xff\x7f\x85", dtype("U0", b"(K\x03X\x01\0\0\0<NNNK\0K\x04K\x08t"), raw(b"")),
    "flags that are no flags": array(
        b"K\x08\x85", dtype("b1", b"(K\x03X\x01\0\0\0|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"), raw(b"\xff" * 8)
    ),
    "dtype of other size": dtype("U2", b"(K\x03X\x01\0\0\0<NNNK\x03K\x04K\x08t"),
    "dtype of negative size": dtype("U2", b"(K\x03X\x01\0\0\0<NNNJ\xf8\xff\xff\xffK\x04K\x08t"),
    "dtype with fields": dtype("f8", b"(K\x03X\x01\0\0\0<N}}J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"),
    "dtype that says it holds objects": dtype("f8", b"(K\x03X\x01\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3ft"),
    "numpy's one dtype changed": DTYPE + text("f8") + b"\x89\x89\x87R.",
    "state of an array twice": array(b"K\x01\x85", F8, EIGHT) + b"(K\x01K\x02\x85" + F8 + b"\x89" + EIGHT + b"tb",
    "state of an array that is in use": NEW_ARRAY + b"\x940h\x00(K\x01K\x01\x85" + F8 + b"\x89" + EIGHT + b"tb",
    "item of an array set": array(b"K\x01\x85", F8, EIGHT) + b"K\x00K\x01s",
    "list appended to an array": array(b"K\x01\x85", F8, EIGHT) + b"K\x01a",
    "class of arrays changed": NDARRAY + b"}" + text("x") + b"K\x01sb",
    "function changed": name("_codecs", "encode") + b"N}" + text("__code__") + b"K\x01s\x86b",
    "enum changed": ENUM + b"K\x01\x85R}" + text("_value_") + b"K\x07sb",
    "class of enums changed": ENUM + b"N}" + text("VEHICLE") + b"K\x07s\x86b",
    "class of paths changed": FILE + b"N}" + text("parts") + b"K\x07s\x86b",
    "path changed": FILE + text("a") + b"\x85RN}" + text("_drv") + b"K\x07s\x86b",
    "class of records changed": name("nuplan.common.actor_state.agent", "Agent") + b"N}" + text("x") + b"Ns\x86b",
    "instance of an enum": ENUM + b")\x81",
    "any codec": name("_codecs", "encode") + text("a" * 100) + text("punycode") + b"\x86R",
    "bytes of any size": name("builtins", "bytes") + b"J\xff\xff\xff\x7f\x85R",
    "bytearray of any size": name("builtins", "bytearray") + b"J\xff\xff\xff\x7f\x85R",
    "number of any size": b"\x8b\x00\x00\x10\x00" + b"\xff" * (1 << 20),
    "text of a number of any size": b"L" + b"9" * 100_000 + b"L\n",
    "memo of any size": b"Nr\xff\xff\xff\x7f",
    "memo of any size in text": b"Np4000000000\n",
    "bytes that are not there": b"\x8e" + struct.pack("<Q", 1 << 40),
    "bytearray that is not there": b"\x96" + struct.pack("<Q", 1 << 40),
    "frame that is not there": b"\x95" + struct.pack("<Q", 1 << 40),
    "text across the end of a frame": b"\x95" + struct.pack("<Q", 3) + text("abc"),
    "frame within a frame": b"\x95" + struct.pack("<Q", 11) + b"\x95" + struct.pack("<Q", 1) + b"N",
    "length without end": b"\x8d" + b"\xff" * 8,
    "nested tuples": b"N" + b"\x85" * 300_000,
    "nested tuples as a key": b"}N" + b"\x85" * 300_000 + b"Ns",
    "nested lists": b"]" * 300_000 + b"a" * 299_999,
    "nested records": b"N" + (name("nuplan.common.actor_state.agent", "Agent") + b")\x81}" + text("x")) * 1000,
    "tuple as a key": b"}N\x85Ns",
    "array as a key": b"}" + array(b"K\x01\x85", F8, EIGHT) + b"Ns",
    "list in a set": b"\x8f(]\x90",
    "list within itself": b"]\x94h\x00a",
    "list changed after use": b"]\x94]h\x00ah\x00Na\x86",
    "doubled again and again": b"]\x94" + b"".join(b"](h%ch%ce\x94" % (k, k) for k in range(60)),
    "doubled tuples": b"N\x85\x94" + b"".join(b"h%ch%c\x86\x94" % (k, k) for k in range(60)),
    "long text often": text("a" * 1_000_000) + b"\x94]" + b"(" + b"h\x00" * 1000 + b"e",
    "memory for nothing": b"(" + b"\x8f" * 3_000_000 + b"l",
    "day that is none": DATE + raw(b"\x07\xe5\x0d\x01") + b"\x85R",
    "hour that is none": MOMENT + raw(b"\x07\xe5\x05\x01\x63\0\0\0\0\0") + b"\x85R",
    "date of numbers": DATE + b"M\xe5\x07K\x05K\x01\x87R",
    "zone that is none": MOMENT + raw(b"\x07\xe5\x05\x01\0\0\0\0\0\0") + text("UTC") + b"\x86R",
    "zone of another class": name("datetime", "tzinfo") + b")R",
    "parsed date": name("datetime", "datetime.strptime") + text("1") + text("%H") + b"\x86R",
    "span of any size": name("datetime", "timedelta") + b"J\xff\xff\xff\x7fK\0K\0\x87R",
    "date changed": DATE + raw(b"\x07\xe5\x05\x01") + b"\x85R}" + text("year") + b"K\x01sb",
    "path of a number": FILE + b"K\x01\x85R",
    "path of a path's class": FILE + FILE + b"\x85R",
    "path that reads": name("pathlib", "Path.read_bytes") + b")R",
    "default dict that calls": TABLE + name("_codecs", "encode") + b"\x85R",
    "default dict of dates": TABLE + DATE + b"\x85R",
    "default dict of what it holds": TABLE + name("builtins", "list") + b"}\x86R",
    "type called": name("builtins", "list") + b")R",
    "type as data": b"]" + name("builtins", "list") + b"a",
    "type in a tuple": name("builtins", "list") + b"\x85",
    "deque of what it holds": DEQUE + b"K\x01\x85\x85R",
    "deque of any size": DEQUE + b")" + b"J\xff\xff\xff\xff\x86R",
    "deque as a key": b"}" + DEQUE + b")RNs",
    "deques for nothing": b"(" + (DEQUE + b"\x94" + b"0h\x00)R" * 300_000) + b"l",
    "deque within itself": DEQUE + b")R\x94h\x00a",
    "quaternion of text": QUATERNION + b")\x81}" + text("q") + text("abcd") + b"sb",
    "quaternion of three": QUATERNION + b")\x81}" + text("q") + array(b"K\x01\x85", F8, EIGHT) + b"sb",
    "quaternion with a method": QUATERNION + b")\x81}" + text("__array__") + b"K\x01sb",
    "quaternion called": QUATERNION + b")R",
    "persistent id": b"Pid\n",
    "binary persistent id": b"NQ",
    "extension": b"\x82\x01",
    "buffer from elsewhere": b"\x97",
    "instance by name": b"(ibuiltins\nset\n",
    "instance of an object": b"(" + name("builtins", "set") + b"o",
    "instance with keywords": name("nuplan.common.actor_state.agent", "Agent") + b")}\x92",
    "name that is no text": b"K\x01K\x02\x93",
    "name within a name": name("builtins", "set.__init__"),
    "name as data": name("builtins", "set"),
    "class as data": b"]" + NDARRAY + b"a",
    "set of what is no list": name("builtins", "set") + text("a" * 100) + b"\x85R" + b"K\x01\x85R",
    "call of a number": b"K\x01)R",
    "nothing on the stack": b"R",
    "mark without end": b"(((",
    "mark as data": b"(a",
    "two results": b"NN",
    "unknown opcode": b"\xfe",
    "newer protocol": b"\x80\x7f",
}


@pytest.mark.parametrize("content", FORGED.values(), ids=FORGED)
def test_forged_pickles_are_refused_in_a_sentence(tmp_path, content):
    path = tmp_path / "forged.pkl"
    path.write_bytes(content + b".")
    with pytest.raises(MTDriveError, match=r"forged\.pkl .*\.$"):
        load_pickle(path, kind="synthetic scene", classes=CLASSES)
    assert ObjectType.VEHICLE.name == "VEHICLE"
    assert PurePosixPath("a").parts == ("a",)
    assert np.dtype("f8").itemsize == 8
