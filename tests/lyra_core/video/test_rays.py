"""Ray maps: golden numbers and elementary geometry."""

import pytest
import torch
from safetensors.torch import load_file

from lyra_core.errors import FrameError
from lyra_core.video.rays import camera_rays, latent_cells, ray_channels, relative_cameras


@pytest.fixture(scope="module")
def golden(golden_dir):
    return load_file(golden_dir / "memory.safetensors")


def test_golden_rays(golden):
    cameras, wanted = golden["rays.c2w_rel"], golden["rays.out"]
    K = golden["K"].expand(*cameras.shape[:2], 3, 3)
    found = camera_rays(cameras, K, *wanted.shape[2:4])
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_reference_camera_looks_along_z():
    w2c = torch.eye(4).repeat(2, 1, 1)
    w2c[:, 0, 3] = torch.tensor([-1.0, -3.0])
    K = torch.tensor([[8.0, 0, 4], [0, 8, 4], [0, 0, 1]]).expand(2, 3, 3)
    rays = camera_rays(relative_cameras(w2c, w2c[0]), K, 8, 8)
    assert torch.allclose(rays[0, ..., :3], torch.zeros(8, 8, 3))
    assert torch.allclose(rays[1, ..., :3], torch.tensor([2.0, 0, 0]).expand(8, 8, 3))
    assert torch.allclose(rays[..., 3:].norm(dim=-1), torch.ones(2, 8, 8))
    # The four pixels around the principal point are symmetric: centres lie at +0.5.
    assert torch.allclose(rays[0, 3:5, 3:5, 3:5].sum((0, 1)), torch.zeros(2), atol=1e-6)


def test_cells_are_channel_row_column():
    maps = torch.arange(2 * 1 * 4 * 6, dtype=torch.float32).view(2, 1, 4, 6)
    cells = latent_cells(maps, 2)
    assert cells.shape == (8, 1, 2, 3)
    for c in range(2):
        for row in range(2):
            for column in range(2):
                assert torch.equal(cells[4 * c + 2 * row + column], maps[c, :, row::2, column::2])


def test_downsampled_rays_are_coarser_rays():
    w2c, K = torch.eye(4)[None], torch.tensor([[32.0, 0, 16], [0, 32, 16], [0, 0, 1]])[None]
    fine = camera_rays(w2c, K, 32, 32)
    channels = ray_channels(w2c, K, w2c[0], (32, 32), downsample=4)
    assert channels.shape == (6 * 4, 1, 4, 4)
    # The centre of a 4x4 block is between its middle pixels.
    block = fine[0, 1:3, 1:3].mean((0, 1))
    assert torch.allclose(channels[12::4, 0, 0, 0], block[3:], atol=1e-3)


def test_images_are_whole_cells():
    with pytest.raises(FrameError, match="multiples of 8 pixels on both axes, found 12x16"):
        latent_cells(torch.zeros(1, 1, 16, 12), 8)
