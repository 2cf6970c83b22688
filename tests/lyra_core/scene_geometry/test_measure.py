"""The whole stage on Gaussians: a room with a known floor, and worlds of sample photographs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lyra_core.config.geometry import GeometryOptions
from lyra_core.gaussians.pixel_footprint import lift_pixels
from lyra_core.scene_geometry.measure import measure_geometry
from lyra_core.scene_geometry.scale import GivenScale
from lyra_core.scene_geometry.views import draw_views
from lyra_core.values import Gaussians, Part

SEEDS = Path(__file__).resolve().parents[3] / "examples" / "seeds"
WORLD = "ab" * 16
BOX = np.array([1.0, 0.5, 4.0]), np.array([1.8, 1.6, 4.8])


@pytest.fixture(scope="module")
def yard(scenes):
    """Gaussians of a floor 1.5 below the camera, tilted by 4 degrees, with a box on it, and a dome."""
    up = scenes.up(4.0, 120.0)
    views = scenes.views([scenes.plane(up, 1.5), scenes.box(*BOX)], scenes.path, most=9.0)
    sure = torch.ones_like(views.depth[0])
    parts = [
        lift_pixels(torch.full((*depth.shape, 3), 90, dtype=torch.uint8), depth, sure, w2c, K).marked(Part.KEYFRAME)
        for depth, w2c, K in zip(views.depth, views.cameras.world_to_cam, views.cameras.intrinsics, strict=True)
    ]
    dome = parts[0].marked(Part.DOME)
    dome = replace(dome, means=dome.means * 0 + torch.tensor([0.0, 0.0, 40.0]))
    return Gaussians.concatenate([*parts, dome]), views.cameras, up


def test_a_yard_is_measured(yard):
    gaussians, cameras, up = yard
    scene = measure_geometry(gaussians, cameras, WORLD)
    assert scene.reasons == ()
    assert scene.up_source == "floor"
    # At 48x64 a pixel far ahead covers a metre of floor: drawn depth is a little off there, and tilts the plane.
    assert float(np.array(scene.up) @ up) > np.cos(np.radians(3.0))
    assert scene.floor.camera_height == pytest.approx(1.5, rel=0.06)
    assert scene.scale.prior == pytest.approx(1.55 / 1.5, rel=0.06)
    assert scene.frame.scale == scene.scale.best
    world = scene.mujoco_world()
    x, y, z, _ = world.spawn
    assert abs(z) < 0.05
    corner = scene.frame.to_ground(np.array([BOX[0]]))[0]
    assert len(world.boxes) >= 1
    assert np.hypot(x - corner[0], y - corner[1]) > 0.36
    inside = (np.abs(world.boxes[:, :3] - scene.frame.to_ground(np.array([[1.4, 1.2, 4.05]]))) < 0.6).all(1)
    assert inside.any()
    assert world.fovy_deg == pytest.approx(2 * np.degrees(np.arctan(24 / 50)))


def test_equal_arguments_give_equal_numbers_and_a_given_height_gives_metres(yard):
    gaussians, cameras, _ = yard
    one, two = (measure_geometry(gaussians, cameras, WORLD) for _ in range(2))
    np.testing.assert_array_equal(one.terrain.heights, two.terrain.heights)
    assert (one.floor, one.free_space.spawn) == (two.floor, two.free_space.spawn)
    high = measure_geometry(gaussians, cameras, WORLD, given=GivenScale(camera_height_m=3.0))
    assert high.scale.source == "camera_height"
    assert high.frame.scale == pytest.approx(2.0, rel=0.06)
    assert high.terrain.cell == pytest.approx(0.3)


def test_a_dome_has_no_depth_and_a_set_without_parts_is_cut_where_it_is_far(yard):
    gaussians, cameras, _ = yard
    told = draw_views(gaussians, cameras, 3).depth
    assert float(told.max()) < 9.5
    assert float((told > 0).float().mean()) > 0.2
    untold = draw_views(replace(gaussians, part=None), cameras, 3).depth
    assert float(untold.max()) < 40


def test_a_wall_gives_reasons_and_no_place_to_stand(scenes):
    views = scenes.views([scenes.box(np.array([-9.0, -9.0, 3.0]), np.array([9.0, 9.0, 4.0]))], scenes.path)
    image = torch.full((*views.depth.shape[1:], 3), 90, dtype=torch.uint8)
    camera = views.cameras
    wall = lift_pixels(
        image, views.depth[0], torch.ones_like(views.depth[0]), camera.world_to_cam[0], camera.intrinsics[0]
    )
    scene = measure_geometry(wall, camera, WORLD)
    assert (scene.floor, scene.terrain, scene.mujoco_world()) == (None, None, None)
    assert scene.reasons == ("no plane under the camera was found",)
    assert (scene.up, scene.up_source) == ((0.0, -1.0, 0.0), "camera")
    nothing = measure_geometry(wall.marked(Part.DOME), camera, WORLD)
    assert nothing.reasons == ("no plane under the camera was found",)
    assert nothing.visual_mesh() is None


def test_a_yard_becomes_a_mesh_and_a_simpler_one(yard):
    pytest.importorskip("fast_simplification")
    gaussians, cameras, _ = yard
    scene = measure_geometry(
        gaussians, cameras, WORLD, options=GeometryOptions(mesh_voxels=60_000, collision_faces=200)
    )
    mesh = scene.visual_mesh()
    assert len(mesh) > 1_000
    assert mesh.colors.shape == mesh.vertices.shape
    assert np.quantile(np.abs(mesh.vertices[:, 2]), 0.6) < 0.06  # most of it is floor
    assert len(scene.collision_mesh(mesh)) <= 220


@pytest.mark.slow  # nine worlds of the embedded model, some 10 s each on an idle machine
def test_sample_photographs_with_a_floor_are_those_that_have_one():
    from lyra_core.world_models.load import load_model

    model, accepted = load_model("mini"), {}
    for photograph in sorted(SEEDS.glob("*.jpg")):
        clip = model.generate(photograph, "dolly-in")
        scene = measure_geometry(model.reconstruct(clip), clip.cameras, WORLD)
        if scene.mujoco_world() is not None:
            accepted[photograph.stem] = scene.floor.camera_height
    assert set(accepted) == {"alpine_path", "mountain_meadow", "sunset_rocks"}, accepted
