from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lyra_core.errors import RecipeError
from lyra_core.gaussians.coarsen import PointSet, coarsen_to, merge_cells
from lyra_core.gaussians.duplicates import View, compare
from lyra_core.gaussians.fuse import FusedSet, overlap_ratio, solve_scales
from lyra_core.gaussians.keyframes import KeyframeConfig, choose_keyframes, overlap_for, owned_frames, plan_chunks
from lyra_core.gaussians.pixel_footprint import flying_pixels, lift_pixels
from lyra_core.gaussians.prune import PruneConfig, floaters, is_finite, is_needle, isolated, shrunk_view
from lyra_core.gaussians.rasterize import rasterize
from lyra_core.geometry.rotation import quat_to_matrix
from lyra_core.values import Gaussians

K = torch.tensor([[40.0, 0, 20.0], [0, 40.0, 15.0], [0, 0, 1]], dtype=torch.float64)
EYE = torch.eye(4, dtype=torch.float64)
GREY = torch.full((30, 40, 3), 128, dtype=torch.uint8)
SURE = torch.ones(30, 40)


def view(depth: torch.Tensor, w2c: torch.Tensor = EYE, confidence: torch.Tensor = SURE) -> View:
    return View(depth_m=depth, confidence=confidence, world_to_cam=w2c, intrinsics=K)


def flat(depth_m: float) -> torch.Tensor:
    return torch.full((30, 40), depth_m)


def lifted(depth: torch.Tensor) -> Gaussians:
    return lift_pixels(GREY, depth, SURE, EYE, K)


@settings(max_examples=20, deadline=None)
@given(st.floats(-0.6, 0.6), st.floats(-0.6, 0.6), st.floats(0.01, 100.0))
def test_splats_of_a_plane_lie_flat_on_it(a: float, b: float, size: float):
    v, u = torch.meshgrid(torch.arange(30) + 0.5, torch.arange(40) + 0.5, indexing="ij")
    x, y = (u - 20) / 40, (v - 15) / 40
    depth = size / (1 - a * x - b * y)  # the plane z = size + a x + b y
    found = lift_pixels(GREY, depth.float(), SURE, EYE, K)
    normal = torch.tensor([-a, -b, 1.0]) / (1 + a * a + b * b) ** 0.5
    thin = quat_to_matrix(found.quats)[:, :, 2]
    assert float((thin @ normal).abs().min()) > 0.999
    assert float((found.means @ torch.tensor([-a, -b, 1.0]) - size).abs().max()) < 1e-4 * size


def test_no_splat_bridges_a_depth_edge():
    depth = flat(2.0)
    depth[:, 20:] = 8.0
    found = lifted(depth)
    footprint = found.means[:, 2:] / 40
    assert bool((found.scales <= 0.5 * footprint * 1.001).all())


def test_flying_pixels_are_found_and_slanted_ground_is_not():
    depth = flat(2.0)
    depth[:, 20], depth[:, 21:] = 4.0, 8.0
    assert flying_pixels(depth, 0.05)[:, 20].all()
    assert int(flying_pixels(depth, 0.05).sum()) == 30
    ground = 1.0 / (0.02 + 0.01 * torch.arange(30.0)[:, None]).expand(30, 40).contiguous()
    assert not flying_pixels(ground, 0.05).any()


@pytest.mark.parametrize("unit", [1.0, 1e-3, 1e3])
def test_a_second_look_adds_nothing_at_any_scale(unit: float):
    fused = FusedSet(100_000)
    moved = EYE.clone()
    moved[0, 3] = 0.013 * unit
    fused.add_pixels(GREY, view(flat(2.0 * unit)))
    first = len(fused)
    fused.add_pixels(GREY, view(flat(2.0 * unit), moved))
    assert first == 1200
    assert len(fused) - first <= 30  # the column that came into view


def test_a_nearer_view_replaces_what_it_shows_better_and_only_that():
    fused = FusedSet(100_000)
    fused.add_pixels(GREY, view(flat(4.0)))
    nearer = EYE.clone()
    nearer[2, 3] = -2.0
    fused.add_pixels(GREY, view(flat(2.0), nearer))
    assert fused.counts.replaced == pytest.approx(300, abs=40)  # a quarter of the first picture
    spacing = fused.points.spacing_m
    assert int((spacing < 0.06).sum()) == 1200
    assert len(fused) == pytest.approx(2100, abs=40)


def test_what_a_view_cannot_see_is_left_alone():
    behind = lifted(flat(5.0))
    spacing = torch.full((len(behind),), 1.0)  # coarse: it would be replaced if it were visible
    found = compare(behind.means, spacing, torch.ones(len(behind)), view(flat(2.0)))
    assert not found.replaced.any()
    assert not found.explained.any()


def test_a_surer_view_replaces_a_doubtful_one():
    fused = FusedSet(100_000)
    fused.add_pixels(GREY, view(flat(2.0), confidence=torch.full((30, 40), 0.2)))
    fused.add_pixels(GREY, view(flat(2.0)))
    assert (fused.counts.replaced, len(fused)) == (1200, 1200)


def test_numbers_that_are_none_are_dropped_and_counted():
    fused = FusedSet(100_000)
    made = lifted(flat(2.0))
    made.means[7, 1] = torch.nan
    made.scales[9, 0] = 0.0
    made.opacities[11] = torch.inf
    fused.add_gaussians(made, torch.full((1200,), 0.05), view(flat(2.0)), torch.ones(30, 40, dtype=torch.bool))
    assert (fused.counts.non_finite, len(fused)) == (3, 1197)
    assert is_finite(fused.points.gaussians).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-0.1, 0.1), min_size=2, max_size=30), st.randoms(use_true_random=False))
def test_chunk_scales_close_the_gaps_without_drift(true_logs: list[float], chance):
    ratios = [a - b for a, b in pairwise(true_logs)]  # depth i + 1 onto depth i
    scales = solve_scales(ratios)
    found = [float(torch.tensor(s).log()) + x for s, x in zip(scales, true_logs, strict=True)]
    # After scaling all chunks agree up to a common factor that stays near the mean of what cameras said.
    gaps = [abs(a - b) for a, b in pairwise(found)]
    assert max(gaps) < 0.05
    assert abs(sum(float(torch.tensor(s).log()) for s in scales)) < 1e-6 * len(scales)
    # A chain of small errors in one direction, as drift makes, does not add up.
    drift = solve_scales([0.01] * 40)
    assert max(drift) / min(drift) < 1.1 < float(torch.tensor(0.4).exp())


def test_overlap_ratios_ignore_outliers_and_say_when_unknown():
    depth = torch.rand(2, 30, 40, generator=torch.Generator().manual_seed(0)) + 1.0
    reference = 1.2 * depth
    reference[:, :8] *= 3.0
    sky = torch.zeros(2, 30, 40, dtype=torch.bool)
    assert overlap_ratio(depth, reference, torch.ones_like(depth), sky) == pytest.approx(0.1823, abs=1e-3)
    assert overlap_ratio(depth, reference * 0, torch.ones_like(depth), sky) is None
    assert overlap_ratio(depth, reference * 50, torch.ones_like(depth), sky) is None


def test_floaters_need_several_witnesses():
    truth = [view(flat(4.0)) for _ in range(5)]
    means = torch.tensor([[0.0, 0, 2.0], [0, 0, 4.0], [0, 0, 3.9], [0, 0, 6.0], [50.0, 0, 1.0]])
    assert floaters(means, truth).tolist() == [True, False, False, False, False]
    assert not floaters(means, truth[:2]).any()
    small = [shrunk_view(v, 4) for v in truth]
    assert small[0].depth_m.shape == (7, 10)
    assert floaters(means, small).tolist() == [True, False, False, False, False]
    thin = flat(4.0)
    thin[:, 20] = 2.0  # a pole one pixel wide must survive maps of a quarter of the size
    pole = torch.tensor([[0.5 / 40 * 2.0, 0.0, 2.0]])
    assert not floaters(pole, [shrunk_view(view(thin), 4)] * 5).any()


@pytest.mark.parametrize("unit", [1.0, 1e-2, 1e2])
def test_lone_gaussians_are_found_at_any_scale(unit: float):
    made = lifted(flat(2.0))
    far = replace(made[:1], means=torch.tensor([[0.0, 0.0, 3.5]]))
    both = Gaussians.concatenate([made, far])
    alone = isolated(both.means * unit, both.scales * unit, PruneConfig())
    assert alone.nonzero().flatten().tolist() == [1200]


def test_needles_are_not_discs():
    scales = torch.tensor([[1.0, 0.01, 0.01], [1.0, 1.0, 0.001], [0.02, 1.0, 0.005]])
    assert is_needle(scales, 50.0).tolist() == [True, False, False]


def test_merging_keeps_a_wall_a_wall():
    made = lifted(flat(2.0))
    points = PointSet(gaussians=made, spacing_m=torch.full((1200,), 0.05), confidence=torch.ones(1200))
    coarse, factor = coarsen_to(points, 300)
    assert 150 <= len(coarse) <= 300
    assert factor > 1.5
    assert torch.allclose(coarse.gaussians.means[:, 2], torch.tensor(2.0), atol=1e-3)
    inner = coarse.gaussians.scales[:, 1]
    # Splats are large enough for the wall to stay closed, and not larger than they need be.
    assert 0.5 < float(inner.median()) / float(coarse.spacing_m.median()) < 0.9
    drawn = rasterize(coarse.gaussians, EYE, K, 30, 40)
    assert float(drawn.alpha[3:-3, 3:-3].min()) > 0.85
    same, one = coarsen_to(points, 1200)
    assert (same is points, one) == (True, 1.0)
    alone = merge_cells(points[torch.tensor([0, 1199])], 1.0)
    assert torch.equal(alone.gaussians.means, made.means[[0, 1199]])


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 700), st.integers(2, 130))
def test_chunks_cover_everything_and_share_enough(num_frames: int, size: int):
    chunks = plan_chunks(num_frames, size)
    assert (chunks[0].start, chunks[-1].stop) == (0, num_frames)
    assert all(c.stop - c.start <= size for c in chunks)
    for before, after in pairwise(chunks):
        assert before.stop - after.start >= overlap_for(size)
    owned = [i for part in owned_frames(chunks) for i in range(part.start, part.stop)]
    assert owned == list(range(num_frames))
    assert all(c.start <= o.start <= o.stop <= c.stop for c, o in zip(chunks, owned_frames(chunks), strict=True))


def test_overlaps_are_as_long_as_asked():
    assert [overlap_for(n) for n in (128, 64, 32, 8, 2)] == [32, 16, 16, 4, 1]
    with pytest.raises(RecipeError, match="two frames"):
        plan_chunks(10, 1)


def test_keyframes_follow_motion_and_not_time(make_clip):
    path = make_clip(25, 12, 16).cameras
    still = make_clip(25, 12, 16, motion="static").cameras
    turning = make_clip(25, 12, 16, motion="turn").cameras
    assert choose_keyframes(still, 3.0).tolist() == [0, 24]
    chosen = choose_keyframes(path, 3.0).tolist()
    assert 2 < len(chosen) < 25
    assert len(choose_keyframes(path, 300.0)) < len(chosen)  # far things hardly move
    assert len(choose_keyframes(turning, 300.0)) > 8  # a turn shows anew whatever the depth
    slow = path[[i for i in range(25) for _ in range(3)]]
    assert sorted({i // 3 for i in choose_keyframes(slow, 3.0).tolist()}) == chosen
    assert len(choose_keyframes(path, 3.0, KeyframeConfig(max_keyframes=4))) <= 4
