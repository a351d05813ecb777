"""Synthetic second-stage scenes of navsim v2: what a car would see had it driven elsewhere than the recorded one."""

from __future__ import annotations

TOKEN_LENGTH = 17  # by which navsim tells them from recorded scenes, whose tokens have 16 characters


def is_synthetic(token: str) -> bool:
    """Whether a token names a synthetic scene: it has no recorded driver, and no log holds it."""
    return len(token) == TOKEN_LENGTH
