"""Maps, images and tables from strangers: read equal, or refused in a sentence within bounded time and memory."""

from __future__ import annotations

import io
import shutil
import sqlite3
import struct
import zipfile
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from mtdrive.commands.record import read_answers
from mtdrive.datasets.reader import read_manifest
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.images import check_image, decode_image
from mtdrive.simulation.navsim_format.maps import load_map
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.simulation.submission.files import read_submission
from mtdrive.simulation.submission.mapping import read_mapping
from support import reference

MAP = reference.MAPS_ROOT / "us-ma-boston/9.12.1817/map.gpkg"
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS fid, x'00' AS geom FROM n"
HEADER = b"GP\0\1" + struct.pack("<i", 4326)


def nested(depth: int) -> bytes:
    return HEADER + b"\1\7\0\0\0\1\0\0\0" * depth + b"\1\1\0\0\0" + bytes(16)


def polygon(rings: int, points: int) -> bytes:
    return HEADER + b"\1\3\0\0\0" + struct.pack("<II", rings, points) + bytes(64)


def multipolygon(parts: int, content: bytes = b"\1\3\0\0\0\0\0\0\0") -> bytes:
    return HEADER + b"\1\6\0\0\0" + struct.pack("<I", parts) + content


FORGED_MAPS = {
    "endless view": (f"DROP TABLE intersections; CREATE VIEW intersections AS {ENDLESS}", "no table"),
    "endless view of the meta data": (f"DROP TABLE meta; CREATE VIEW meta AS {ENDLESS}", "no table"),
    "computed column": (
        "DROP TABLE intersections; CREATE TABLE intersections (fid INTEGER PRIMARY KEY, "
        "geom AS (zeroblob(900000000))); INSERT INTO intersections DEFAULT VALUES",
        "computes geom",
    ),
    "huge blob": ("UPDATE intersections SET geom = zeroblob(200000000)", "too big"),
    "nested geometries": (
        f"UPDATE intersections SET geom = x'{nested(200_000).hex()}'",
        "no polygons or lines",
    ),
    "counts beyond the bytes": (f"UPDATE intersections SET geom = x'{polygon(1, 1 << 31).hex()}'", "no whole one"),
    "endless parts": (f"UPDATE intersections SET geom = x'{multipolygon(1 << 31).hex()}'", "no whole one"),
    "parts that are no polygons": (
        f"UPDATE intersections SET geom = x'{multipolygon(1, multipolygon(0)[8:]).hex()}'",
        "no whole one",
    ),
    "endless rings": (f"UPDATE intersections SET geom = x'{polygon(1 << 31, 0).hex()}'", "no whole one"),
    "text in place of a geometry": ("UPDATE intersections SET geom = 'abc'", "no GeoPackage geometry"),
    "another projection": ("UPDATE meta SET value = '+proj=pipeline +step +init=/etc/passwd'", "no projectedCoord"),
    "no reference system": ("UPDATE gpkg_geometry_columns SET srs_id = 'a'", "no reference system"),
}


@pytest.mark.parametrize(("script", "words"), FORGED_MAPS.values(), ids=FORGED_MAPS)
def test_forged_maps_are_refused(tmp_path, script, words):
    path = tmp_path / "us-ma-boston/9.12.1817/map.gpkg"
    path.parent.mkdir(parents=True)
    shutil.copy(MAP, path)
    with sqlite3.connect(path) as database:
        database.executescript(script)
    with pytest.raises(MTDriveError, match=rf"map\.gpkg.*{words}"):
        load_map(path)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = zlib.compress(bytes(1 << 20))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_large_and_foreign_images_are_refused(tmp_path):
    picture = np.full((32, 48, 3), 90, np.uint8)
    large = bytearray(cv2.imencode(".jpg", picture)[1].tobytes())
    at = large.index(b"\xff\xc0")
    large[at + 5 : at + 9] = struct.pack(">HH", 30_000, 30_000)
    for content, words in (
        (png_header(30_000, 30_000), "30,000 x 30,000"),
        (bytes(large), "30,000 x 30,000"),
        (png_header(64, 64)[:-12], "truncated"),
        (cv2.imencode(".bmp", picture)[1].tobytes(), "no JPEG or PNG"),
        (cv2.imencode(".tiff", picture)[1].tobytes(), "no JPEG or PNG"),
        (b"\xff\xd8" + b"\xff\xc0\0\1" * 100, "truncated"),
    ):
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(MTDriveError, match=words):
            decode_image(tmp_path / "a.jpg")
    with pytest.raises(MTDriveError, match=r"Cannot read the camera image .*b\.jpg"):
        decode_image(tmp_path / "b.jpg")


def test_images_are_read_as_they_are_stored(tmp_path):
    """As Pillow, and with it navsim, reads them: no orientation, bytes behind the end, ends in a comment."""
    noise = np.random.default_rng(0).integers(0, 255, (9, 16, 3), dtype=np.uint8)
    image = Image.fromarray(cv2.resize(noise, (96, 64), interpolation=cv2.INTER_CUBIC))
    turned = image.getexif()
    turned[0x0112] = 6
    image.save(tmp_path / "plain.jpg", quality=95)
    image.save(tmp_path / "turned.jpg", quality=95, exif=turned)
    image.save(tmp_path / "steps.jpg", quality=95, progressive=True)
    whole = (tmp_path / "plain.jpg").read_bytes()
    (tmp_path / "longer.jpg").write_bytes(whole + bytes(4096))
    comment = b"\xff\xfe" + struct.pack(">H", 6) + b"\xff\xd9ab"
    (tmp_path / "comment.jpg").write_bytes(whole[:2] + comment + whole[2:])
    plain = decode_image(tmp_path / "plain.jpg")
    assert np.abs(plain.astype(int) - np.asarray(Image.open(tmp_path / "plain.jpg"))).mean() < 3
    for name in ("turned.jpg", "longer.jpg", "comment.jpg"):
        np.testing.assert_array_equal(decode_image(tmp_path / name), plain)
    assert np.abs(decode_image(tmp_path / "steps.jpg").astype(int) - plain).mean() < 3
    (tmp_path / "cut.jpg").write_bytes(whole[:2] + comment + whole[2 : len(whole) // 2])
    with pytest.raises(MTDriveError, match="truncated"):
        decode_image(tmp_path / "cut.jpg")
    for mode in ("L", "RGBA", "P"):
        image.convert(mode).save(tmp_path / "a.png")
        read = decode_image(tmp_path / "a.png")
        np.testing.assert_array_equal(read, np.asarray(image.convert(mode).convert("RGB")))
    for mode in ("L", "CMYK"):
        image.convert(mode).save(tmp_path / "a.jpg", quality=95)
        read = decode_image(tmp_path / "a.jpg")
        assert np.abs(read.astype(int) - np.asarray(image.convert(mode).convert("RGB"))).mean() < 3


def test_the_check_of_images_refuses_what_does_not_decode(tmp_path):
    """Large files are judged by their two ends, and read whole where these do not tell."""
    noise = np.random.default_rng(0).integers(0, 255, (400, 600, 3), dtype=np.uint8)
    jpeg, png = (cv2.imencode(suffix, noise)[1].tobytes() for suffix in (".jpg", ".png"))
    path = tmp_path / "a.jpg"
    comment = (b"\xff\xfe" + struct.pack(">H", 65535)).ljust(65537, b"a")
    for content in (jpeg, png, jpeg + bytes(300_000), jpeg[:2] + 3 * comment + jpeg[2:], jpeg[:2] + comment + jpeg[2:]):
        path.write_bytes(content)
        check_image(path)
        decode_image(path)
    for content in (b"", jpeg[:200_000], jpeg[:200_000] + bytes(99_999), png[:-12], png_header(30_000, 30_000)):
        path.write_bytes(content)
        for read in (check_image, decode_image):
            with pytest.raises(MTDriveError, match=r"a\.jpg (is truncated|has 30,000)"):
                read(path)
    path.write_bytes(jpeg)
    with path.open("r+b") as file:
        file.truncate(1 << 27)  # longer than what is read at most
    with pytest.raises(MTDriveError, match="truncated"):
        check_image(path)


def npy(shape: str, content: bytes = b"") -> bytes:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def test_forged_archives_are_refused(tmp_path):
    plain = io.BytesIO()
    np.save(plain, np.array(["a"]))
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}]), allow_pickle=True)
    for poses in (npy("(1000000000000, 8, 3)"), npy("(0, 1000000000000)"), pickled.getvalue(), b"", None):
        with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("token.npy", plain.getvalue())
            file.writestr("interval_length.npy", npy("()", struct.pack("<d", 0.5)))
            if poses is not None:
                file.writestr("poses.npy", poses)
            else:
                with file.open("poses.npy", "w") as member:
                    for _ in range(300):
                        member.write(bytes(1 << 20))
        with pytest.raises(MTDriveError, match=r"a\.npz"):
            read_submission(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"a": ' * 100_000, "x" * (1 << 23), "\udcff", "[]", "3", '"a"', "{}"]
)
def test_forged_documents_are_refused(tmp_path, content):
    data = content.encode(errors="surrogateescape")
    (tmp_path / "cache/test").mkdir(parents=True)
    for name, read in (
        ("episodes.jsonl", read_answers),
        ("manifest.json", lambda path: read_manifest(path.parent)),
        ("cache/test/index.json", lambda _: SceneStore(tmp_path / "cache", "test")),
        ("mapping.yaml", read_mapping),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(MTDriveError, match=r"\.$"):
            read(tmp_path / name)


def test_a_mapping_stands_for_no_more_than_is_written(tmp_path):
    laughs = "a: &a [x, x]\n" + "".join(
        f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    (tmp_path / "a.yaml").write_text(laughs + "reactive_all_mapping: [[a, b, *i]]\n")
    with pytest.raises(MTDriveError, match="no list"):
        read_mapping(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("reactive_all_mapping: [[5118e69f55dd7a54, 6992452986292901, [[a, b]]]]\n")
    assert read_mapping(tmp_path / "a.yaml")[0].pairs[0] == ("5118e69f55dd7a54", "6992452986292901")
