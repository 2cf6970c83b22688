"""Depth from cues: skies are found where there are any, what is lower in the picture is nearer, outlines are kept."""

from pathlib import Path

import pytest
import torch

from lyra_core.errors import DepthError
from lyra_core.formats.image import open_image
from lyra_core.geometry.camera_paths import build_camera_path
from lyra_core.layered_depth.depth import FAR_M, NEAREST_M, SKY_DEPTH_M, ParallaxDepth, photo_depth
from lyra_core.layered_depth.filters import flood, guided_filter, regions, snap_edges

SEEDS = Path(__file__).resolve().parents[3] / "examples" / "seeds"


def seed(name: str):
    return open_image(SEEDS / f"{name}.jpg", 208, 120)


@pytest.mark.parametrize("name", ["alpine_path", "beach_bridge", "launch_pad", "mountain_meadow", "sunset_rocks"])
def test_skies_are_found(name):
    photo = seed(name)
    depth, sky = photo_depth(photo.image, float(photo.intrinsics[1, 1]))
    assert 0.08 < float(sky.float().mean()) < 0.9
    assert float(sky[:10].float().mean()) > 2 * float(sky[-20:].float().mean())
    assert bool((depth[sky] == SKY_DEPTH_M).all())
    assert float(depth[~sky].max()) <= FAR_M


@pytest.mark.parametrize("name", ["coffee_table", "forest_stream", "wine_cellar"])
def test_no_sky_where_there_is_none(name):
    assert not photo_depth(seed(name).image, 200.0)[1].any()


@pytest.mark.parametrize("path", sorted(SEEDS.glob("*.jpg")), ids=lambda p: p.stem)
def test_depth_is_plausible_and_nearer_below(path):
    photo = open_image(path, 208, 120)
    depth, sky = photo_depth(photo.image, float(photo.intrinsics[1, 1]))
    assert depth.isfinite().all()
    solid = depth[~sky]
    assert float(solid.min()) >= NEAREST_M
    assert float(solid.max()) > 1.5 * float(solid.min())
    upper, lower = depth[:60].median(), depth[-30:].median()
    assert float(lower) < float(upper)


def test_estimate_takes_the_scale_of_the_reference():
    photo = seed("mountain_meadow")
    cameras = build_camera_path(
        "dolly-in", num_frames=1, intrinsics=photo.intrinsics, image_height=120, image_width=208,
        scene_depth_m=1.0, any_count=True,
    )  # fmt: skip
    plain = ParallaxDepth().estimate(photo.image[None], cameras)
    reference = torch.where(plain.sky, 0.0, plain.depth_m * 3.0)
    reference[:, :, ::2] = 0.0
    scaled = ParallaxDepth().estimate(photo.image[None], cameras, reference)
    solid = ~plain.sky
    torch.testing.assert_close(scaled.depth_m[solid], plain.depth_m[solid] * 3.0, rtol=1e-4, atol=1e-4)
    assert float(plain.confidence[plain.sky].max()) == 0.0


def test_estimate_refuses_no_frames():
    with pytest.raises(DepthError, match="at least one frame"):
        ParallaxDepth().estimate(torch.zeros(0, 120, 208, 3, dtype=torch.uint8), None)


def test_guided_filter_follows_the_guide():
    guide = torch.zeros(40, 60)
    guide[:, 30:] = 1.0
    rough = guide + 0.3 * torch.randn(40, 60, generator=torch.Generator().manual_seed(0))
    smooth = guided_filter(guide, rough, radius=8, epsilon=1e-3)
    assert float((smooth - guide).abs().mean()) < 0.06
    assert float(smooth[:, 31].mean() - smooth[:, 28].mean()) > 0.8


def test_snapping_hardens_steps_and_leaves_slopes():
    step = torch.zeros(20, 40)
    step[:, 20:] = 1.0
    step[:, 19], step[:, 20] = 0.3, 0.6
    snapped = snap_edges(step, radius=2, min_jump=0.1)
    assert set(snapped.unique().tolist()) == {0.0, 1.0}
    slope = torch.linspace(0, 4, 40).expand(20, 40).contiguous()
    torch.testing.assert_close(snap_edges(slope, radius=2, min_jump=0.1)[:, 8:-8], slope[:, 8:-8])


def test_flood_stays_inside():
    allowed = torch.ones(10, 12, dtype=torch.bool)
    allowed[:, 6] = False
    start = torch.zeros_like(allowed)
    start[0, 0] = True
    reached = flood(allowed, start)
    assert bool(reached[:, :6].all())
    assert not bool(reached[:, 6:].any())


def test_regions_are_the_parts_of_a_chequered_picture():
    picture = torch.zeros(3, 20, 30)
    picture[0, :, 15:] = 1.0
    picture[1, 10:] = 1.0
    labels = regions(picture, scale=0.5, min_size=4)
    assert int(labels.max()) + 1 == 4
    assert all(len(labels[y, x].unique()) == 1 for y in (slice(10), slice(10, 20)) for x in (slice(15), slice(15, 30)))
