"""A smooth camera path through a few key poses, at constant speed.

Centres run on a centripetal Catmull-Rom spline (Yuksel, Schaefer and Keyser 2011: no cusps, no
loops), rotations on a spherical cubic (squad, Shoemake 1987), focal lengths on the same spline as
logarithms.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.geometry.camera import slerp
from lyra_core.geometry.rotation import invert_rigid, matrix_to_quat, rigid, unit_quat_to_matrix

# Points a segment at which arc length is measured: its error is far below a pixel.
DENSE_STEPS = 256
# Key poses nearer than this (metres and radians) are one and the same.
SAME_POSE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPoses:
    """Poses to pass through, in order.

    Attributes:
        cam_to_world: rigid, OpenCV camera to world, metres. [n 4 4] float64
        intrinsics: pixels. [n 3 3] float64
    """

    cam_to_world: Float[Tensor, "n 4 4"]
    intrinsics: Float[Tensor, "n 3 3"]


def interpolate_key_poses(keys: KeyPoses, num_frames: int) -> tuple[Float[Tensor, "t 4 4"], Float[Tensor, "t 3 3"]]:
    """world_to_cam and intrinsics of `num_frames` cameras, uniform in arc length.

    Arc length is sqrt(|dx|^2 + (r dangle)^2), with r the mean distance between key positions (1 m
    where they do not move), so that turning on the spot takes time too. First and last cameras are
    the first and last key poses.
    """
    centers, quats = (
        keys.cam_to_world[:, :3, 3],
        _aligned(matrix_to_quat(keys.cam_to_world[:, :3, :3])),
    )
    focal = torch.stack([keys.intrinsics[:, 0, 0], keys.intrinsics[:, 1, 1]], -1).log()
    point = keys.intrinsics[:, :2, 2]
    values = torch.cat([centers, focal, point], -1)
    gaps = (centers[1:] - centers[:-1]).norm(dim=-1)
    moving = gaps[gaps > SAME_POSE]
    radius = float(moving.mean()) if len(moving) else 1.0
    turns = 2 * torch.atan2((quats[1:] - quats[:-1]).norm(dim=-1), (quats[1:] + quats[:-1]).norm(dim=-1)) * 2
    lengths = (gaps**2 + (radius * turns) ** 2).sqrt()
    distinct = torch.cat([torch.tensor([True]), lengths > SAME_POSE])
    values, quats = values[distinct], quats[distinct]
    if len(values) == 1:
        still, rotation = values.repeat(num_frames, 1), quats.repeat(num_frames, 1)
    else:
        # Centripetal knots: square roots of the distances.
        knots = torch.cat([torch.zeros(1, dtype=torch.float64), lengths[distinct[1:]].sqrt().cumsum(0)])
        at = _uniform(values[:, :3], quats, knots, radius, num_frames)
        still, rotation = _catmull_rom(values, knots, at), _squad(quats, knots, at)
    intrinsics = torch.zeros(num_frames, 3, 3, dtype=torch.float64)
    intrinsics[:, 0, 0], intrinsics[:, 1, 1] = still[:, 3].exp(), still[:, 4].exp()
    intrinsics[:, :2, 2], intrinsics[:, 2, 2] = still[:, 5:], 1.0
    return invert_rigid(rigid(unit_quat_to_matrix(rotation), still[:, :3])), intrinsics


def _aligned(quats: Tensor) -> Tensor:
    """Signs chosen so that neighbours are on the same half sphere."""
    aligned = [quats[0]]
    for quat in quats[1:]:
        aligned.append(-quat if float(quat @ aligned[-1]) < 0 else quat)
    return torch.stack(aligned)


def _uniform(centers: Tensor, quats: Tensor, knots: Tensor, radius: float, num_frames: int) -> Tensor:
    """Knot values of `num_frames` points at equal arc length, ends included."""
    segment = torch.arange(DENSE_STEPS, dtype=torch.float64) / DENSE_STEPS
    dense = (knots[:-1, None] + (knots[1:] - knots[:-1])[:, None] * segment).flatten()
    dense = torch.cat([dense, knots[-1:]])
    moved = _catmull_rom(centers, knots, dense).diff(dim=0).norm(dim=-1)
    turned = 2 * _squad(quats, knots, dense).diff(dim=0).norm(dim=-1)
    length = torch.cat([torch.zeros(1, dtype=torch.float64), (moved**2 + (radius * turned) ** 2).sqrt().cumsum(0)])
    lengths = torch.linspace(0, 1, num_frames, dtype=torch.float64) * length[-1]
    index = torch.searchsorted(length, lengths, right=True).clamp(1, len(length) - 1)
    span = (length[index] - length[index - 1]).clamp_min(1e-300)
    fraction = ((lengths - length[index - 1]) / span).clamp(0, 1)
    return torch.lerp(dense[index - 1], dense[index], fraction)


def _segments(knots: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    index = torch.searchsorted(knots, at, right=True).clamp(1, len(knots) - 1) - 1
    return index, (at - knots[index]) / (knots[index + 1] - knots[index])


def _catmull_rom(values: Tensor, knots: Tensor, at: Tensor) -> Tensor:
    """Cubic Hermite through `values`, tangents from the parabola through three neighbours
    (one-sided at the ends)."""
    index, t = _segments(knots, at)
    step = (knots[1:] - knots[:-1])[:, None]
    slope = (values[1:] - values[:-1]) / step
    tangent = (
        torch.cat([slope[:1], slope[-1:]])
        if len(values) == 2
        else torch.cat(
            [
                slope[:1],
                (slope[:-1] * step[1:] + slope[1:] * step[:-1]) / (step[1:] + step[:-1]),
                slope[-1:],
            ]
        )
    )
    t = t[:, None]
    h = step[index]
    start, end = values[index], values[index + 1]
    return (
        (2 * t**3 - 3 * t**2 + 1) * start
        + (t**3 - 2 * t**2 + t) * h * tangent[index]
        + (3 * t**2 - 2 * t**3) * end
        + (t**3 - t**2) * h * tangent[index + 1]
    )


def _squad(quats: Tensor, knots: Tensor, at: Tensor) -> Tensor:
    index, t = _segments(knots, at)
    inner = quats.clone()
    if len(quats) > 2:
        middle = quats[1:-1]
        pull = _log(_product(_conjugate(middle), quats[2:])) + _log(_product(_conjugate(middle), quats[:-2]))
        inner[1:-1] = _product(middle, _exp(-pull / 4))
    outer_arc = slerp(quats[index], quats[index + 1], t)
    inner_arc = slerp(inner[index], inner[index + 1], t)
    inner_arc = torch.where((outer_arc * inner_arc).sum(-1, keepdim=True) < 0, -inner_arc, inner_arc)
    return _aligned(slerp(outer_arc, inner_arc, 2 * t * (1 - t)))


def _conjugate(q: Tensor) -> Tensor:
    return q * q.new_tensor([1.0, -1.0, -1.0, -1.0])


def _product(a: Tensor, b: Tensor) -> Tensor:
    aw, av, bw, bv = a[..., :1], a[..., 1:], b[..., :1], b[..., 1:]
    scalar = aw * bw - (av * bv).sum(-1, keepdim=True)
    return torch.cat([scalar, aw * bv + bw * av + torch.linalg.cross(av, bv)], -1)


def _log(q: Tensor) -> Tensor:
    """Half the rotation vector of unit quaternions, on the shorter way."""
    q = torch.where(q[..., :1] < 0, -q, q)
    norm = q[..., 1:].norm(dim=-1, keepdim=True)
    angle = torch.atan2(norm, q[..., :1])
    return q[..., 1:] * torch.where(norm < 1e-12, torch.ones_like(norm), angle / norm.clamp_min(1e-300))


def _exp(v: Tensor) -> Tensor:
    angle = v.norm(dim=-1, keepdim=True)
    return torch.cat([angle.cos(), v * torch.sinc(angle / torch.pi)], -1)
