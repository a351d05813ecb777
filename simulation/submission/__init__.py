"""Submissions: files of planned trajectories, and their scores over a split.

`files` reads a submission and `scoring` scores it scene by scene. Two-frame extended comfort is added by `one_stage`,
or by `two_stage`, which also aggregates over the groups of frames that `mapping` reads.
"""
