import pytest
import torch

from lyra_core.config.reconstruction import tier_size
from lyra_core.errors import FormatError, FrameError, ReconstructionError, StoreError
from lyra_core.gaussians.backproject import contributions, fit_colors
from lyra_core.gaussians.chunk_store import load_lift, save_lift
from lyra_core.gaussians.clip_source import MemoryClip, StoredClip, write_stored_clip
from lyra_core.gaussians.depth_anything.adapter import to_world
from lyra_core.gaussians.lifters import HeadGaussians, HeadLifter, Lift, place_in_world, rigid_similarity
from lyra_core.gaussians.rasterize import rasterize
from lyra_core.gaussians.rasterize_reference import rasterize_reference
from lyra_core.gaussians.tiers import make_tiers
from lyra_core.geometry.alignment import Similarity
from lyra_core.geometry.camera import rotation_about_axis
from lyra_core.values import CameraPath, Gaussians

K = torch.tensor([[30.0, 0, 18.0], [0, 30.0, 12.0], [0, 0, 1]], dtype=torch.float64)


def some_gaussians(count: int = 40, sh: int = 9) -> Gaussians:
    g = torch.Generator().manual_seed(5)
    return Gaussians(
        means=torch.rand(count, 3, generator=g) * torch.tensor([3.0, 2.0, 2.0]) + torch.tensor([-1.5, -1.0, 2.0]),
        quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=g), dim=1),
        scales=torch.rand(count, 3, generator=g) * 0.2 + 0.05,
        opacities=torch.rand(count, generator=g) * 0.6 + 0.3,
        sh=torch.randn(count, sh, 3, generator=g) * 0.3,
    )


def some_camera() -> torch.Tensor:
    w2c = torch.eye(4, dtype=torch.float64)
    w2c[:3, :3] = rotation_about_axis((0.3, 1.0, 0.2), torch.tensor(0.9, dtype=torch.float64))
    w2c[:3, 3] = torch.tensor([0.3, -0.2, 0.7])
    return w2c


def test_a_similarity_changes_no_picture_degree_2_included():
    gaussians = some_gaussians()
    similarity = Similarity(scale=2.5, rotation=some_camera()[:3, :3], translation=some_camera()[:3, 3])
    eye = torch.eye(4, dtype=torch.float64)
    moved = similarity.apply_to_cameras(eye[None])[0]
    before = rasterize_reference(gaussians, eye, K, 24, 36)
    after = rasterize_reference(to_world(gaussians, similarity), moved, K, 24, 36)
    assert torch.allclose(before.color, after.color, atol=2e-4)
    assert torch.allclose(2.5 * before.depth_m, after.depth_m, rtol=1e-3, atol=1e-3)


def test_a_heads_gaussians_stand_before_whichever_camera_is_chosen():
    gaussians, w2c = some_gaussians(), some_camera()
    local = to_world(gaussians, rigid_similarity(w2c))
    head = HeadGaussians(
        gaussians=Gaussians.concatenate([local, local]),
        frame=torch.tensor([0] * 40 + [1] * 40),
        spacing_m=torch.arange(80.0),
    )
    placed, spacing = place_in_world(head, 1, w2c, 1.0)
    assert torch.allclose(placed.means, gaussians.means, atol=1e-5)
    assert torch.equal(spacing, torch.arange(40.0, 80.0))
    expected = rasterize_reference(gaussians, w2c, K, 24, 36)
    found = rasterize_reference(placed, w2c, K, 24, 36)
    assert torch.allclose(found.color, expected.color, atol=2e-4)
    larger, spacing = place_in_world(head, 1, w2c, 3.0)
    grown = rasterize_reference(larger, w2c, K, 24, 36)
    # Seen from its own camera, depth scales and nothing else does.
    assert torch.allclose(grown.color, expected.color, atol=2e-4)
    assert torch.allclose(grown.depth_m, 3.0 * expected.depth_m, rtol=1e-3, atol=1e-3)
    assert torch.equal(spacing, 3.0 * torch.arange(40.0, 80.0))


def test_stored_chunks_come_back_equal_and_damage_is_named(make_clip, tmp_path):
    clip = make_clip(3)
    lift = Lift(
        depth_m=clip.depth_m,
        confidence=torch.rand(3, 48, 64),
        sky=clip.sky,
        recovered=clip.cameras.world_to_cam,
        head=HeadGaussians(gaussians=some_gaussians(), frame=torch.arange(40) // 20, spacing_m=torch.rand(40)),
    )
    path = tmp_path / "chunk.safetensors"
    save_lift(lift, path)
    back = load_lift(path)
    for name in ("depth_m", "confidence", "sky", "recovered"):
        assert torch.equal(getattr(back, name), getattr(lift, name))
    assert torch.equal(back.head.gaussians.sh, lift.head.gaussians.sh)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StoreError, match="delete it"):
        load_lift(path)


def test_a_stored_clip_gives_the_windows_of_the_one_in_memory(make_clip, tmp_path):
    clip = make_clip(5)
    write_stored_clip(clip, tmp_path / "clip.safetensors")
    stored, memory = StoredClip(tmp_path / "clip.safetensors"), MemoryClip(clip)
    for frames in ([0], [1, 4], [0, 1, 2, 3, 4]):
        a, b = stored.window(torch.tensor(frames)), memory.window(torch.tensor(frames))
        for name in ("frames", "depth_m", "sky"):
            assert torch.equal(getattr(a, name), getattr(b, name))
        assert torch.equal(a.cameras.world_to_cam, b.cameras.world_to_cam)
    with pytest.raises(FrameError, match="0 to 4"):
        stored.window(torch.tensor([5]))
    with pytest.raises(FormatError, match="stored clip"):
        StoredClip(tmp_path / "none.safetensors")


def test_the_gaussian_head_wants_its_own_estimator():
    with pytest.raises(ReconstructionError, match="DepthLifter"):
        HeadLifter(object(), name="x")


def test_contributions_add_up_to_what_was_drawn():
    gaussians = some_gaussians(sh=1)
    path = CameraPath(world_to_cam=torch.eye(4).double()[None], intrinsics=K[None], image_height=24, image_width=36)
    drawn = rasterize(gaussians, path.world_to_cam[0], K, 24, 36)
    seen = contributions(gaussians, path)
    assert float(seen.sum()) == pytest.approx(float(drawn.alpha.sum()), rel=1e-3)
    # A Gaussian behind all others loses to them what they cover.
    hidden = Gaussians.concatenate([gaussians, gaussians[:1]])
    hidden.means[-1] = torch.tensor([0.0, 0.0, 30.0])
    assert float(contributions(hidden, path)[-1]) < float(seen[0])


def test_colours_are_fitted_to_the_frames(make_clip):
    clip = make_clip(9)
    from lyra_core.gaussians.pixel_footprint import lift_pixels

    gaussians = lift_pixels(
        clip.frames[0],
        torch.where(clip.sky[0], 8.0, clip.depth_m[0]),
        torch.ones(48, 64),
        clip.cameras.world_to_cam[0],
        clip.cameras.intrinsics[0],
    )
    frames = [f.float() / 255 for f in clip.frames[:2]]
    quality = []
    for _ in range(4):
        fit = fit_colors(gaussians, iter(frames), clip.cameras[:2])
        gaussians = fit.gaussians
        quality.append(fit.psnr_db)
    assert quality == sorted(quality)
    assert quality[-1] > quality[0] + 1.5


def test_tiers_hold_their_size_and_keep_the_picture(make_clip):
    from lyra_core.gaussians.pixel_footprint import lift_pixels

    clip = make_clip(2)
    camera = clip.cameras[:1]
    full = lift_pixels(
        clip.frames[0], clip.depth_m[0], torch.ones(48, 64), camera.world_to_cam[0], camera.intrinsics[0]
    )
    assert len(make_tiers(full, camera, ("100k",))["100k"]) == len(full)
    assert (tier_size("2m"), tier_size(77)) == (2_000_000, 77)
