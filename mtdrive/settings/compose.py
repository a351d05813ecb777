"""Compose the settings of a verb from its YAML file and the overrides of a command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from mtdrive.planner.settings import PlannerSettings
from mtdrive.settings.types import AsTyped
from mtdrive.settings.validate import typed
from mtdrive.settings.verbs import VERBS
from mtdrive.simulation.errors import MTDriveError

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
TRAINED = "trained"  # the planner group of a folder that training has made


def load_settings(verb: str, overrides: Sequence[str] = ()) -> Any:
    """The settings of a verb, an instance of its class.

    Args:
        overrides: in Hydra's grammar. `planner=FOLDER` stands for `planner=trained planner.model=FOLDER`, and words
            without a "=" for values of the verb's key for them (`Verb.words`).

    Raises:
        MTDriveError: an override does not parse, names a key that does not exist, or gives a value that is not
            allowed; or a key without default is missing.
    """
    import hydra  # slow to import, and `mtdrive --help` does without it
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    settings = VERBS[verb].settings
    try:
        with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
            keyed = _with_keys(overrides, VERBS[verb].words)
            prepared = [text for override in keyed for text in _prepared(override, settings)]
            config = hydra.compose(config_name=verb, overrides=prepared)
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        said = " ".join(f"{' '.join(overrides)}: {error}".split())
        raise MTDriveError(
            f"Cannot apply {said} (see mtdrive {verb} --help; a value with other signs needs quotes of its own, as in "
            "\"out='café, 2'\")"
        ) from error
    missing = sorted("planner" if key == "planner.model" else key for key in OmegaConf.missing_keys(config))
    if missing:
        raise MTDriveError(f"mtdrive {verb} needs {' and '.join(f'{key}=...' for key in missing)}.")
    return typed(settings, OmegaConf.to_container(config))


def planner_settings(planner: str, **changes: Any) -> PlannerSettings:
    """What `mtdrive.planner.models.load_planner` needs of a planner.

    Args:
        planner: as in planner=... of a command: a file of `configs/planner`, or a folder that training has made.
        changes: of its keys.

    Raises:
        MTDriveError: there is no such planner, or a value is not allowed.
    """
    trained = {"model": planner} if _is_folder(planner) else {}
    with (CONFIGS / "planner" / f"{TRAINED if trained else planner}.yaml").open() as file:
        return typed(PlannerSettings, yaml.safe_load(file) | trained | changes)


def _with_keys(overrides: Sequence[str], key: str | None) -> list[str]:
    """The overrides; where words without a "=" are values of a key, these together as one override of it.

    Raises:
        MTDriveError: the key is given as well.
    """
    words = [override for override in overrides if "=" not in override]
    if key is None or not words:
        return list(overrides)
    keyed = [override for override in overrides if "=" in override]
    if any(override.startswith(f"{key}=") for override in keyed):
        raise MTDriveError(f"{words[0]} is one of {key}, which {key}=... gives as well; leave one of both out.")
    quoted = ("'" + word.replace("'", "\\'") + "'" for word in words)
    return [*keyed, f"{key}=[{','.join(quoted)}]"]


def _prepared(override: str, settings: type) -> Iterator[str]:
    """An override as Hydra is to read it."""
    key, equals, value = override.partition("=")
    keys = _keys_of(settings)
    if key == "planner" and _is_folder(value):
        yield f"planner={TRAINED}"
        yield f"planner.model={value}"
    elif equals and key in keys.as_typed:
        yield f"{key}={_quoted(value)}"
    elif any(key == group or key.startswith(f"{group}.") for group in keys.open):
        yield f"++{override}"
    else:
        yield override


def _is_folder(planner: str) -> bool:
    """Whether planner=... gives a folder rather than a file of `configs/planner`.

    Raises:
        MTDriveError: it can be neither.
    """
    name = planner.strip("'\"")
    named = sorted(path.stem for path in (CONFIGS / "planner").glob("*.yaml") if path.stem != TRAINED)
    if name in (*named, TRAINED, "null", ""):
        return False
    if "/" not in name and not Path(name).is_dir():
        raise MTDriveError(f"planner={name} is neither a planner ({', '.join(named)}) nor the folder of one.")
    return True


def _quoted(value: str) -> str:
    """A text, or a list of texts, in quotes; what already has some, and null, as it is."""
    if value == "null" or any(mark in value for mark in "'\"$"):
        return value
    if value.startswith("[") and value.endswith("]"):
        return f"[{','.join(_quoted(item.strip()) for item in value[1:-1].split(',') if item.strip())}]"
    return f"'{value}'"


@dataclass(frozen=True)
class _Keys:
    """What Hydra has to know of the types of settings."""

    as_typed: frozenset[str]
    """Keys whose values stay text, whatever they look like."""

    open: frozenset[str]
    """Groups to which any key can be added."""


@cache
def _keys_of(settings: type) -> _Keys:
    as_typed, opened = set(), set()
    for key, hint in _hints(settings):
        as_typed |= {key} if any(isinstance(part, AsTyped) for part in _parts(hint)) else set()
        opened |= {key} if any(get_origin(part) in (dict, Mapping) for part in _parts(hint)) else set()
    return _Keys(frozenset(as_typed), frozenset(opened))


def _hints(settings: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key with its type, those of groups as group.key."""
    for name, hint in get_type_hints(settings, include_extras=True).items():
        yield f"{prefix}{name}", hint
        for part in _parts(hint):
            if isinstance(part, type) and is_dataclass(part):
                yield from _hints(part, f"{prefix}{name}.")


def _parts(hint: Any) -> Iterator[Any]:
    """A type and what it is made of, without the values of a dict."""
    yield hint
    if get_origin(hint) not in (dict, Mapping):
        for part in get_args(hint):
            yield from _parts(part)
