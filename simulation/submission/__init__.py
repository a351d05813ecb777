"""Submissions: files of planned trajectories, and their scores over a split in one stage or two."""
