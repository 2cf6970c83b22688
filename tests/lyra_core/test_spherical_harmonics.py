import pytest
import torch
from torch import Tensor

from lyra_core.errors import GaussiansError
from lyra_core.geometry.rotation import quat_to_matrix
from lyra_core.spherical_harmonics import SH_C0, SH_C1, SH_C2, rotate_sh


def colour(sh: Tensor, directions: Tensor) -> Tensor:
    """The field at directions, by the basis as 3DGS renderers write it. [n d 3]"""
    x, y, z = directions.unbind(-1)
    basis = torch.stack(
        [
            torch.full_like(x, SH_C0),
            -SH_C1 * y,
            SH_C1 * z,
            -SH_C1 * x,
            SH_C2[0] * x * y,
            SH_C2[1] * y * z,
            SH_C2[2] * (2 * z * z - x * x - y * y),
            SH_C2[3] * x * z,
            SH_C2[4] * (x * x - y * y),
        ],
        dim=-1,
    )[..., : sh.shape[1]]
    return basis @ sh


@pytest.mark.parametrize("coefficients", [1, 4, 9])
def test_turned_field_is_the_old_field_seen_from_turned_directions(coefficients: int) -> None:
    rng = torch.Generator().manual_seed(0)
    sh = torch.randn(20, coefficients, 3, generator=rng, dtype=torch.float64)
    rotations = quat_to_matrix(torch.randn(20, 4, generator=rng, dtype=torch.float64))
    directions = torch.randn(20, 50, 3, generator=rng, dtype=torch.float64)
    directions = directions / directions.norm(dim=-1, keepdim=True)
    turned = directions @ rotations.mT
    torch.testing.assert_close(colour(rotate_sh(sh, rotations), turned), colour(sh, directions))


def test_one_rotation_serves_all() -> None:
    rng = torch.Generator().manual_seed(1)
    sh = torch.randn(7, 9, 3, generator=rng)
    rotation = quat_to_matrix(torch.randn(1, 4, generator=rng))
    torch.testing.assert_close(rotate_sh(sh, rotation), rotate_sh(sh, rotation.expand(7, 3, 3)), atol=1e-6, rtol=1e-5)


def test_degree_three_is_refused() -> None:
    with pytest.raises(GaussiansError, match="degree 0 to 2"):
        rotate_sh(torch.zeros(2, 16, 3), torch.eye(3)[None])
