import pytest
import torch
from einops import rearrange

from lyra_core.video.dit.layout import HistoryLayout
from lyra_core.video.dit.packing import average_pool
from lyra_core.video.dit.rope import Rotation, axis_dims, packed_angles, packed_positions, rotate

OFFICIAL = HistoryLayout.parse("f1k1f4s2f1s1f16k4f2k2f1k1_g20")


def angles_by_pooling(layout, rows, columns, head_dim):
    """The reference form: a table of angles of all base positions, average-pooled."""
    table = packed_angles(
        HistoryLayout.parse(f"_g{layout.num_slots}".replace("_g", "f1k1_g")),
        rows,
        columns,
        head_dim,
    )[: layout.num_slots * rows * columns]
    grid = table.reshape(1, layout.num_slots, rows, columns, -1).permute(0, 4, 1, 2, 3)
    parts = [
        average_pool(grid[:, :, slots.start : slots.stop], segment.pooling)
        for segment, slots in zip(layout.all_segments, layout.slot_ranges, strict=True)
    ]
    return torch.cat([rearrange(p, "1 c t h w -> (t h w) c") for p in parts])


@pytest.mark.parametrize(("rows", "columns"), [(3, 5), (4, 8), (6, 7)])
def test_pooled_positions_equal_pooled_angles(rows, columns):
    found = packed_angles(OFFICIAL, rows, columns, 16)
    wanted = angles_by_pooling(OFFICIAL, rows, columns, 16)
    assert found.shape == (sum(OFFICIAL.num_tokens(rows, columns)), 8)
    assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_positions_at_the_working_size():
    device = torch.device("cpu")
    assert packed_positions(6, 16, 4, device).tolist() == [7.5, 11.5, 15.5, 19.5]
    assert packed_positions(22, 2, 2, device).tolist() == [22.5]
    assert packed_positions(0, 30, 4, device)[-1] == 28.75
    assert packed_positions(0, 30, 4, device)[0] == 1.5


def test_channels_of_a_head_are_shared_between_the_axes():
    assert axis_dims(128) == (44, 42, 42)
    assert axis_dims(16) == (8, 4, 4)


def test_rotation_keeps_lengths_and_depends_on_distance_only():
    angles = torch.arange(6.0)[:, None] * torch.tensor([1.0, 0.1, 0.01])
    rotation = Rotation.from_angles(angles)
    q, k = torch.randn(2, 1, 1, 1, 6)
    rotated_q, rotated_k = (rotate(x.expand(1, 6, 2, 6), rotation)[0, :, 0] for x in (q, k))
    assert torch.allclose(rotated_q.norm(dim=1), q.norm().expand(6), atol=1e-5)
    scores = rotated_q @ rotated_k.T
    for distance in range(-5, 6):
        diagonal = scores.diagonal(distance)
        assert torch.allclose(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5)
    first = rotated_q[1, :2]
    c, s = torch.cos(torch.tensor(1.0)), torch.sin(torch.tensor(1.0))
    x0, x1 = q.flatten()[:2]
    assert torch.allclose(first, torch.stack((x0 * c - x1 * s, x0 * s + x1 * c)), atol=1e-6)
