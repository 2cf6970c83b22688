"""Rotations and rigid transforms in the precision and on the device of their tensors.

The project stores quaternions as wxyz; the xyzw pair exists because released networks speak it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def quat_to_matrix(quats: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrices of quaternions wxyz of any non-zero length."""
    return _matrix(quats, 2.0 / (quats * quats).sum(-1))


def unit_quat_to_matrix(quats: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrices, in float64, of quaternions wxyz that are normalised first: those of cameras.

    The last bits differ from those of quat_to_matrix, and cameras of worlds have these.
    """
    return _matrix(torch.nn.functional.normalize(quats.to(torch.float64), dim=-1), 2.0)


def _matrix(quats: Tensor, s: Tensor | float) -> Tensor:
    w, x, y, z = quats.unbind(-1)
    rows = [
        1.0 - s * (y * y + z * z),
        s * (x * y - z * w),
        s * (x * z + y * w),
        s * (x * y + z * w),
        1.0 - s * (x * x + z * z),
        s * (y * z - x * w),
        s * (x * z - y * w),
        s * (y * z + x * w),
        1.0 - s * (x * x + y * y),
    ]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def matrix_to_quat(matrices: Float[Tensor, "*b 3 3"], *, has_positive_w: bool = True) -> Float[Tensor, "*b 4"]:
    """Unit quaternions wxyz, by the largest of the four components (Shepperd 1978).

    Args:
        matrices: rotations.
        has_positive_w: w >= 0; otherwise the largest component is positive.
    """
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = matrices.flatten(-2).unbind(-1)
    squares = torch.stack(
        [
            1.0 + m00 + m11 + m22,
            1.0 + m00 - m11 - m22,
            1.0 - m00 + m11 - m22,
            1.0 - m00 - m11 + m22,
        ],
        dim=-1,
    ).clamp_min(0.0)
    candidates = torch.stack(
        [
            torch.stack([squares[..., 0], m21 - m12, m02 - m20, m10 - m01], dim=-1),
            torch.stack([m21 - m12, squares[..., 1], m10 + m01, m02 + m20], dim=-1),
            torch.stack([m02 - m20, m10 + m01, squares[..., 2], m12 + m21], dim=-1),
            torch.stack([m10 - m01, m20 + m02, m21 + m12, squares[..., 3]], dim=-1),
        ],
        dim=-2,
    )
    best = squares.argmax(-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    quats = candidates.gather(-2, best)[..., 0, :]
    quats = quats / quats.norm(dim=-1, keepdim=True)
    return torch.where(quats[..., :1] < 0, -quats, quats) if has_positive_w else quats


def rotation_vector_to_matrix(vectors: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rotations about the vectors by their lengths in radians; smooth at zero, where refinements start."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    return torch.linalg.matrix_exp(skew)


def quat_xyzw_to_matrix(quats: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 3 3"]:
    """As quat_to_matrix for the order xyzw."""
    return quat_to_matrix(quats.roll(1, dims=-1))


def matrix_to_quat_xyzw(matrices: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 4"]:
    """As matrix_to_quat in the order xyzw."""
    return matrix_to_quat(matrices).roll(-1, dims=-1)


def multiply_quats(a: Float[Tensor, "*b 4"], b: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 4"]:
    """The Hamilton product a b of quaternions wxyz: first rotate by b, then by a."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        dim=-1,
    )


def nearest_rotation(matrices: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """The rotation closest in the Frobenius norm: the chordal mean of rotations is that of their
    sum.
    """
    u, _, vh = torch.linalg.svd(matrices)
    sign = torch.ones_like(matrices[..., 0])
    sign[..., 2] = torch.linalg.det(u @ vh)
    return (u * sign[..., None, :]) @ vh


def rotation_angle_deg(matrices: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b"]:
    """The angle of each rotation, degrees, accurate for small angles too."""
    skew = torch.stack(
        [
            matrices[..., 2, 1] - matrices[..., 1, 2],
            matrices[..., 0, 2] - matrices[..., 2, 0],
            matrices[..., 1, 0] - matrices[..., 0, 1],
        ],
        dim=-1,
    )
    trace = matrices.diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.rad2deg(torch.atan2(skew.norm(dim=-1), trace - 1.0))


def rigid(rotation: Float[Tensor, "... 3 3"], translation: Float[Tensor, "... 3"]) -> Float[Tensor, "... 4 4"]:
    """4x4 transforms, float64, from rotations and translations."""
    matrix = torch.zeros(*rotation.shape[:-2], 4, 4, dtype=torch.float64)
    matrix[..., :3, :3] = rotation
    matrix[..., :3, 3] = translation
    matrix[..., 3, 3] = 1.0
    return matrix


def invert_rigid(
    transform: Float[Tensor, "*b 4 4"], dtype: torch.dtype | None = torch.float64
) -> Float[Tensor, "*b 4 4"]:
    """Inverses of rigid transforms: a transpose, exact where a general inverse is not.

    Unlike a general solver it can be recorded as a CUDA graph.

    Args:
        transform: rotations and translations.
        dtype: of the result; None keeps the transforms' own, as networks do.
    """
    given = transform if dtype is None else transform.to(dtype)
    rotation = given[..., :3, :3].mT
    top = torch.cat([rotation, -(rotation @ given[..., :3, 3:])], -1)
    last = torch.zeros_like(given[..., 3:, :])
    last[..., 3] = 1
    return torch.cat([top, last], -2)
