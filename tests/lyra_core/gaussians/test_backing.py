"""Worlds without holes: gaps of keyframes are closed, what lies behind them is continued and never covers them."""

from dataclasses import replace

import pytest
import torch

from lyra_core.gaussians.backing import HOLE_ALPHA, Anchor, build_backing, close_holes, is_unseen
from lyra_core.gaussians.clip_source import MemoryClip
from lyra_core.gaussians.coarsen import PointSet
from lyra_core.gaussians.duplicates import View
from lyra_core.gaussians.lifters import ClipDepthLifter
from lyra_core.gaussians.pixel_footprint import lift_pixels
from lyra_core.gaussians.reconstruct import ReconstructionConfig, reconstruct
from lyra_core.gaussians.render import render
from lyra_core.values import CameraPath, Gaussians, Part

SKY_M = 60.0


def anchors_of(clip) -> list[Anchor]:
    return [
        Anchor(
            frame=i,
            view=View(
                depth_m=torch.where(clip.sky[i], SKY_M, clip.depth_m[i]),
                confidence=torch.ones_like(clip.depth_m[i]),
                world_to_cam=clip.cameras.world_to_cam[i],
                intrinsics=clip.cameras.intrinsics[i],
            ),
            sky=clip.sky[i],
        )
        for i in range(len(clip))
    ]


def test_gaps_of_keyframes_are_closed_by_their_own_pixels(make_clip):
    clip = make_clip(2, 48, 64)
    anchors = anchors_of(clip)
    view = anchors[0].view
    left = torch.ones_like(view.depth_m, dtype=torch.bool)
    left[10:30, 20:50] = False
    some = lift_pixels(clip.frames[0], view.depth_m, view.confidence, view.world_to_cam, view.intrinsics, left)
    points = PointSet(gaussians=some, spacing_m=some.scales[:, 0], confidence=some.opacities)
    before = render(some, clip.cameras[:1]).alpha[0]
    closed = close_holes(points, anchors, MemoryClip(clip))
    after = render(closed.gaussians, clip.cameras)
    assert float((before < HOLE_ALPHA).float().mean()) > 0.1
    assert float((after.alpha < HOLE_ALPHA).float().mean()) < 0.01
    error = (after.color[0] - clip.frames[0] / 255.0).abs()[12:28, 22:48]
    assert float(error.mean()) < 0.08
    again = close_holes(closed, anchors[:1], MemoryClip(clip))
    assert len(again) <= len(closed) + 5


def test_the_backing_is_behind_what_keyframes_see_and_all_around(make_clip):
    clip = make_clip(3, 48, 64)
    anchors = anchors_of(clip)
    backing = build_backing(anchors, MemoryClip(clip), SKY_M)
    assert bool(is_unseen(backing, anchors).all())
    alone = render(backing, clip.cameras)
    nearer = alone.depth_m < 0.98 * torch.stack([a.view.depth_m for a in anchors])
    inner = (slice(None), slice(5, -5), slice(5, -5))  # splats of the surroundings reach over the border a little
    assert float((nearer & (alone.alpha > 0.5))[inner].float().mean()) < 0.02
    turned = clip.cameras[[0, 0, 0]].world_to_cam.clone()
    for k, yaw in enumerate((1.2, 2.4, -1.8)):
        c, s = float(torch.tensor(yaw).cos()), float(torch.tensor(yaw).sin())
        turned[k] = (
            torch.tensor([[c, 0, s, 0], [0, 1, 0, 0], [-s, 0, c, 0], [0, 0, 0, 1]], dtype=torch.float64) @ turned[k]
        )
    around = CameraPath(
        world_to_cam=turned, intrinsics=clip.cameras.intrinsics[:1].expand(3, 3, 3), image_height=48, image_width=64
    )
    assert float((render(backing, around).alpha < 0.5).float().mean()) < 0.02


def test_a_point_in_free_space_or_on_a_surface_is_seen(make_clip):
    anchors = anchors_of(make_clip(1, 48, 64))
    view = anchors[0].view
    z = float(view.depth_m[24, 32])
    ray = torch.linalg.inv(view.intrinsics) @ torch.tensor([32.5, 24.5, 1.0], dtype=torch.float64)
    pose = torch.linalg.inv(view.world_to_cam)
    points = torch.stack([pose[:3, :3] @ (ray * z * share) + pose[:3, 3] for share in (0.5, 1.0, 1.2)]).float()
    small = Gaussians(
        means=points,
        quats=torch.tensor([[1.0, 0, 0, 0]]).expand(3, 4),
        scales=torch.full((3, 3), 1e-3),
        opacities=torch.ones(3),
        sh=torch.zeros(3, 1, 3),
    )
    assert is_unseen(small, anchors).tolist() == [False, False, True]


def test_a_reconstruction_with_anchors_has_no_holes_beside_its_path(make_clip):
    clip = make_clip(6, 48, 64)
    aside = clip.cameras[[0, 5]]
    moved = aside.world_to_cam.clone()
    moved[:, 0, 3] -= 0.4
    aside = replace(aside, world_to_cam=moved)
    made = {}
    for views in (0, 4):
        config = ReconstructionConfig(tier=20_000, anchor_views=views, sample_views=4)
        made[views] = reconstruct(clip, lifter=ClipDepthLifter(), config=config).gaussians
        assert len(made[views]) <= 20_000
    open_share = {v: float((render(g, aside).alpha < 0.5).float().mean()) for v, g in made.items()}
    assert open_share[0] > 0.02
    assert open_share[4] < 0.005
    own = {v: (render(g, clip.cameras[::5]).color - clip.frames[::5] / 255.0).abs().mean() for v, g in made.items()}
    assert float(own[4]) == pytest.approx(float(own[0]), abs=0.01)


def test_a_reconstruction_tells_surfaces_from_backing_and_dome(make_clip):
    clip = make_clip(6, 48, 64)
    config = ReconstructionConfig(tier=20_000, anchor_views=4, sample_views=4, color_passes=1)
    made = reconstruct(clip, lifter=ClipDepthLifter(), config=config).gaussians
    surface, backing, dome = (made.of_parts(part) for part in Part)
    assert len(surface) + len(backing) + len(dome) == len(made)
    assert min(len(surface), len(backing), len(dome)) > 100
    room = surface.means.abs().amax(0)  # of 6 x 3 x 10 m around the first camera
    assert float(room[0]) < 4
    assert float(room[1]) < 2.2
    assert float(room[2]) < 9
    assert float(dome.means.norm(dim=1).quantile(0.9)) > 12
    window = render(dome, clip.cameras[:1]).alpha[0] > 0.5
    assert float((window & clip.sky[0]).sum()) > 0.9 * float(clip.sky[0].sum())
    seen = render(surface, clip.cameras[:1]).alpha[0] > 0.5
    assert float((seen & ~clip.sky[0]).sum()) > 0.97 * float((~clip.sky[0]).sum())
    few = reconstruct(clip, lifter=ClipDepthLifter(), config=replace(config, tier=2_000)).gaussians
    assert {int(part) for part in few.part.unique()} == {0, 1, 2}
