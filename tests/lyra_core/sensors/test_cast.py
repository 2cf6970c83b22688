"""The ray caster: against the plain one, against surfaces known by formula, and against the rasteriser's picture."""

from __future__ import annotations

import math

import pytest
import torch

from lyra_core.errors import GaussiansError
from lyra_core.gaussians.pixel_footprint import lift_pixels
from lyra_core.gaussians.render import render
from lyra_core.geometry.camera import intrinsics_from_hfov, look_at, pixel_centers
from lyra_core.geometry.rotation import invert_rigid
from lyra_core.sensors.cast import Caster
from lyra_core.sensors.cast_reference import cast_reference
from lyra_core.sensors.lidar import LidarModel
from lyra_core.sensors.rays import Rays, fisheye_rays, lidar_rays, pinhole_rays
from lyra_core.values import CameraPath, Gaussians, Part

EYE = torch.eye(4, dtype=torch.float64)
FLOOR_Y, SPHERE, RADIUS = 1.5, torch.tensor([0.3, 0.2, 4.0], dtype=torch.float64), 0.8


def surface(rays: torch.Tensor) -> torch.Tensor:
    """Distance from the origin to a ball over a floor, along unit rays; 0 where neither is met within 6."""
    floor = torch.where(rays[..., 1] > 1e-6, FLOOR_Y / rays[..., 1].clamp_min(1e-6), torch.inf)
    along = rays @ SPHERE
    square = along**2 - (SPHERE @ SPHERE - RADIUS**2)
    ball = torch.where((square > 0) & (along > 0), along - square.clamp_min(0).sqrt(), torch.inf)
    nearest = torch.minimum(floor, ball)
    return torch.where(nearest < 6, nearest, 0.0)


@pytest.fixture(scope="module")
def scene() -> Gaussians:
    """Splats lifted from the exact depth of the scene at 144x240, as worlds of models are."""
    height, width = 144, 240
    K = intrinsics_from_hfov(80.0, height, width)
    rays = torch.cat([(pixel_centers(height, width) - K[:2, 2]) / K[0, 0], torch.ones(height, width, 1)], -1)
    depth = (surface(torch.nn.functional.normalize(rays, dim=-1)) / rays.norm(dim=-1)).float()
    image = (torch.rand(height, width, 3, generator=torch.Generator().manual_seed(0)) * 255).byte()
    return lift_pixels(image, depth, torch.ones(height, width), EYE, K)


def scattered(count: int, degree: int = 1) -> Gaussians:
    generator = torch.Generator().manual_seed(1)
    return Gaussians(
        means=torch.randn(count, 3, generator=generator) * 2,
        quats=torch.randn(count, 4, generator=generator),
        scales=torch.rand(count, 3, generator=generator) * 0.3 + 0.01,
        opacities=torch.rand(count, generator=generator),
        sh=torch.randn(count, (degree + 1) ** 2, 3, generator=generator) * 0.3,
    )


def test_it_equals_the_plain_caster_in_every_direction():
    gaussians = scattered(300)
    pose = look_at(torch.tensor([0.5, -0.3, -1.0]), torch.tensor([0.1, 0.2, 1.0]))
    directions = torch.nn.functional.normalize(
        torch.randn(20, 12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)), dim=-1
    )
    cast = Caster(gaussians).capture(Rays(directions=directions, pitch_rad=0.01), pose)
    color, distance, cover = cast_reference(gaussians, directions.flatten(0, 1), 0.01, pose)
    assert torch.allclose(cast.color.flatten(0, 1).double(), color.clamp(0, 1), atol=1e-3)
    assert torch.allclose(cast.alpha.flatten().double(), cover, atol=2e-4)
    near = (cast.range.flatten() - distance).abs() <= 1e-4 * distance
    assert near.double().mean() > 0.99  # a transmittance of just a half may round to either side
    assert (distance > 0).sum() > 40


def test_one_thread_gives_the_same_bytes():
    gaussians, rays = scattered(200), pinhole_rays(intrinsics_from_hfov(60.0, 24, 32), 24, 32)
    fast, serial = (Caster(gaussians, parallel=parallel).capture(rays, EYE) for parallel in (True, False))
    assert torch.equal(fast.range, serial.range)
    assert torch.equal(fast.color, serial.color)


@pytest.mark.parametrize("sensor", ["pinhole", "fisheye", "lidar"])
def test_depth_is_the_surface_within_two_percent(scene, sensor):
    if sensor == "pinhole":
        rays = pinhole_rays(intrinsics_from_hfov(70.0, 72, 128), 72, 128)
    elif sensor == "fisheye":
        rays = fisheye_rays(torch.tensor([[60.0, 0, 64], [0, 60.0, 36], [0, 0, 1]]), 72, 128, max_angle_deg=30.0)
    else:
        rays = lidar_rays(
            LidarModel(elevations_deg=tuple(float(e) for e in range(-18, 15, 2)), columns=100, horizontal_fov_deg=60.0)
        )
    cast = Caster(scene).capture(rays, EYE)
    truth = surface(rays.directions)
    seen = (cast.range > 0) & (truth > 0)
    assert seen.sum() > 0.9 * (truth > 0).sum()
    error = ((cast.range.double() - truth).abs() / truth)[seen]
    assert (error < 0.02).double().mean() > 0.95
    assert error.median() < 0.004


def test_from_beside_the_surface_is_where_it_was(scene):
    # Rays of another place meet the same floor and ball: points are compared in the world's frame.
    center = torch.tensor([0.25, -0.1, 0.3], dtype=torch.float64)
    pose = look_at(center, torch.tensor([0.3, 0.6, 4.0]))
    cast = Caster(scene).capture(pinhole_rays(intrinsics_from_hfov(50.0, 60, 100), 60, 100), pose)
    points = cast.world_points()[cast.range > 0]
    off = torch.minimum((points[:, 1] - FLOOR_Y).abs(), ((points - SPHERE).norm(dim=1) - RADIUS).abs())
    assert ((off / (points - center).norm(dim=1)) < 0.02).double().mean() > 0.95


def test_normals_of_the_floor_point_up(scene):
    cast = Caster(scene).capture(pinhole_rays(intrinsics_from_hfov(70.0, 72, 128), 72, 128), EYE)
    normals, points = cast.normals(), cast.points()
    floor = ((points[..., 1] - FLOOR_Y).abs() < 0.01) & (normals.norm(dim=-1) > 0) & (points[..., 2] < 6)
    assert floor.sum() > 500
    assert normals[floor][:, 1].median() < -0.98
    ball = (((points - SPHERE).norm(dim=-1) - RADIUS).abs() < 0.02) & (normals.norm(dim=-1) > 0)
    outward = torch.nn.functional.normalize(points - SPHERE, dim=-1)
    assert ((normals * outward).sum(-1)[ball]).median() > 0.95


def test_its_picture_is_the_rasterisers(scene):
    K = intrinsics_from_hfov(70.0, 72, 128)
    cast = Caster(scene).capture(pinhole_rays(K, 72, 128), EYE)
    path = CameraPath(world_to_cam=EYE[None], intrinsics=K[None], image_height=72, image_width=128)
    drawn = render(scene, path)
    inner = (drawn.alpha[0] > 0.99) & (cast.alpha > 0.99)
    assert (cast.color - drawn.color[0]).abs()[inner].mean() < 0.05  # of white noise, the worst texture there is


def test_the_dome_has_no_surface_and_no_ray_no_color(scene):
    dome = scene.marked(Part.DOME)
    rays = fisheye_rays(torch.tensor([[20.0, 0, 32], [0, 20.0, 32], [0, 0, 1]]), 64, 64, max_angle_deg=60.0)
    cast = Caster(dome).capture(rays, EYE)
    assert (cast.part == int(Part.DOME)).any()
    assert not cast.range.any()
    outside = rays.directions.norm(dim=-1) == 0
    assert outside.any()
    assert not cast.color[outside].any()
    with pytest.raises(GaussiansError, match="at least one"):
        Caster(scene[:0])


def test_depth_is_along_the_forward_axis(scene):
    K = intrinsics_from_hfov(70.0, 72, 128)
    cast = Caster(scene).capture(pinhole_rays(K, 72, 128), EYE)
    assert torch.allclose(cast.depth.double(), cast.points()[..., 2], atol=1e-5)
    path = CameraPath(
        world_to_cam=torch.stack([EYE, EYE]), intrinsics=K.repeat(2, 1, 1), image_height=72, image_width=128
    )
    assert len(list(Caster(scene).sweep(pinhole_rays(K, 72, 128), path))) == 2
    assert math.isclose(float(invert_rigid(cast.world_to_cam).trace()), 4.0)
