"""Hits against closed forms computed independently, and the compiled CPU path against the plain one."""

import math

import pytest
import torch

from lyra_core.procedural.intersect import hit_ground, hit_plane, nearest_shapes, with_ground
from lyra_core.procedural.primitives import PARKED_M, Boxes, Ellipsoids, Frusta, ground_height
from lyra_core.procedural.ray_cast import blocked
from lyra_core.procedural.ray_cast import nearest_hits as trace_hits
from lyra_core.procedural.scene_batch import SceneBatch, pick_one
from lyra_core.procedural.scenes import sample_scene
from lyra_core.procedural.surroundings import rolling_ground

UPRIGHT = torch.tensor([[[1.0, 0.0]]])


def parked():
    nowhere = torch.tensor([[[0.0, PARKED_M, 0.0]]])
    small = torch.full((1, 1, 3), 1e-3)
    return (
        Boxes(center=nowhere, half=small, heading=UPRIGHT),
        Ellipsoids(center=nowhere, half=small, heading=UPRIGHT, porosity=torch.zeros(1, 1)),
        Frusta(center=nowhere, half=small),
    )


def rays(origin, targets):
    o = torch.tensor(origin).expand(1, len(targets), 3)
    return o, torch.tensor(targets)[None] - o


def cast(origin, direction, boxes=None, ellipsoids=None, frusta=None, ground=None):
    none = parked()
    hits = nearest_shapes(origin, direction, boxes or none[0], ellipsoids or none[1], frusta or none[2])
    floor = hit_plane(origin, direction) if ground is None else hit_ground(origin, direction, pick_one(ground))
    return with_ground(hits, floor, direction, 99)


def test_plane_depth_is_exact():
    origin, direction = rays([0.5, -1.7, 0.0], [[0.5, -1.2, 1.0], [2.0, 0.0, 3.0], [0.0, -2.0, 1.0]])
    hits = cast(origin, direction)
    assert hits.t[0, 0] == pytest.approx(1.7 / 0.5, rel=1e-6)
    assert hits.t[0, 1] == pytest.approx(1.0, rel=1e-6)
    assert math.isinf(hits.t[0, 2])


def test_sphere_depth_is_exact_far_away():
    center, radius = torch.tensor([3.0, -2.0, 90.0]), 1.25
    ball = Ellipsoids(
        center=center[None, None],
        half=torch.full((1, 1, 3), radius),
        heading=UPRIGHT,
        porosity=torch.zeros(1, 1),
    )
    origin, direction = rays([0.0, -1.5, 0.0], [[3.0, -2.0, 90.0], [3.4, -2.5, 90.0]])
    t = cast(origin, direction, ellipsoids=ball).t[0].double()
    point = origin[0].double() + t[:, None] * direction[0].double()
    assert (point - center).norm(dim=-1) == pytest.approx([radius, radius], abs=1e-4)
    assert float(t[0]) == pytest.approx(1 - radius / float(direction[0, 0].norm()), rel=1e-6)


def test_turned_box_is_hit_on_its_own_face():
    turn = 0.6
    box = Boxes(
        center=torch.tensor([[[0.0, -1.0, 5.0]]]),
        half=torch.tensor([[[1.0, 1.0, 0.5]]]),
        heading=torch.tensor([[[math.cos(turn), math.sin(turn)]]]),
    )
    origin, direction = rays([0.0, -1.0, 0.0], [[0.0, -1.0, 1.0]])
    # the face's plane: own z = -0.5, own z axis = (-sin, 0, cos)
    assert float(cast(origin, direction, boxes=box).t) == pytest.approx(5 - 0.5 / math.cos(turn), rel=1e-6)


def test_cone_and_cylinder():
    frusta = Frusta(
        center=torch.tensor([[[0.0, 0.0, 6.0], [4.0, 0.0, 6.0]]]),
        half=torch.tensor([[[1.0, 2.0, 1.0], [1.0, 2.0, 0.0]]]),
    )
    origin, direction = rays([0.0, -1.0, 0.0], [[0.0, -1.0, 1.0], [4.0, -1.0, 6.0], [4.0, -2.2, 6.0]])
    t = cast(origin, direction, frusta=frusta).t[0]
    assert float(t[0]) == pytest.approx(5.0, rel=1e-6)
    # at half its height the cone has radius 0.5
    assert float(t[1]) == pytest.approx(1 - 0.5 / math.hypot(4, 6), rel=1e-5)
    assert math.isinf(t[2])


def test_wavy_ground_hits_lie_on_the_ground():
    import numpy as np

    ground = rolling_ground(np.random.default_rng(3))
    floor = float(ground_height(pick_one(ground), torch.zeros(1, 1), torch.zeros(1, 1)))
    v = torch.linspace(-0.3, 0.6, 40)
    origin = torch.tensor([0.0, -floor - 1.6, 0.0]).expand(1, 40, 3)
    direction = torch.stack([0.3 * v, v, torch.ones(40)], -1)[None]
    t = cast(origin, direction, ground=ground).t
    point = origin + t[..., None].clamp(max=1e3) * direction
    gap = (-point[..., 1] - ground_height(pick_one(ground), point[..., 0], point[..., 2])).abs()
    seen = torch.isfinite(t)
    assert seen.sum() > 15
    assert float((gap / t)[seen].max()) < 2e-4
    assert not bool(seen[0, 0])


@pytest.mark.parametrize(("kind", "seed"), [("room", 1), ("street", 2), ("terrain", 3), ("tabletop", 4)])
def test_compiled_loops_match_the_plain_path(kind, seed, atlas):
    scene = sample_scene(seed, kind=kind)
    batch = SceneBatch.of([scene], atlas)
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(1, 1500, 3, generator=generator)
    direction = direction / direction.norm(dim=-1, keepdim=True)
    eye = -sum(scene.eye_m) / 2 - 0.3
    origin = torch.tensor([scene.stand[0], eye, scene.stand[1]]).expand_as(direction)
    fast, plain = (trace_hits(batch, origin, direction, how) for how in ("auto", "plain"))
    same = fast.shape == plain.shape
    assert same.float().mean() > 0.998
    both = same & torch.isfinite(plain.t)
    assert both.any()
    torch.testing.assert_close(fast.t[both], plain.t[both], rtol=2e-5, atol=1e-5)
    reach = torch.full(origin.shape[:2], 60.0)
    shades = [blocked(batch, origin, direction, reach, casting=how) for how in ("auto", "plain")]
    assert (shades[0] == shades[1]).float().mean() > 0.998
    assert 0 < float(shades[1].mean()) < 1
