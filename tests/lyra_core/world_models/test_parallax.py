"""The baseline on real photographs: deterministic, faithful at frame 0, closed, and moving the right way."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lyra_core.errors import CameraPathError, ReconstructionError
from lyra_core.formats.image import open_image
from lyra_core.gaussians.render import render
from lyra_core.geometry.camera_paths import build_camera_path, measure_scene_depth_m
from lyra_core.geometry.rotation import matrix_to_quat
from lyra_core.image_metrics import psnr_db
from lyra_core.layered_depth.depth import FAR_M
from lyra_core.layered_depth.layers import build_layers
from lyra_core.values import Part, VideoClip
from lyra_core.world_models.parallax import ParallaxModel

SEEDS = Path(__file__).resolve().parents[3] / "examples" / "seeds"
SIZE = {"width": 208, "height": 120}


def generate(name: str, path: str, frames: int = 3, **options) -> VideoClip:
    """A few frames of a preset at many times its pace, so that few frames go a long way."""
    photo = open_image(SEEDS / f"{name}.jpg", 208, 120)
    cameras = build_camera_path(
        path, num_frames=frames, intrinsics=photo.intrinsics,
        image_height=photo.image.shape[0], image_width=photo.image.shape[1],
        scene_depth_m=4.0, strength=options.pop("strength", 80.0 / (frames - 1)), any_count=True,
    )  # fmt: skip
    return ParallaxModel().generate(photo, cameras, num_frames=frames, **SIZE)


@pytest.fixture(scope="module")
def meadow() -> VideoClip:
    return generate("mountain_meadow", "dolly-in")


def test_equal_inputs_give_equal_bytes(meadow):
    again = generate("mountain_meadow", "dolly-in")
    assert torch.equal(meadow.frames, again.frames)
    assert torch.equal(meadow.depth_m, again.depth_m)
    model = ParallaxModel()
    one, two = model.reconstruct(meadow), model.reconstruct(again)
    for name in ("means", "quats", "scales", "opacities", "sh"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name


@pytest.mark.parametrize("name", ["alpine_path", "coffee_table", "mountain_meadow", "wine_cellar"])
def test_frame_0_is_the_photograph_in_the_video_and_in_the_gaussians(name):
    clip = generate(name, "dolly-in", frames=2)
    photo = open_image(SEEDS / f"{name}.jpg", 208, 120).image
    assert torch.equal(clip.frames[0], photo)
    drawn = render(ParallaxModel().reconstruct(clip), clip.cameras[:1])
    assert psnr_db(drawn.color[0], photo.float() / 255.0) > 28.0


def test_the_gaussians_show_the_video(meadow):
    drawn = render(ParallaxModel().reconstruct(meadow), meadow.cameras)
    assert psnr_db(drawn.color[1:], meadow.frames[1:].float() / 255.0) > 45.0


@pytest.fixture(scope="module", params=["launch_pad", "mountain_meadow"])
def world(request):
    photo = open_image(SEEDS / f"{request.param}.jpg", 208, 120)
    clip = ParallaxModel().generate(photo, "dolly-in", num_frames=1, **SIZE)
    return photo, clip, ParallaxModel().reconstruct(clip)


PATHS = ["dolly-in", "dolly-out", "truck-right", "orbit-left", "pan-right", "tilt-up", "spiral"]
CLOSED_PATHS = ["arc-right", "walk-forward-and-look-back"]


@pytest.mark.parametrize("path", [*PATHS, *CLOSED_PATHS])
def test_no_path_shows_holes(world, path):
    photo, clip, gaussians = world
    cameras = build_camera_path(
        path, num_frames=3, intrinsics=photo.intrinsics, image_height=120, image_width=208,
        scene_depth_m=measure_scene_depth_m(clip.depth_m[0], ~clip.sky[0]), any_count=True,
        strength=1.0 if path in CLOSED_PATHS else 40.0,
    )  # fmt: skip
    drawn = render(gaussians, cameras)
    assert float((drawn.alpha < 0.9).float().mean()) < 0.002
    # What is filled in is not black: the photograph's own darkness sets how much may be.
    black = float((drawn.color[2].amax(-1) < 0.02).float().mean())
    assert black <= float((drawn.color[0].amax(-1) < 0.02).float().mean()) + 0.01


def shift_of(frame: torch.Tensor, first: torch.Tensor) -> int:
    """Columns by which the first frame must be moved right to look like the frame."""
    a, b = frame.float().mean(-1), first.float().mean(-1)
    errors = {s: float((a[:, 60:-60] - b.roll(s, 1)[:, 60:-60]).abs().mean()) for s in range(-50, 51)}
    return min(errors, key=errors.get)


@pytest.mark.parametrize(("path", "sign"), [("truck-right", -1), ("truck-left", 1), ("pan-right", -1)])
def test_content_moves_against_the_camera(path, sign):
    clip = generate("coffee_table", path, strength=4.0, frames=5)
    assert sign * shift_of(clip.frames[4], clip.frames[0]) > 2


def test_dolly_in_magnifies():
    clip = generate("coffee_table", "dolly-in", strength=20.0)
    first = clip.frames[0].permute(2, 0, 1)[None].float()
    last = clip.frames[2].permute(2, 0, 1)[None].float()[..., 20:-20, 30:-30]

    def zoomed(scale: float) -> torch.Tensor:
        size = (round(120 * scale), round(208 * scale))
        big = torch.nn.functional.interpolate(first, size=size, mode="bilinear", antialias=True)
        top, left = (size[0] - 80) // 2, (size[1] - 148) // 2
        return big[..., top : top + 80, left : left + 148]

    errors = {s: float((zoomed(s) - last).abs().mean()) for s in (0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4)}
    assert min(errors, key=errors.get) > 1.05


def test_nearer_things_move_more():
    photo = open_image(SEEDS / "mountain_meadow.jpg", 208, 120)
    clip = generate("mountain_meadow", "truck-right", strength=20.0)
    top, bottom = slice(5, 45), slice(90, 120)
    far = shift_of(clip.frames[2][top], photo.image[top])
    near = shift_of(clip.frames[2][bottom], photo.image[bottom])
    assert near < far <= 0


def test_seen_layer_has_one_sample_a_pixel_and_fills_lie_behind():
    photo = open_image(SEEDS / "launch_pad.jpg", 208, 120)
    depth = torch.full((120, 208), 20.0)
    depth[30:90, 90:120] = 4.0
    layers = build_layers(photo.image.float() / 255, depth, torch.zeros(120, 208, dtype=torch.bool), photo.intrinsics)
    assert len(layers.seen.rays) == 120 * 208
    assert 0 < len(layers.behind.rays) < 60 * 30 + 1
    # Only behind the near square is anything filled in, and at the distance of its surroundings.
    torch.testing.assert_close(
        layers.behind.distance_m, torch.full_like(layers.behind.distance_m, 20.0), rtol=0.02, atol=0
    )
    square = depth.flatten() == 4.0
    assert bool(torch.isin(layers.behind.rays[:, 0], layers.seen.rays[square][:, 0]).all())


def test_the_sky_of_the_photograph_is_dome(meadow):
    made = ParallaxModel().reconstruct(meadow)
    surface, backing, dome = (made.of_parts(part) for part in Part)
    assert len(surface) == int((~meadow.sky[0]).sum())
    assert len(backing) > 1000
    assert float(surface.means.norm(dim=1).max()) < 2 * FAR_M
    assert float(dome.means[: int(meadow.sky[0].sum()), 2].min()) > 2 * FAR_M


def test_quaternions_of_rotations():
    g = torch.Generator().manual_seed(0)
    quats = torch.nn.functional.normalize(torch.randn(500, 4, generator=g, dtype=torch.float64), dim=1)
    from lyra_core.gaussians.rasterize_reference import rotation_matrices

    found = matrix_to_quat(rotation_matrices(quats))
    assert float((found * quats).sum(1).abs().min()) > 1 - 1e-9


def test_a_clip_without_depth_is_lifted_by_estimating_it(meadow):
    bare = replace(meadow, depth_m=None, sky=None)
    assert len(ParallaxModel().reconstruct(bare)) > 120 * 208


def test_refusals(meadow):
    with pytest.raises(ReconstructionError, match="zero or not finite"):
        ParallaxModel().reconstruct(replace(meadow, depth_m=torch.zeros_like(meadow.depth_m)))
    with pytest.raises(CameraPathError, match="81 frames need as many cameras"):
        ParallaxModel().generate(meadow.frames[0], meadow.cameras, num_frames=81, **SIZE)


def test_a_world_costs_seconds_and_little_memory():
    """A floor against accidents, ten times what an idle machine needs."""
    generate("coffee_table", "dolly-in", frames=2)
    start = time.process_time()
    clip = generate("coffee_table", "orbit-right", frames=21)
    gaussians = ParallaxModel().reconstruct(clip)
    assert time.process_time() - start < 40.0
    held = sum(t.numel() * t.element_size() for t in (gaussians.means, gaussians.quats, gaussians.sh))
    assert held < 20_000_000
