import pytest
import torch

from lyra_core.video.dit.layout import HistoryLayout
from lyra_core.video.dit.packing import (
    average_pool,
    camera_tokens,
    correspondence_tokens,
    pad_to_multiple,
    patchify,
    sinusoidal_features,
    unpatchify,
)

LAYOUT = HistoryLayout.parse("f1k1f2s2f1s1f3k2_g2")


def test_patch_features_are_channel_frame_row_column():
    x = torch.randn(2, 3, 2, 4, 6)
    tokens = patchify(x, (2, 2, 3))
    assert tokens.shape == (2, 4, 36)
    wanted = x[1, :, :, 2:4, 3:6].reshape(-1)
    assert torch.equal(tokens[1, 3], wanted)


def test_unpatchify_reads_row_column_channel():
    patches = torch.arange(2 * 3 * 4 * 5.0).reshape(1, 6, 20)
    video = unpatchify(patches, 1, 2, 3, 2)
    assert video.shape == (1, 5, 1, 4, 6)
    for token, (row, column) in enumerate((r, c) for r in range(2) for c in range(3)):
        block = video[0, :, 0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        assert torch.equal(block.permute(1, 2, 0).reshape(-1), patches[0, token])


def test_padding_repeats_the_last_of_each_axis():
    x = torch.arange(2 * 3.0).reshape(1, 1, 1, 2, 3)
    padded = pad_to_multiple(x, (2, 2, 2))
    assert padded.shape == (1, 1, 2, 2, 4)
    assert torch.equal(padded[0, 0, 1], torch.tensor([[0.0, 1, 2, 2], [3, 4, 5, 5]]))


def pool_by_loops(x, kernel):
    padded = pad_to_multiple(x, kernel)
    t, h, w = (n // k for n, k in zip(padded.shape[2:], kernel, strict=True))
    out = torch.empty(*x.shape[:2], t, h, w)
    for i in range(t):
        for j in range(h):
            for k in range(w):
                a, b, c = kernel
                block = padded[..., i * a : i * a + a, j * b : j * b + b, k * c : k * c + c]
                out[..., i, j, k] = block.mean((-1, -2, -3))
    return out


@pytest.mark.parametrize("kernel", [(1, 1, 1), (1, 2, 2), (2, 2, 2), (4, 4, 4)])
def test_pooling_means_blocks(kernel):
    x = torch.randn(1, 3, 3, 5, 6)
    assert torch.allclose(average_pool(x, kernel), pool_by_loops(x, kernel), atol=1e-6)


def test_camera_and_correspondence_tokens_follow_the_slots():
    rays = torch.randn(2, 6, LAYOUT.num_slots, 4, 6)
    maps = torch.randn(2, 5, LAYOUT.num_slots, 4, 8)
    cameras = camera_tokens(rays, LAYOUT, 2)
    assert cameras.shape == (2, sum(LAYOUT.num_tokens(2, 3)), 24)
    assert torch.equal(cameras[:, 0], rays[:, :, 0, :2, :2].flatten(1))
    assert torch.allclose(cameras[:, -1], rays[:, :, -1, 2:, 4:].flatten(1))

    tokens, validity = correspondence_tokens(maps, LAYOUT, 2)
    # anchor 8, two packed retrieved frames of 2, an unpacked one of 8, history 2 x 2, generated 16
    wanted = [0] * 8 + [1] * (2 * 2 + 8) + [0] * 4 + [1] * 16
    assert validity.flatten().tolist() == wanted
    assert (tokens[:, validity[:, 0] == 0] == -1).all()
    pooled = pool_by_loops(maps[:, :, 1:2], (1, 2, 2))
    assert torch.allclose(tokens[:, 8], pooled[:, :, 0, :, :2].flatten(1), atol=1e-6)
    assert torch.equal(tokens[:, -1], maps[:, :, -1, 2:, 6:].flatten(1))


def test_sinusoidal_features_keep_bf16_but_compute_in_fp32():
    x = torch.rand(3, 4) * 2 - 1
    features = sinusoidal_features(x, 2)
    wanted = torch.cat([f(torch.pi * k * x) for k in (1, 2) for f in (torch.sin, torch.cos)], dim=1)
    assert torch.allclose(features, wanted, atol=1e-6)
    low = sinusoidal_features(x.bfloat16(), 2)
    assert low.dtype == torch.bfloat16
    assert (low.float() - sinusoidal_features(x.bfloat16().float(), 2)).abs().max() < 4e-3
