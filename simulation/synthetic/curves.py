"""Planar curves with arc length: reference lines of roads, baselines of lanes, paths of agents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STEP = 1.0  # [m] spacing of generated curves, that of nuPlan's baseline paths


@dataclass(frozen=True, eq=False)
class Curve:
    """A polyline of N points with its arc length."""

    s: np.ndarray
    """(N,) arc length [m]."""

    xy: np.ndarray
    """(N, 2) points [m]."""

    heading: np.ndarray
    """(N,) heading [rad], unwrapped."""

    @classmethod
    def from_points(cls, xy: np.ndarray) -> Curve:
        """The curve through points (N, 2), headings from central differences."""
        s = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(xy, axis=0).T))])
        tangent = np.gradient(xy, s, axis=0, edge_order=2 if len(xy) > 2 else 1)
        return cls(s, xy, np.unwrap(np.arctan2(tangent[:, 1], tangent[:, 0])))

    @classmethod
    def from_curvature(cls, pieces: Sequence[tuple[float, float]], ramp: float = 0.0) -> Curve:
        """A curve from the origin along +x whose curvature follows pieces of (length [m], curvature [1/m]).

        ramp: length [m] over which curvature changes linearly from one piece to the next (a clothoid).
        """
        ends = np.cumsum([length for length, _ in pieces])
        fine = np.linspace(0.0, ends[-1], round(ends[-1] / 0.05) + 1)
        step = fine[1] - fine[0]
        kappa = np.array([k for _, k in pieces])[np.searchsorted(ends[:-1], fine, side="right")]
        width = round(ramp / step)
        if width > 1:
            padded = np.pad(kappa, (width // 2, width - width // 2 - 1), mode="edge")
            kappa = np.convolve(padded, np.full(width, 1.0 / width), mode="valid")
        heading = np.concatenate([[0.0], np.cumsum(0.5 * (kappa[1:] + kappa[:-1]) * step)])
        middle = 0.5 * (heading[1:] + heading[:-1])
        xy = np.vstack([[0.0, 0.0], np.cumsum(np.column_stack([np.cos(middle), np.sin(middle)]) * step, axis=0)])
        s = np.linspace(0.0, ends[-1], max(2, round(ends[-1] / STEP) + 1))
        return cls(
            s,
            np.column_stack([np.interp(s, fine, xy[:, 0]), np.interp(s, fine, xy[:, 1])]),
            np.interp(s, fine, heading),
        )

    @property
    def length(self) -> float:
        """Arc length [m]."""
        return float(self.s[-1])

    def moved(self, pose: Sequence[float], origin: float = 0.0) -> Curve:
        """The curve moved rigidly so that its point at arc length `origin` gets the pose (x, y, heading)."""
        anchor = self.at(origin)
        turn = pose[2] - anchor[2]
        rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        return Curve(self.s, (self.xy - anchor[:2]) @ rotation + np.asarray(pose[:2]), self.heading + turn)

    def at(self, s: np.ndarray | float, offset: np.ndarray | float = 0.0) -> np.ndarray:
        """Poses (..., 3) at arc length s, `offset` [m] to the left; straight on beyond both ends."""
        s = np.asarray(s, dtype=np.float64)
        inside = np.clip(s, 0.0, self.length)
        heading = np.interp(inside, self.s, self.heading)
        beyond = s - inside
        x = np.interp(inside, self.s, self.xy[:, 0]) + beyond * np.cos(heading) - offset * np.sin(heading)
        y = np.interp(inside, self.s, self.xy[:, 1]) + beyond * np.sin(heading) + offset * np.cos(heading)
        return np.stack(np.broadcast_arrays(x, y, heading), axis=-1)

    def curvature(self, s: np.ndarray | float) -> np.ndarray:
        """Curvature [1/m] at arc length s, averaged over 2 m."""
        s = np.asarray(s, dtype=np.float64)
        return (self.at(s + 1.0)[..., 2] - self.at(s - 1.0)[..., 2]) / 2.0

    def parallel(self, offset: float, start: float = 0.0, end: float | None = None) -> Curve:
        """The curve `offset` metres to the left, between arc lengths start and end of this one."""
        end = self.length if end is None else end
        inner = self.s[(self.s > start + 1e-6) & (self.s < end - 1e-6)]
        poses = self.at(np.concatenate([[start], inner, [end]]), offset)
        s = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(poses[:, :2], axis=0).T))])
        return Curve(s, poses[:, :2], poses[:, 2])

    def reversed(self) -> Curve:
        """The same points in the other direction."""
        return Curve(self.length - self.s[::-1], self.xy[::-1], self.heading[::-1] + np.pi)

    def project(self, xy: Sequence[float]) -> float:
        """Arc length of the nearest point to xy (2,)."""
        start, step = self.xy[:-1], np.diff(self.xy, axis=0)
        t = np.clip(np.einsum("nd,nd->n", np.asarray(xy) - start, step) / np.einsum("nd,nd->n", step, step), 0, 1)
        nearest = int(np.argmin(np.hypot(*(start + t[:, None] * step - xy).T)))
        return float(self.s[nearest] + t[nearest] * (self.s[nearest + 1] - self.s[nearest]))


def join(curves: Sequence[Curve]) -> Curve:
    """One curve from several that follow each other; shared end points are kept once."""
    s, xy, heading = [curves[0].s], [curves[0].xy], [curves[0].heading]
    for curve in curves[1:]:
        turns = np.round((heading[-1][-1] - curve.heading[0]) / (2 * np.pi)) * 2 * np.pi
        s.append(curve.s[1:] + s[-1][-1])
        xy.append(curve.xy[1:])
        heading.append(curve.heading[1:] + turns)
    return Curve(np.concatenate(s), np.vstack(xy), np.concatenate(heading))


def connect(start: Sequence[float], end: Sequence[float], ramp: float = 0.3, lead: float = 0.0) -> Curve:
    """A smooth curve from pose to pose, with zero curvature at both ends.

    Poses whose headings differ by more than 0.3 rad are joined by straights and one bend, which is as wide as
    there is room for; ramp: share of the bend in which curvature rises (and again falls), lead: length [m] of
    straight kept at both ends. Others are joined by a quintic Hermite curve.
    """
    p0, p1 = np.asarray(start[:2], dtype=np.float64), np.asarray(end[:2], dtype=np.float64)
    t0, t1 = np.array([np.cos(start[2]), np.sin(start[2])]), np.array([np.cos(end[2]), np.sin(end[2])])
    bend = (end[2] - start[2] + np.pi) % (2 * np.pi) - np.pi
    if abs(bend) > 0.3:
        before, after = np.linalg.solve(np.column_stack([t0, t1]), p1 - p0)
        shape = Curve.from_curvature(
            [(15 * ramp, 0.0), (30 * (1 - ramp), bend / 30 / (1 - ramp)), (15 * ramp, 0.0)], 30 * ramp
        )
        reach = np.linalg.solve(np.column_stack([[1.0, 0.0], [np.cos(bend), np.sin(bend)]]), shape.xy[-1])[0]
        scale = (min(before, after) - lead) / reach
        bent = Curve(shape.s * scale, shape.xy * scale, shape.heading).moved(
            (*(p0 + t0 * (before - reach * scale)), start[2])
        )
        xy = np.vstack([p0, bent.xy, p1])
        fine = Curve(
            np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(xy, axis=0).T))]),
            xy,
            np.concatenate([[start[2]], bent.heading, [start[2] + bend]]),
        )
    else:
        d0, d1 = t0 * np.hypot(*(p1 - p0)), t1 * np.hypot(*(p1 - p0))
        u = np.linspace(0.0, 1.0, 201)[:, None]
        blend = u**3 * (10 - 15 * u + 6 * u**2)
        fine = Curve.from_points(
            p0 * (1 - blend)
            + p1 * blend
            + d0 * (u - 6 * u**3 + 8 * u**4 - 3 * u**5)
            + d1 * (-4 * u**3 + 7 * u**4 - 3 * u**5)
        )
    poses = fine.at(np.linspace(0.0, fine.length, max(2, round(fine.length / (STEP / 2)) + 1)))
    poses[[0, -1], :2] = p0, p1
    return Curve(np.linspace(0.0, fine.length, len(poses)), poses[:, :2], poses[:, 2])


def band(curve: Curve, left: float, right: float) -> np.ndarray:
    """Closed ring (N, 2) between two parallels of a curve, offsets to the left [m]."""
    edges = curve.at(curve.s, left)[:, :2], curve.at(curve.s, right)[::-1, :2]
    return np.vstack([*edges, edges[0][:1]])
