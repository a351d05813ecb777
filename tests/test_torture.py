"""tools/torture.py in small: what is killed at any moment and started again ends as if it had been left alone."""

from torture import torment


def test_killed_and_started_again_ends_as_if_left_alone(tmp_path):
    outcomes = torment(["cache", "record"], kills=2, seed=0, work=tmp_path, scenes=8)
    for verb, outcome in outcomes.items():
        assert outcome.kills == 2
        assert outcome.chains >= 1
        assert not outcome.faults, (verb, outcome)
