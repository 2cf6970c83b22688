"""Super-resolution of clips: against plain paths, across chunks and processes, and what the shipped weights gain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from flows.recipes import find_recipe
from lyra_core.errors import FrameError, LyraWarning, RecipeError
from lyra_core.formats.image import open_image
from lyra_core.image_metrics import psnr_db
from lyra_core.mini.backward_warp import backward_warp
from lyra_core.mini.enlarge import Enlarger, enlarged_depth, reduced_image
from lyra_core.mini.files import load_super_resolution
from lyra_core.mini.manifest import super_resolution_digest
from lyra_core.mini.super_resolution import TINY_SUPER_RESOLUTION, build_super_resolution, enlarged
from lyra_core.models import MODELS
from lyra_core.values import CameraPath, VideoClip
from lyra_core.video.world_state import to_bytes, to_unit_range
from tasks.weights import weights_digests

PHOTOGRAPH = Path(__file__).parents[3] / "examples" / "seeds" / "coffee_table.jpg"
H, W = 128, 192  # of the photograph


def photograph():
    return open_image(PHOTOGRAPH, W, H).image


def clip_of(photo, num_frames=17, step_m=0.01):
    """A wall 2 m away, seen by a camera that moves sideways; frames are the photograph reduced, moved with it."""
    h, w = H // 4, W // 4
    K = torch.tensor([[w * 1.0, 0, w / 2], [0, w * 1.0, h / 2], [0, 0, 1.0]], dtype=torch.float64)
    w2c = torch.eye(4, dtype=torch.float64).repeat(num_frames, 1, 1)
    w2c[:, 0, 3] = -step_m * torch.arange(num_frames)
    full = to_unit_range(photo)[None]
    frames, truths = [], []
    for t in range(num_frames):
        shift = 2 * step_m * t * w / 2.0 / w  # of the frame's half width, to the left
        theta = torch.tensor([[[1.0, 0, shift], [0, 1.0, 0]]])
        grid = functional.affine_grid(theta, [1, 3, H, W], align_corners=False)
        moved = functional.grid_sample(full, grid, mode="bicubic", padding_mode="border", align_corners=False)
        truths.append(to_bytes(moved.clamp(-1, 1))[0])
        frames.append(reduced_image(truths[-1], 4))
    depth = torch.zeros(num_frames, h, w)
    depth[::8] = 2.0
    cameras = CameraPath(world_to_cam=w2c, intrinsics=K.repeat(num_frames, 1, 1), image_height=h, image_width=w)
    clip = VideoClip(frames=torch.stack(frames), cameras=cameras, fps=16.0, depth_m=depth)
    return clip, torch.stack(truths)


def tiny(seed=3):
    network = build_super_resolution(TINY_SUPER_RESOLUTION, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():  # the last layers begin at zero and would hide everything
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


@pytest.mark.parametrize("step_m", [0.01, 0.0173])
def test_compiled_loops_agree_with_the_plain_network(step_m):
    photo = photograph()
    clip, _ = clip_of(photo, 5, step_m)
    fast = Enlarger(tiny(), name="tiny").enlarge(photo, clip).frames
    plain = Enlarger(tiny(), name="tiny", is_plain=True).enlarge(photo, clip).frames
    difference = (fast.int() - plain.int()).abs()
    assert int(difference.max()) <= 2
    assert float((difference > 0).float().mean()) < 0.03
    assert torch.equal(fast[0], photo)


def test_an_interrupted_enlargement_goes_on_to_equal_bytes(tmp_path):
    photo = photograph()
    clip, _ = clip_of(photo)
    enlarger = Enlarger(tiny(), name="tiny", chunk_frames=8)
    whole = enlarger.enlarge(photo, clip).frames
    steps = []
    assert torch.equal(enlarger.enlarge(photo, clip, tmp_path, lambda done, all_: steps.append(done)).frames, whole)
    assert steps == [9, 17]
    first, second = sorted(tmp_path.iterdir())
    second.unlink()
    kept = first.read_bytes()
    assert torch.equal(enlarger.enlarge(photo, clip, tmp_path).frames, whole)
    assert first.read_bytes() == kept
    second.write_bytes(b"cut")
    with pytest.warns(LyraWarning, match="enlarged again"):
        assert torch.equal(enlarger.enlarge(photo, clip, tmp_path).frames, whole)
    other = Enlarger(tiny(4), name="other", chunk_frames=8)  # chunks of another network are not taken for its own
    assert not torch.equal(other.enlarge(photo, clip, tmp_path).frames, whole)


def test_cameras_and_depth_grow_with_the_frames():
    photo = photograph()
    clip, _ = clip_of(photo, 9)
    larger = Enlarger(None, name="transfer").enlarge(photo, clip)
    assert (larger.cameras.image_height, larger.cameras.image_width) == (H, W)
    assert torch.allclose(larger.cameras.intrinsics[:, 0, 0], 4 * clip.cameras.intrinsics[:, 0, 0])
    assert torch.allclose(larger.depth_m[8], torch.full((H, W), 2.0), rtol=1e-4)
    assert not larger.depth_m[1].any()


def test_shipped_weights_gain_on_bicubic_and_on_the_untrained_transfer():
    """Frames as a network generates them: soft, noisy, with a depth that is 5 % off."""
    photo = photograph()
    clip, truth = clip_of(photo, 9)
    noise = torch.Generator().manual_seed(0)
    planes = clip.frames.permute(0, 3, 1, 2).float()
    soft = 0.5 * planes + 0.5 * functional.avg_pool2d(planes, 3, stride=1, padding=1, count_include_pad=False)
    soft += 3 * torch.randn(soft.shape, generator=noise)
    frames = soft.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    clip = replace(clip, frames=frames, depth_m=1.05 * clip.depth_m)
    bicubic = to_bytes(enlarged(torch.stack([to_unit_range(frame) for frame in frames])).clamp(-1, 1))
    network = Enlarger(load_super_resolution(), name="shipped").enlarge(photo, clip).frames
    transfer = Enlarger(None, name="transfer").enlarge(photo, clip).frames
    inside = slice(16, W - 16)

    def db(frames):
        return psnr_db(frames[8, :, inside] / 255.0, truth[8, :, inside] / 255.0)

    assert db(network) > db(bicubic) + 2.5
    assert db(network) > db(transfer) + 1.0


def test_what_does_not_fit_is_refused():
    photo = photograph()
    clip, _ = clip_of(photo, 2)
    enlarger = Enlarger(None, name="transfer")
    with pytest.raises(FrameError, match="must have 192x128 pixels, found 96x64"):
        enlarger.enlarge(reduced_image(photo, 2), clip)
    clip.depth_m.zero_()
    with pytest.raises(FrameError, match="needs the depth of its first frame"):
        enlarger.enlarge(photo, clip)


def test_depth_of_a_plane_stays_a_plane():
    inverse = torch.linspace(0.2, 0.5, 24).repeat(16, 1)
    larger = 1 / enlarged_depth(1 / inverse)[:, 8:-8]
    steps = larger.diff(dim=1)
    assert torch.allclose(steps, steps.mean().expand_as(steps), atol=2e-5)


def test_what_is_carried_covers_what_both_cameras_see():
    clip, _ = clip_of(photograph(), 9, 0.05)
    w2c, K = clip.cameras.world_to_cam, clip.cameras.intrinsics
    warp = backward_warp(clip.depth_m[:1], w2c[:1], K[:1], w2c[8:9], K[8:9])
    cover = warp.cover.float()
    assert float(cover[..., :30].mean()) > 0.95
    assert float(cover[..., -6:].mean()) < 0.5  # came into view


def test_recipes_with_it_have_ids_and_weights_of_their_own():
    small, large = find_recipe("mini"), find_recipe("mini-hd")
    assert small.hashed_fields() != large.hashed_fields()
    assert weights_digests(large) == (*weights_digests(small), super_resolution_digest())
    assert "super_resolution" not in small.hashed_fields()["video"]
    assert MODELS["mini"].native.enlarged(4).size == (large.width, large.height)
    with pytest.raises(RecipeError, match="multiples of 32 pixels"):
        find_recipe("mini-hd", ["width=232"])
    with pytest.raises(RecipeError, match="only 'mini' has one"):
        find_recipe("lyra2", ["video.super_resolution=network"])
