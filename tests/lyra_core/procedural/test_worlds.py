"""Frames: fast path against plain path, depth against cameras, textures against aliasing."""

import numpy as np
import pytest
import torch

from lyra_core.errors import FrameError
from lyra_core.procedural.ray_cast import nearest_hits
from lyra_core.procedural.scene_batch import SceneBatch
from lyra_core.procedural.scenes import sample_scene
from lyra_core.procedural.shade import shade
from lyra_core.procedural.views import sample_path
from lyra_core.procedural.worlds import SceneLook, render_frames, render_scene, scene_clip

SIZE = (48, 80)


@pytest.mark.parametrize("kind", ["street", "terrain"])
def test_fast_and_plain_images_agree(kind, atlas):
    scenes = [sample_scene(seed, kind=kind) for seed in (0, 1)]
    paths = [sample_path(scene, "wander", 1, 24, 40) for scene in scenes]
    batch = SceneBatch.of(scenes, atlas)
    poses = torch.stack([path.cam_to_world for path in paths]).float()
    intrinsics = torch.stack([path.intrinsics for path in paths]).float()
    fast, plain = (render_frames(batch, poses, intrinsics, 24, 40, casting=how) for how in ("auto", "plain"))
    assert (fast.rgb - plain.rgb).abs().mean() < 1e-4
    assert ((fast.rgb - plain.rgb).abs().amax(-1) > 0.01).float().mean() < 0.005
    both = ~fast.sky & ~plain.sky
    close = ((fast.depth_m - plain.depth_m).abs() <= 1e-4 * plain.depth_m)[both]
    assert close.float().mean() > 0.998
    assert float(plain.rgb.std()) > 0.05


def test_padding_changes_nothing(atlas):
    scene = sample_scene(6, kind="room")
    path = sample_path(scene, "wander", 1, 24, 40)
    tight, padded = (SceneBatch.of([scene], atlas, capacity=c) for c in (None, (44, 28, 20)))
    a, b = (render_scene(batch, [path], 24, 40, supersample=1) for batch in (tight, padded))
    assert torch.equal(a.rgb, b.rgb)
    assert torch.equal(a.depth_m, b.depth_m)


@pytest.mark.parametrize(("kind", "seed"), [("room", 0), ("street", 1), ("terrain", 2), ("tabletop", 3)])
def test_depth_agrees_with_cameras_across_frames(kind, seed, atlas):
    """Points seen in frame i, moved into frame j, lie where j sees them unless something is in front."""
    scene = sample_scene(seed, kind=kind)
    path = sample_path(scene, "truck-right", 5, *SIZE)
    frames = render_scene(SceneBatch.of([scene], atlas), [path], *SIZE, supersample=1)
    depth = frames.depth_m[0].double()
    v, u = torch.meshgrid(torch.arange(SIZE[0]) + 0.5, torch.arange(SIZE[1]) + 0.5, indexing="ij")
    K = path.intrinsics[0]
    ray = torch.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], torch.ones_like(u)], -1)
    points = (ray * depth[0][..., None])[~frames.sky[0, 0]]
    move = path.world_to_cam[4] @ path.cam_to_world[0]
    moved = points @ move[:3, :3].T + move[:3, 3]
    x, y = (moved[:, i] / moved[:, 2] * K[i, i] + K[i, 2] for i in (0, 1))
    inside = (moved[:, 2] > 0.05) & (x > 1) & (x < SIZE[1] - 1) & (y > 1) & (y < SIZE[0] - 1)
    row, column = y[inside].long(), x[inside].long()
    there = torch.where(depth[4] > 0, depth[4], torch.inf)
    # a hit between pixel centres: compare with the nearest and farthest of the 3 x 3 pixels around it
    tiles = (
        torch.nn.functional.pad(there[None, None], (1, 1, 1, 1), mode="replicate")[0, 0].unfold(0, 3, 1).unfold(1, 3, 1)
    )
    nearest, farthest = tiles.amin((-1, -2))[row, column], tiles.amax((-1, -2))[row, column]
    z = moved[inside][:, 2]
    hidden = z > farthest * 1.01
    wrong = z < nearest * 0.99
    assert inside.float().mean() > 0.3
    assert wrong.float().mean() < 0.01
    assert hidden.float().mean() < 0.3


def test_clip_starts_at_the_origin_and_is_deterministic():
    first, second = (scene_clip(4, "dolly-in", 3, 24, 40, SceneLook(kind="room", supersample=1)) for _ in range(2))
    assert torch.equal(first.frames, second.frames)
    assert torch.equal(first.depth_m, second.depth_m)
    torch.testing.assert_close(first.cameras.world_to_cam[0], torch.eye(4, dtype=torch.float64), atol=1e-9, rtol=0)
    assert bool((first.depth_m[~first.sky] > 0).all())
    assert bool((first.depth_m[first.sky] == 0).all())
    held_out = scene_clip(4, "dolly-in", 3, 24, 40, SceneLook(split="heldout", kind="room", supersample=1))
    assert not torch.equal(first.frames, held_out.frames)


def test_supersampling_reduces_flicker(atlas):
    """A quarter-pixel shift changes supersampled edges by a quarter, aliased ones wholly or not at all."""
    scene = sample_scene(1, kind="street")
    path = sample_path(scene, "wander", 1, 32, 56)
    batch = SceneBatch.of([scene], atlas)
    poses, K = path.cam_to_world[None].float(), path.intrinsics[None].float()
    shifted = K.clone()
    shifted[..., 0, 2] += 0.25
    change = []
    for supersample in (1, 3):
        a, b = (render_frames(batch, poses, k, 32, 56, supersample=supersample).rgb for k in (K, shifted))
        change.append(float((a - b).square().mean()))
    assert change[1] < 0.6 * change[0]


def test_cameras_and_scenes_must_match(atlas):
    scene = sample_scene(0, kind="room")
    path = sample_path(scene, "wander", 1, 24, 40)
    with pytest.raises(FrameError):
        render_scene(SceneBatch.of([scene], atlas), [path, path], 24, 40)


def test_every_pixel_is_a_number_whatever_the_light(atlas):
    """All directions at once, sky and lamps among them: a wide camera in many scenes of each kind."""
    v, u = torch.meshgrid(torch.linspace(-1.2, 1.2, 16), torch.linspace(-3.1, 3.1, 24), indexing="ij")
    direction = torch.stack([u.sin() * v.cos(), v.sin(), u.cos() * v.cos()], -1).reshape(1, -1, 3)
    lamps = skies = 0
    for seed in range(24):
        scene = sample_scene(seed, kind=("room", "tabletop", "street", "terrain")[seed % 4])
        batch = SceneBatch.of([scene], atlas)
        origin = torch.tensor([scene.stand[0], -scene.eye_m[1] - 0.3, scene.stand[1]]).expand_as(direction)
        hits = nearest_hits(batch, origin, direction)
        color = shade(batch, origin, direction, hits, torch.tensor([0.005]), shadows=True)
        assert bool(torch.isfinite(color).all()), (seed, scene.kind)
        assert float(color.min()) >= 0
        assert float(color.max()) <= 1
        lamps += int(scene.light.position[3] > 0 and bool(torch.isinf(hits.t).any()))
        skies += int(bool(torch.isinf(hits.t).any()))
    assert lamps > 2
    assert skies > 10


def test_scenes_look_like_places(atlas):
    """Lit, coloured and varied: brightness, contrast and hue differ over scenes, and few are black or burnt out."""
    means, contrasts = [], []
    for seed in range(10):
        scene = sample_scene(seed)
        path = sample_path(scene, "wander", 1, 24, 40)
        rgb = render_scene(SceneBatch.of([scene], atlas), [path], 24, 40, supersample=1).rgb.numpy()
        means.append(rgb.mean())
        contrasts.append(rgb.std())
    assert 0.12 < np.median(means) < 0.8
    assert np.std(means) > 0.04
    assert np.median(contrasts) > 0.08


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["street", "terrain"])
def test_fused_kernels_match_the_plain_path_on_a_gpu(kind, atlas):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    scenes = [sample_scene(seed, kind=kind) for seed in (0, 1)]
    paths = [sample_path(scene, "wander", 2, 64, 112) for scene in scenes]
    poses = torch.stack([path.cam_to_world for path in paths]).float()
    intrinsics = torch.stack([path.intrinsics for path in paths]).float()
    plain = render_frames(SceneBatch.of(scenes, atlas), poses, intrinsics, 64, 112, casting="plain")
    batch = SceneBatch.of(scenes, atlas.to("cuda"), capacity=(44, 28, 20))
    fused = render_frames(batch, poses.cuda(), intrinsics.cuda(), 64, 112, casting="fused")
    assert (fused.rgb.cpu() - plain.rgb).abs().mean() < 2e-3
    both = ~plain.sky & ~fused.sky.cpu()
    close = (fused.depth_m.cpu() - plain.depth_m).abs() <= 1e-3 * plain.depth_m
    assert close[both].float().mean() > 0.99
