import numpy as np
import pytest
import torch
from PIL import Image

from lyra_core.errors import FrameError
from lyra_core.gaussians.depth_anything.preprocess import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    area_weights,
    network_size,
    preprocess,
    resize,
)


@pytest.mark.parametrize(
    ("height", "width", "longest", "wanted"),
    [
        (480, 832, 832, (476, 826)),
        (448, 768, 768, (448, 770)),
        (720, 1280, 504, (280, 504)),
        (1208, 680, 504, (504, 280)),
        (377, 504, 504, (378, 504)),
        (371, 504, 504, (378, 504)),  # 371 is as far from 364 as from 378: up
        (10, 1000, 504, (14, 504)),
    ],
)
def test_sizes_of_the_release(height: int, width: int, longest: int, wanted: tuple[int, int]) -> None:
    assert network_size(height, width, longest) == wanted


def test_area_weights_cover_each_pixel_once() -> None:
    weights = area_weights(480, 476).double()
    torch.testing.assert_close(weights.sum(1), torch.ones(476, dtype=torch.float64))
    torch.testing.assert_close(weights.sum(0), torch.full((480,), 476 / 480, dtype=torch.float64))
    torch.testing.assert_close(area_weights(3, 2), torch.tensor([[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]]))


def test_shrinking_is_a_box_filter() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 84, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(noise).resize((42, 30), Image.Resampling.BOX))
    ours = resize(torch.from_numpy(noise).permute(2, 0, 1)[None].float(), (30, 42))
    error = ours[0].permute(1, 2, 0).numpy() - expected.astype(np.float64)
    assert np.abs(error).max() <= 1.0  # Pillow rounds after each of its two passes


def test_frames_arrive_normalised() -> None:
    frames = torch.full((9, 100, 140, 3), 128, dtype=torch.uint8)
    images = preprocess(frames, 140)
    assert images.shape == (9, 3, 98, 140)
    for channel in range(3):
        wanted = (128 / 255 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        assert float(images[:, channel].min()) == pytest.approx(wanted, abs=1e-5)
        assert float(images[:, channel].max()) == pytest.approx(wanted, abs=1e-5)


def test_pictures_keep_their_place_when_they_grow() -> None:
    ramp = torch.linspace(40, 200, 40).round().to(torch.uint8)
    frames = ramp[None, None, :, None].expand(1, 28, 40, 3)
    images = preprocess(frames.contiguous(), 112)
    row = images[0, 0, 40] * IMAGENET_STD[0] + IMAGENET_MEAN[0]
    at = (torch.arange(112) + 0.5) * 40 / 112 - 0.5
    wanted = (40 + at * 160 / 39) / 255
    assert float((row - wanted)[6:-6].abs().max()) < 0.01


def test_no_frame_is_refused() -> None:
    with pytest.raises(FrameError, match="at least one frame"):
        preprocess(torch.zeros(0, 10, 10, 3, dtype=torch.uint8))
    with pytest.raises(FrameError, match="at least 14"):
        network_size(100, 100, 10)
