"""What a step of reinforcement learning logs about its episodes, and how many failures end the run.

Every metric is a (sum, count) pair, so that several processes merge exactly.

    pdms/turn_t                 score in force after turn t: an episode that has stopped keeps its last plan, a failed
                                answer leaves the plan before; 0 as long as there is none
    <sub-metric>/turn_t         likewise, over episodes that have a plan
    extended_comfort/turn_t     likewise, of plans on scenes with a recorded human: share that moves as evenly as the
                                human does, by the limits of two-frame extended comfort (see Assessment)
    reward/turn_t               reward of the answers given in turn t
    parse_errors/turn_t         share of the answers given in turn t that hold no trajectory
    turns, clean                turns taken; share of episodes that ended with a clean plan
    reversing, standing         share of valid plans that move backwards between two poses, or less than 1 m in all:
                                shapes that collect sub-scores without driving
    invalid_trajectories        share of answers whose trajectory the scorer refuses
    scorer_errors               share of episodes that a failing scorer ended
    reward_std                  standard deviation of the last reward in a group, over groups
    groups_without_gradient, episodes_without_gradient    shares whose advantages are all zero
    sampling_entropy            mean of -log p over the sampled tokens [nat]
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mtdrive.rollout.episode import Episode, EpisodeStatus, TurnStatus
from mtdrive.simulation.errors import MTDriveError

BACKWARDS = 0.1  # [m] between two poses
STANDING = 1.0  # [m] over the whole plan
Sums = dict[str, tuple[float, float]]  # name -> sum of the values, and how many


def episode_metrics(groups: Sequence[Sequence[Episode]], advantages: np.ndarray, turns: int) -> Sums:
    """The metrics of the module docstring.

    Args:
        groups: S groups of G episodes.
        advantages: (S, G, T).
        turns: T, most turns of an episode.
    """
    sums: defaultdict[str, list[float]] = defaultdict(list)
    for group, advantage in zip(groups, advantages, strict=True):
        sums["groups_without_gradient"].append(not advantage.any())
        sums["episodes_without_gradient"] += list(~advantage.any(1))
        counted = [episode for episode in group if episode.status is not EpisodeStatus.ERROR]
        if counted:
            sums["reward_std"].append(float(np.std([episode.turns[-1].reward for episode in counted])))
        for episode in group:
            sums["scorer_errors"].append(episode.status is EpisodeStatus.ERROR)
        for episode in counted:
            _episode(sums, episode, turns)
    return {name: (float(np.sum(values)), float(len(values))) for name, values in sums.items()}


def _episode(sums: defaultdict[str, list[float]], episode: Episode, turns: int) -> None:
    sums["turns"].append(len(episode.turns))
    sums["clean"].append(episode.status is EpisodeStatus.COMPLETED)
    score, comfort = 0.0, np.nan
    scores: Mapping[str, float] = {}
    for number in range(1, turns + 1):
        if number <= len(episode.turns):
            turn = episode.turns[number - 1]
            sums[f"reward/turn_{number}"].append(turn.reward)
            sums[f"parse_errors/turn_{number}"].append(turn.status is TurnStatus.PARSE_ERROR)
            sums["invalid_trajectories"].append(turn.status is TurnStatus.INVALID_TRAJECTORY)
            sums["sampling_entropy"] += list(-turn.log_probs)
            if turn.status is TurnStatus.OK:
                assert turn.score is not None
                assert turn.poses is not None
                score, scores, comfort = turn.score, turn.scores, turn.extended_comfort
                ahead = np.diff(turn.poses[:, 0], prepend=0.0) * np.cos(turn.poses[:, 2])
                ahead += np.diff(turn.poses[:, 1], prepend=0.0) * np.sin(turn.poses[:, 2])
                sums["reversing"].append(ahead.min() < -BACKWARDS)
                sums["standing"].append(np.abs(ahead).sum() < STANDING)
        sums[f"pdms/turn_{number}"].append(score)
        if np.isfinite(comfort):
            sums[f"extended_comfort/turn_{number}"].append(comfort)
        for name, value in scores.items():
            if name != "score":
                sums[f"{name}/turn_{number}"].append(value)


def merged(parts: Iterable[Sums]) -> Sums:
    """The metrics of several processes as those of one."""
    total: Sums = {}
    for part in parts:
        for name, (value, count) in part.items():
            before = total.get(name, (0.0, 0.0))
            total[name] = (before[0] + value, before[1] + count)
    return total


class FailureGuard:
    """Ends a run in which too large a share of something fails, on average over the last steps.

    Args:
        what: can fail, in the plural, for the message.
        limit: largest share allowed, in [0, 1].
        window: steps averaged over; those before the run count as sound.
    """

    def __init__(self, what: str, limit: float, window: int = 10):
        self.what, self.limit = what, limit
        self._shares = deque([0.0] * window, maxlen=window)

    def check(self, share: float, cure: str) -> None:
        """Count a step in which `share` failed.

        Raises:
            MTDriveError: the mean share is above the limit; the message ends with `cure`.
        """
        self._shares.append(share)
        mean = float(np.mean(self._shares))
        if mean > self.limit:
            raise MTDriveError(
                f"Stopped because {mean:.0%} of the {self.what} failed over the last {len(self._shares)} steps, "
                f"more than the {self.limit:.0%} allowed; {cure}."
            )
