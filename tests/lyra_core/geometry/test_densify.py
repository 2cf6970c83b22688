"""Points between pixels: a wall that comes nearer hides what is behind it, and its colours and depth stay a plane's."""

from dataclasses import replace

import torch

from lyra_core.config.rollout import CORRECTED_WARP
from lyra_core.geometry.densify import densify
from lyra_core.geometry.warp import WarpSource, forward_warp

H, W = 24, 40
K = torch.tensor([[30.0, 0.0, 19.5], [0.0, 30.0, 11.5], [0.0, 0.0, 1.0]])


def camera(z=0.0, x=0.0):
    pose = torch.eye(4)
    pose[0, 3], pose[2, 3] = -x, -z
    return pose


def source(depth, values=None):
    colours = torch.zeros(1, 1, 3, H, W) if values is None else values
    return WarpSource(
        values=colours, depth_m=depth[None, None], world_to_cam=camera()[None, None], intrinsics=K[None, None]
    )


def warped(made, pose):
    return forward_warp(made, pose[None], K[None], CORRECTED_WARP)


def test_one_point_a_pixel_is_the_source_itself():
    plain = source(torch.full((H, W), 3.0))
    assert densify(plain, 1, CORRECTED_WARP) is plain


def test_a_near_wall_hides_what_is_behind_it():
    """A small wall at 2 m before one at 8 m: seen from 1.4 m nearer it fills the picture, its pixels 3.3 apart."""
    depth = torch.full((H, W), 8.0)
    depth[6:18, 12:28] = 2.0
    values = torch.full((1, 1, 3, H, W), -0.5)
    values[..., 6:18, 12:28] = 0.5
    plain, dense = (warped(densify(source(depth, values), d, CORRECTED_WARP), camera(1.4)) for d in (1, 2))
    behind = lambda warp: float((warp.depth_m[0] > 1.0).float().mean())  # noqa: E731
    assert behind(plain) > 0.1
    assert behind(dense) == 0.0
    assert dense.mask.all()
    assert torch.allclose(dense.values, torch.tensor(0.5), atol=1e-3)


def test_points_between_lie_on_the_plane():
    """A floor: inverse depth is linear in pixels, so points between have exactly its depth."""
    rows = torch.arange(H, dtype=torch.float32)
    depth = (60.0 / (rows + 4.0))[:, None].expand(H, W).contiguous()
    made = densify(source(depth), 2, CORRECTED_WARP)
    assert made.values.shape == (1, 4, 3, H, W)
    below = made.depth_m[0, 2]  # half a pixel down
    torch.testing.assert_close(below[:-1], (60.0 / (rows[:-1] + 4.5))[:, None].expand(H - 1, W))
    assert made.intrinsics[0, 2, 1, 2] == K[1, 2] - 0.5
    assert not made.mask[0, 2, -1].any()  # nothing is beyond the border


def test_nothing_lies_between_two_surfaces():
    depth = torch.full((H, W), 8.0)
    depth[:, 20:] = 2.0
    made = densify(source(depth), 3, CORRECTED_WARP)
    for view in range(1, 9):
        if view % 3:  # beside the pixel
            assert not made.mask[0, view, :, 19].any()


def test_masked_pixels_carry_nothing_and_give_nothing():
    plain = replace(source(torch.full((H, W), 3.0)), mask=torch.zeros(1, 1, H, W, dtype=torch.bool))
    assert not densify(plain, 2, CORRECTED_WARP).mask.any()
