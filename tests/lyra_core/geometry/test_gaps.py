"""Gaps between points of one surface close; holes behind an edge stay."""

import pytest
import torch

from lyra_core.config.rollout import CORRECTED_WARP
from lyra_core.geometry.gaps import close_gaps
from lyra_core.geometry.warp import WarpSource, forward_warp


def plane(depth_m, size=(24, 40)):
    """A flat picture whose colour is linear in its columns, seen from `depth_m`, then from half as far and farther."""
    height, width = size
    ramp = torch.linspace(-0.8, 0.8, width).expand(1, 1, 3, height, width)
    K = torch.tensor([[40.0, 0, (width - 1) / 2], [0, 40.0, (height - 1) / 2], [0, 0, 1]])
    source = WarpSource(
        values=ramp.contiguous(),
        depth_m=torch.full((1, 1, height, width), depth_m),
        world_to_cam=torch.eye(4)[None, None],
        intrinsics=K[None, None],
    )
    nearer = torch.eye(4).repeat(2, 1, 1)
    nearer[:, 2, 3] = torch.tensor([-0.75 * depth_m, 0.5 * depth_m])
    return forward_warp(source, nearer, K.repeat(2, 1, 1), CORRECTED_WARP)


def test_a_surface_that_came_nearer_is_whole_again():
    warp = plane(4.0)
    assert float(warp.mask[0].float().mean()) < 0.7  # four times as near: its pixels are four apart
    values, depth, landed = close_gaps(warp.values, warp.depth_m, warp.mask, 8)
    inner = slice(3, -3)
    assert landed[0, inner, inner].all()
    torch.testing.assert_close(depth[0, inner, inner], torch.full_like(depth[0, inner, inner], 1.0))
    across = values[0, 0, 12, inner]
    assert (across.diff() > -1e-5).all()  # the ramp goes on between the points
    assert torch.equal(values[warp.mask[:, None].expand_as(values)], warp.values[warp.mask[:, None].expand_as(values)])
    # farther away nothing lies between pixels; what is outside the picture stays outside
    assert torch.equal(landed[1], warp.mask[1])


def test_holes_behind_an_edge_stay():
    landed = torch.tensor([[[True, True, False, False, True, True]]])
    depth = torch.tensor([[[2.0, 2.0, 0.0, 0.0, 6.0, 6.0]]])
    values = torch.zeros(1, 3, 1, 6)
    assert torch.equal(close_gaps(values, depth, landed, 8)[2], landed)
    alike = torch.tensor([[[2.0, 2.0, 0.0, 0.0, 2.1, 2.1]]])
    assert close_gaps(values, alike, landed, 8)[2].all()
    assert torch.equal(close_gaps(values, alike, landed, 1)[2], landed)  # too wide


@pytest.mark.parametrize("gap_px", [0, 3])
def test_nothing_to_close(gap_px):
    landed = torch.ones(2, 4, 5, dtype=torch.bool)
    values, depth = torch.rand(2, 3, 4, 5), torch.rand(2, 4, 5) + 1
    found = close_gaps(values, depth, landed, gap_px)
    assert all(torch.equal(a, b) for a, b in zip(found, (values, depth, landed), strict=True))
    empty = close_gaps(values, depth, ~landed, gap_px)
    assert not empty[2].any()


def test_kernels_are_the_plain_path():
    generator = torch.Generator().manual_seed(0)
    values, depth = torch.rand(3, 4, 20, 30, generator=generator), torch.rand(3, 20, 30, generator=generator) * 0.4 + 2
    landed = torch.rand(3, 20, 30, generator=generator) > 0.8
    plain, fast = (close_gaps(values, depth, landed, 5, backend=way) for way in ("torch", "numba"))
    assert torch.equal(plain[2], fast[2])
    torch.testing.assert_close(fast[0], plain[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(fast[1], plain[1], rtol=1e-5, atol=1e-6)
