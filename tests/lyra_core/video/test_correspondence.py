"""Correspondence maps: golden numbers, block order, range of the fourth channel."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lyra_core.config.rollout import CorrespondenceConfig
from lyra_core.errors import RecipeError
from lyra_core.video.correspondence import canonical_coordinates, generated_maps, history_maps, normalise_depth
from lyra_core.video.memory import StoredView
from lyra_core.video.rays import latent_cells


def wall(frame_id=0, depth=2.0, height=32, width=48):
    return StoredView(
        frame_id=frame_id,
        depth_m=torch.full((height, width), depth),
        world_to_cam=torch.eye(4),
        intrinsics=torch.tensor([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]]),
    )


def cameras(num=8):
    w2c = torch.eye(4).repeat(num, 1, 1)
    w2c[:, 0, 3] = -torch.linspace(0, 0.8, num)
    return w2c, wall().intrinsics.expand(num, 3, 3)


def test_golden_coords(golden_dir):
    golden = load_file(golden_dir / "memory.safetensors")["coords.n5"]
    found = canonical_coordinates(golden.shape[0], *golden.shape[-2:])
    assert (found - golden).abs().max() <= 1e-5


def test_golden_coord_to_latent(golden_dir):
    memory, golden = (load_file(golden_dir / f"{n}.safetensors") for n in ("memory", "conditioning"))
    height, width = memory["unproject.depth"].shape[-2:]
    maps = np.random.RandomState(31).uniform(-1, 1, [1, 4, 80, height, width])
    cells = latent_cells(torch.from_numpy(maps[0, :, 3::4]).float(), 8)
    for slot in (0, 19):
        wanted = golden[f"coord_to_latent.t{slot}"][0]
        assert (cells[:, slot] - wanted).abs().max() <= 1e-5


def test_history_differs_in_the_fourth_channel_of_the_first_block():
    maps = history_maps((32, 48), CorrespondenceConfig())
    assert maps.shape == (1280, 5, 4, 6)
    assert (maps[192:256] == -1).all()
    assert all((maps[256 * b + 192 : 256 * (b + 1)] == 1).all() for b in range(1, 5))
    assert torch.equal(maps[128, :, 0, 0], torch.linspace(-1, 1, 5))


def test_best_frame_fills_the_first_block_and_the_last_slot():
    w2c, K = cameras()
    maps = generated_maps([wall(8), wall(0)], w2c, K, (32, 48))
    assert maps.shape == (1280, 2, 4, 6)
    slot = maps.view(5, 4, 64, 2, 4, 6)[:, 2, :, 0, 2, 3].mean(1)
    assert torch.allclose(slot[:2], torch.tensor([1.0, 0.5]), atol=1e-5)
    empty = maps.view(5, 4, 64, 2, 4, 6)[2:]
    assert (empty[:, :3] == -1).all()
    assert (empty[:, 3] == 1).all()


def test_nothing_retrieved_is_all_padding():
    w2c, K = cameras()
    maps = generated_maps([], w2c, K, (32, 48)).view(5, 4, 64, 2, 4, 6)
    assert (maps[:, :3] == -1).all()
    assert (maps[:, 3] == 1).all()


def test_coordinates_say_where_a_pixel_came_from():
    w2c, K = cameras()
    maps = generated_maps([wall()], w2c, K, (32, 48)).view(5, 4, 8, 8, 2, 4, 6)
    # Frame 7 of 8 stands 0.8 m to the right of a wall at 2 m: content moved 16 px left of 48.
    column = maps[0, 0, 4, 4, 1, 2, 1]  # pixel (x=12, y=20)
    assert abs(float(column) - (2 * (12 + 16) / 47 - 1)) < 1e-4


def test_range_over_used_frames_only_is_cheaper_and_differs():
    w2c, K = cameras()
    w2c[4:7, 2, 3] = 5.0  # frames that are not used see the wall from far behind
    whole = generated_maps([wall()], w2c, K, (32, 48), CorrespondenceConfig(depth_range="chunk"))
    used = generated_maps([wall()], w2c, K, (32, 48), CorrespondenceConfig(depth_range="used"))
    assert torch.equal(whole[:192], used[:192])
    assert used[192:256].max() == pytest.approx(1.0)
    assert whole[192:256].max() < 0.0


def test_downsampled_maps_agree_with_full_ones():
    w2c, K = cameras()
    full = generated_maps([wall()], w2c, K, (32, 48)).view(5, 4, 8, 8, 2, 4, 6)
    small = generated_maps([wall()], w2c, K, (32, 48), CorrespondenceConfig(downsample=4))
    assert small.shape == (5 * 16, 2, 4, 6)
    assert torch.allclose(small.view(5, 4, 2, 2, 2, 4, 6)[0, :2, 1, 1, :, 2, 1], full[0, :2, 4, 4, :, 2, 1], atol=0.02)


def test_depth_is_spread_over_minus_one_to_one():
    depth = torch.tensor([0.0, 1.0, 4.0]).view(1, 1, 1, 3)
    assert torch.equal(normalise_depth(depth).flatten(), torch.tensor([-1.0, -0.5, 1.0]))


def test_downsample_divides_the_stride():
    with pytest.raises(RecipeError, match="must divide latent_stride=8, found 3"):
        CorrespondenceConfig(downsample=3)
