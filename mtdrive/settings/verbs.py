"""The verbs of the command line, each with its settings."""

from __future__ import annotations

from dataclasses import dataclass

from mtdrive.settings.data import CacheSettings, RecordSettings, SynthSettings
from mtdrive.settings.evaluation import (
    BenchSettings,
    CompareSettings,
    DoctorSettings,
    EvaluateSettings,
    ScoreSettings,
    VisualizeSettings,
)
from mtdrive.settings.quickstart import QuickstartSettings
from mtdrive.settings.submission import SubmitSettings
from mtdrive.settings.training import RlSettings, SftSettings


@dataclass(frozen=True)
class Verb:
    """One verb: `mtdrive.commands.VERB` runs it, `configs/VERB.yaml` has its defaults and help."""

    summary: str
    """What it does, in one line."""

    settings: type
    """The class of its settings."""

    words: str | None = None
    """The key that words of the command line without a "=" are values of; None where all need a key."""


VERBS = {
    "quickstart": Verb("the main job end to end on the embedded synthetic world", QuickstartSettings),
    "synth": Verb("write a synthetic world in NAVSIM's on-disk format", SynthSettings),
    "cache": Verb("compile scenes into memory-mapped scene caches", CacheSettings),
    "score": Verb("PDM scores of trajectories", ScoreSettings),
    "record": Verb("record interactive multi-turn samples", RecordSettings),
    "sft": Verb("supervised fine-tuning of a planner", SftSettings),
    "rl": Verb("multi-turn reinforcement learning (mtGRPO) of a planner", RlSettings),
    "evaluate": Verb("per-turn scores of a planner beside the baselines", EvaluateSettings),
    "compare": Verb("evaluations side by side: mtdrive compare RUN RUN ...", CompareSettings, words="runs"),
    "submit": Verb("a planner's plans as a submission pickle of navsim's leaderboards", SubmitSettings),
    "visualize": Verb(
        "pictures of scenes, plans and conversations: still, moving, or a page to browse", VisualizeSettings
    ),
    "bench": Verb("how long caching and scoring take on this machine", BenchSettings),
    "doctor": Verb("check this installation", DoctorSettings),
}
