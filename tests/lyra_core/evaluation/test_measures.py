"""Measures say what they should of pictures whose faults are known."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from lyra_core.evaluation.measures import blur_filled, color_shift, detail, patch_distance, patches, seen_by_seed
from lyra_core.procedural.clips import Clips


@pytest.fixture
def texture():
    return torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(3))


def blurred(images):
    return functional.avg_pool2d(functional.pad(images, (2, 2, 2, 2), mode="reflect"), 5, 1)


def test_the_shift_of_a_colour_is_its_distance_in_lab():
    grey = torch.full((1, 3, 8, 8), 0.5)
    assert float(color_shift(grey, grey)) == 0.0
    # L* of sRGB 0.5 is 53.39, of 0.6 it is 63.22 (IEC 61966-2-1, CIE 15)
    assert float(color_shift(torch.full((1, 3, 8, 8), 0.6), grey)) == pytest.approx(9.83, abs=0.03)


def test_patches_lie_within_their_mask(texture):
    mask = torch.zeros(48, 64, dtype=torch.bool)
    mask[:10, :12] = True
    rows = patches(texture[0], mask)
    assert rows.shape == (4 * 6, 3 * 49)
    assert torch.allclose(rows.unflatten(1, (3, 49)).mean(2), torch.zeros(24, 3), atol=1e-6)


def test_a_blur_is_far_from_a_texture_that_another_texture_is_near_to(texture):
    whole = torch.ones(48, 64, dtype=torch.bool)
    other = texture[1]
    draw = torch.Generator().manual_seed(0)
    near = patch_distance(patches(other, whole), patches(texture[0], whole), draw)
    far = patch_distance(patches(blurred(texture[:1])[0], whole), patches(texture[0], whole), draw)
    same = patch_distance(patches(texture[0], whole), patches(texture[0], whole), draw)
    assert same == 0.0
    assert far > 10 * near
    # while the error of another texture is larger than that of the blur
    assert (other - texture[0]).square().mean() > (blurred(texture[:1])[0] - texture[0]).square().mean()


def test_too_few_patches_measure_nothing(texture):
    none = torch.zeros(48, 64, dtype=torch.bool)
    found = patch_distance(patches(texture[0], none), patches(texture[1], ~none), torch.Generator())
    assert found != found


def test_a_blur_fill_keeps_what_is_known_and_has_no_detail_elsewhere(texture):
    mask = torch.zeros(2, 48, 64, dtype=torch.bool)
    mask[:, :, :32] = True
    filled = blur_filled(texture, mask)
    assert torch.allclose(filled[..., :32], texture[..., :32], atol=1e-5)
    beyond = ~mask
    beyond[..., 32:40] = False
    assert float((detail(filled, beyond) / detail(texture, beyond)).max()) < 0.3


def test_a_surface_the_seed_shows_small_is_seen_and_what_lies_beyond_its_frame_is_not():
    h, w = 16, 24
    # a wall at 4 m; the camera goes 3 m towards it and then one frame's width to the side
    w2c = torch.eye(4).repeat(1, 3, 1, 1)
    w2c[0, 1, 2, 3], w2c[0, 2, 0, 3] = -3.0, -4.0
    depth = torch.tensor([4.0, 1.0, 4.0])[None, :, None, None].expand(1, 3, h, w)
    K = torch.tensor([[24.0, 0, 12], [0, 24.0, 8], [0, 0, 1]]).expand(1, 3, 3, 3)
    clips = Clips(
        frames=torch.zeros(1, 3, 3, h, w),
        depth_m=depth,
        world_to_cam=w2c,
        intrinsics=K,
        captions=torch.zeros(1, 4, dtype=torch.uint8),
    )
    seen = seen_by_seed(clips, [0, 1, 2])[0]
    assert seen[0].all()
    assert seen[1].all()  # each of its pixels is a quarter of a pixel of the seed
    assert not seen[2].any()
    hidden = depth.clone()
    hidden[:, 0] = 2.0  # something before the wall in the seed
    assert not seen_by_seed(replace(clips, depth_m=hidden), [1]).any()
