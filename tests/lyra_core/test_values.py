"""Gaussians keep what each of them is for, whatever is done with the set."""

import torch

from lyra_core.gaussians.coarsen import PointSet, coarsen_to, merge_cells
from lyra_core.gaussians.extent import extent
from lyra_core.values import Gaussians, Part


def make(parts: list[int] | None, count: int = 3, spread: float = 1.0) -> Gaussians:
    count = count if parts is None else len(parts)
    generator = torch.Generator().manual_seed(count)
    return Gaussians(
        means=spread * torch.randn(count, 3, generator=generator),
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        scales=torch.full((count, 3), 0.1),
        opacities=torch.ones(count),
        sh=torch.zeros(count, 1, 3),
        part=None if parts is None else torch.tensor(parts, dtype=torch.uint8),
    )


def test_parts_follow_their_gaussians():
    three = make([0, 1, 2])
    assert three[torch.tensor([2, 0])].part.tolist() == [2, 0]
    assert three[1:].part.tolist() == [1, 2]
    assert three[three.part == 1].part.tolist() == [1]
    assert three.to("cpu").part.tolist() == [0, 1, 2]
    assert torch.equal(three.of_parts(Part.DOME, Part.KEYFRAME).means, three.means[[0, 2]])
    assert three.marked(Part.BACKING).part.tolist() == [1, 1, 1]


def test_a_set_that_tells_no_parts_counts_as_key_frames():
    untold = make(None)
    assert untold.of_parts(Part.KEYFRAME) is untold
    assert len(untold.of_parts(Part.BACKING, Part.DOME)) == 0
    assert Gaussians.concatenate([untold, untold]).part is None
    assert Gaussians.concatenate([make([1, 2]), untold]).part.tolist() == [1, 2, 0, 0, 0]


def test_merging_never_mixes_parts():
    parts = [0, 1, 2] * 200
    crowded = make(parts, spread=0.01)  # all in one place
    points = PointSet(gaussians=crowded, spacing_m=torch.full((600,), 1.0), confidence=torch.ones(600))
    merged = merge_cells(points, 64.0).gaussians
    assert sorted(set(merged.part.tolist())) == [0, 1, 2]
    for part in Part:
        mine, made = crowded.of_parts(part).means, merged.of_parts(part).means
        assert float(made.amax(0).sub(mine.amax(0)).max()) <= 1e-6
        assert float(made.amin(0).sub(mine.amin(0)).min()) >= -1e-6
    coarse, _ = coarsen_to(points, 30)
    assert len(coarse) <= 30
    assert set(coarse.gaussians.part.tolist()) == {0, 1, 2}


def test_an_extent_is_that_of_what_key_frames_show():
    dome = make([2] * 50, spread=500.0)
    near = make([0] * 50)
    assert extent(Gaussians.concatenate([near, dome])) == extent(near)
    assert extent(dome).greatest[0] > 100  # a world that has nothing else
