"""Depth as grey, covered cells, and what is seen again."""

import cosmos_scene as scene
import pytest
import torch

from lyra_core.cosmos.scene_memory import SceneMemory, covered_cells, depth_range, depth_video


def test_near_is_bright_and_the_same_depth_is_the_same_grey():
    depth = torch.tensor([[[1.0, 2.0], [4.0, 0.0]], [[2.0, 2.0], [2.0, 2.0]]])
    limits = depth_range(depth[0])
    assert limits == (0.25, 1.0)
    video = depth_video(depth, limits)
    assert video.dtype == torch.uint8
    assert video[0, 0].tolist() == [255, 85]
    assert video[0, 1, 0] == 0
    assert video[0, 1, 1] > 0, "a hole is filled from around it"
    assert video[1].unique().tolist() == [85]
    assert depth_video(depth[:1] / 4, limits)[0, 0, 0] == 255, "nearer than the photograph's nearest"


def test_cells_are_covered_throughout_or_not():
    mask = torch.ones(9, 32, 48, dtype=torch.bool)
    mask[6, 3, 20] = False
    cells = covered_cells(mask, 0)
    assert cells.shape == (3, 2, 3)
    assert (~cells).nonzero().tolist() == [[2, 0, 1]]
    assert int((~covered_cells(mask, 1)).sum()) == 6
    mask[0, 0, 0] = False
    assert (~covered_cells(mask, 0)).nonzero().tolist() == [[0, 0, 0], [2, 0, 1]]


@pytest.fixture
def memory():
    found = SceneMemory(scene.HEIGHT, scene.WIDTH)
    depth = torch.full((1, scene.HEIGHT, scene.WIDTH), 3.0)
    found.add([0], scene.photograph().image[None], depth, scene.path(1))
    return found


def test_a_wall_seen_again_has_its_depth_and_its_pixels(memory):
    image = scene.photograph().image
    depth = memory.depth_along(scene.path(1))
    assert depth[0, 96, 160] == pytest.approx(3.0, abs=1e-4)
    known = memory.known_along(scene.path(1), 0)
    assert known.cells.all()
    assert (known.frames[0].int() - image.int()).abs().max() <= 1
    nearer = scene.path(5, step_m=0.1, turn_deg=0.0)
    assert memory.depth_along(nearer)[-1, 96, 150] == pytest.approx(2.8, abs=1e-3)
    moved = memory.known_along(nearer, 0)
    assert moved.cells.shape == (2, 12, 20)
    assert moved.cells[0].all()
    assert not moved.cells[1, :, -1].any(), "what comes into view at the right was never seen"
    assert int(memory.known_along(nearer, 1).cells[1].sum()) < int(moved.cells[1].sum())
