"""Spherical harmonics of Gaussian colours, in the sign convention of 3D Gaussian splatting.

Basis of degree 1: -C1 y, C1 z, -C1 x. Degree 2: xy, -yz, 2zz-xx-yy, -xz, xx-yy, with the constants
below. Source: 3DGS (Kerbl et al. 2023), appendix; real harmonics of Ramamoorthi and Hanrahan
(2001).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.errors import GaussiansError

SH_C0 = 0.28209479177387814
SH_C1 = 0.4886025119029199
SH_C2 = (
    1.0925484305920792,
    -1.0925484305920792,
    0.31539156525252005,
    -1.0925484305920792,
    0.5462742152960396,
)
_ROOT3 = 3.0**0.5


def rotate_sh(sh: Float[Tensor, "n k 3"], rotations: Float[Tensor, "#n 3 3"]) -> Float[Tensor, "n k 3"]:
    """Coefficients of the same colour field turned by a rotation, exactly, for degree 0 to 2.

    Degree 1 is a vector and degree 2 a symmetric traceless matrix in disguise, so both turn without
    Wigner matrices.

    Args:
        sh: coefficients. [n k 3]
        rotations: old frame to new frame, one for each Gaussian, or one for all. [n 3 3] or [1 3 3]

    Raises:
        GaussiansError: more than 9 coefficients.
    """
    if sh.shape[1] > 9:
        raise GaussiansError(
            f"rotate_sh wants degree 0 to 2 (1, 4 or 9 coefficients), found {sh.shape[1]}; cut sh[:, :9] first"
        )
    out = [sh[:, :1]]
    if sh.shape[1] >= 4:
        vector = torch.stack([-sh[:, 3], -sh[:, 1], sh[:, 2]], dim=1)  # x y z, over colours
        x, y, z = (rotations @ vector).unbind(1)
        out.append(torch.stack([-y, z, -x], dim=1))
    if sh.shape[1] == 9:
        out.append(_rotate_degree2(sh[:, 4:], rotations))
    return torch.cat(out, dim=1)


def _rotate_degree2(c: Tensor, rotations: Tensor) -> Tensor:
    # The field is d^T M d up to the common size of the constants.
    xy, yz, xz = c[:, 0] / 2, -c[:, 1] / 2, -c[:, 3] / 2
    axial, planar = c[:, 2] / (2.0 * _ROOT3), c[:, 4] / 2
    matrix = torch.stack([planar - axial, xy, xz, xy, -planar - axial, yz, xz, yz, 2.0 * axial], dim=-1).unflatten(
        -1, (3, 3)
    )  # [n 3 colours] of 3 x 3
    turn = rotations[:, None]
    matrix = turn @ matrix @ turn.mT
    return torch.stack(
        [
            2.0 * matrix[..., 0, 1],
            -2.0 * matrix[..., 1, 2],
            _ROOT3 * matrix[..., 2, 2],
            -2.0 * matrix[..., 0, 2],
            matrix[..., 0, 0] - matrix[..., 1, 1],
        ],
        dim=1,
    )
