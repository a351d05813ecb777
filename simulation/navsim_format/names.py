"""Check names that come from files before they become parts of paths, one function per kind of name.

A name from a file is untrusted. It must be one plain part of a path (several for a camera image), so that the path
stays below the folder that it is joined to: no `..`, no absolute path, no separator of any system, no control
character. Links inside a data root, such as `sensor_blobs` on another disk, are its owner's choice and are followed.
"""

from __future__ import annotations

import re

from mtdrive.simulation.errors import MTDriveError

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+=@-]{0,127}")
_SPLIT = re.compile(r"[A-Za-z0-9_-]{1,128}")
_HASH = re.compile(r"[0-9a-f]{32}")
LONGEST_SHOWN = 80  # characters of a name that a message shows


def scene_token(name: object) -> str:
    """A scene token: 16 hexadecimal digits in NAVSIM, 17 of a synthetic scene.

    Raises:
        MTDriveError: it cannot name a file, as in the functions below.
    """
    return _part("scene token", name)


def log_name(name: object) -> str:
    """The name of a log, such as 2021.05.12.22.00.38_veh-35_01008_01518."""
    return _part("log name", name)


def split_name(name: object) -> str:
    """The name of a split, such as navtrain: letters, digits, _ and - alone."""
    if not isinstance(name, str) or not _SPLIT.fullmatch(name):
        raise MTDriveError(f"split={_shown(name)} is no split name; it is made of letters, digits, _ and - alone.")
    return name


def map_part(name: object) -> str:
    """A map location, such as us-ma-boston, or its version."""
    return _part("map location or version", name)


def shard_name(name: object) -> str:
    """The file name of a dataset's shard."""
    return _part("shard name", name)


def sample_id(name: object) -> str:
    """The id of a dataset's sample: a scene token and a number."""
    return _part("sample id", name)


def image_hash_name(name: object) -> str:
    """The content hash by which a dataset names an image."""
    if not isinstance(name, str) or not _HASH.fullmatch(name):
        raise MTDriveError(f"{_shown(name)} is no image hash of 32 hexadecimal digits; record the dataset again.")
    return name


def image_file(path: object) -> str:
    """The path of a camera image below its split, such as <log>/CAM_F0/<token>.jpg."""
    if not isinstance(path, str) or not all(map(_PART.fullmatch, path.split("/"))):
        raise MTDriveError(f"{_shown(path)} is no camera image below sensor_blobs: it must be plain names between /.")
    return path


def _part(kind: str, name: object) -> str:
    if not isinstance(name, str) or not _PART.fullmatch(name):
        raise MTDriveError(
            f"{_shown(name)} is no {kind}: it must be up to 128 letters, digits and . _ - + = @, and begin with a "
            "letter, a digit or _."
        )
    return name


def _shown(name: object) -> str:
    text = ascii(name) if isinstance(name, str) else f"an object of type {type(name).__name__}"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
