import pytest
import torch

from lyra_core.depth import DepthEstimator
from lyra_core.errors import CameraPathError, DepthError, FrameError, RecipeError
from lyra_core.gaussians.depth_anything.budget import Budget
from lyra_core.gaussians.depth_anything.plane_sweep import PlaneSweep, choose_sources, log_planes
from lyra_core.gaussians.keyframes import KeyframeConfig
from lyra_core.gaussians.lifters import place_in_world
from lyra_core.gaussians.prune import is_finite
from lyra_core.gaussians.reconstruct import ReconstructionConfig, reconstruct
from lyra_core.gaussians.render import render
from lyra_core.image_metrics import psnr_db
from lyra_core.mini.camera_gaussians import camera_gaussians, world_gaussians
from lyra_core.mini.depth import (
    MINI_DEPTH,
    TINY_MINI_DEPTH,
    TINY_REFINED_DEPTH,
    MiniDepth,
    MiniDepthConfig,
)
from lyra_core.mini.depth_estimator import MiniDepthEstimator, MiniHead, see_single

HEIGHT, WIDTH = 48, 64


@pytest.fixture(scope="module")
def tiny() -> MiniDepth:
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        model = MiniDepth(TINY_MINI_DEPTH).eval()
    with torch.no_grad():
        model.dense[-1].bias[2] = -1.0  # nothing is sky
    return model


@pytest.fixture
def estimator(tiny: MiniDepth) -> MiniDepthEstimator:
    return MiniDepthEstimator(tiny, height=HEIGHT, width=WIDTH, views=4, overlap=1)


def test_the_network_fits_the_package():
    with torch.device("meta"):
        size = sum(p.numel() for p in MiniDepth(MINI_DEPTH).parameters())
    assert 5e6 < size < 6e6


def test_the_sweep_finds_the_depth_of_a_wall():
    """A textured wall that faces two cameras side by side: the best plane is the wall's."""
    noise = torch.randn(1, 1, 16, 24, 80, generator=torch.Generator().manual_seed(0))
    shift = 6  # cells between the pictures: focal 40, baseline 0.3, so the wall is 2 units away
    views = torch.cat([noise[..., :48], noise[..., shift : 48 + shift]], 1)
    features = torch.nn.functional.normalize(views, dim=2)
    K = torch.tensor([[40.0, 0, 24], [0, 40.0, 12], [0, 0, 1]]).expand(1, 2, 3, 3)
    w2c = torch.eye(4).repeat(1, 2, 1, 1)
    w2c[0, 1, 0, 3] = -0.3
    planes = log_planes(33, 0.5, 8.0, "cpu")
    cost = PlaneSweep(features, w2c, K, 3).at(planes).mean
    best = planes[cost[0, 0, :, 4:-4, 12:].argmax(0)].exp()
    assert float((best - 2.0).abs().max()) < 0.2
    assert float(cost.amax()) == pytest.approx(1.0, abs=1e-3)


def test_a_sweep_by_lookup_is_the_sweep():
    draw = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(2, 3, 8, 6, 10, generator=draw), dim=2)
    K = torch.tensor([[8.0, 0, 5], [0, 8.0, 3], [0, 0, 1]]).expand(2, 3, 3, 3)
    w2c = torch.eye(4).repeat(2, 3, 1, 1)
    w2c[..., :3, 3] = 0.3 * torch.randn(2, 3, 3, generator=draw)
    own = torch.randn(2, 3, 5, 6, 10, generator=draw)
    found, gradients = [], []
    for all_pairs in (False, True):
        given = features.clone().requires_grad_()
        sweep = PlaneSweep(given, w2c, K, 2, all_pairs=all_pairs)
        looks = [sweep.at(log_planes(9, 0.5, 8.0, "cpu")), sweep.at(own)]
        values = torch.cat([part for look in looks for part in (look.mean, look.best)], 2)
        values.square().sum().backward()
        found.append(values.detach())
        gradients.append(given.grad)
    assert torch.allclose(found[0], found[1], atol=1e-5)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-4)
    assert bool((found[0][:, :, 9:18] >= found[0][:, :, :9] - 1e-6).all())  # the best is no less than the mean
    shared = sweep.at(own.new_zeros(1))
    assert torch.allclose(sweep.at(torch.zeros_like(own)).mean[:, :, :1], shared.mean, atol=1e-6)


def test_added_parts_change_next_to_nothing_at_first(tiny: MiniDepth, make_clip):
    clip = make_clip(3, HEIGHT, WIDTH)
    refined = MiniDepth(TINY_REFINED_DEPTH).eval()
    added = {name: value for name, value in refined.state_dict().items() if name not in tiny.state_dict()}
    assert added
    refined.load_state_dict({**added, **tiny.state_dict()})
    images = clip.frames.permute(0, 3, 1, 2).float()[None] / 255
    K, w2c = clip.cameras.intrinsics[None].float(), clip.cameras.world_to_cam[None].float()
    with torch.no_grad():
        plain, same = (model(images, K, w2c, with_gaussians=True) for model in (tiny, refined))
        assert float((plain.log_depth - same.log_depth).abs().max()) < 0.02
        assert torch.equal(plain.sky_logit, same.sky_logit)
        assert same.stages.shape[2] == 2
        first = refined(
            images.repeat(2, 1, 1, 1, 1),
            K.repeat(2, 1, 1, 1),
            w2c.repeat(2, 1, 1, 1),
            with_gaussians=True,
            gaussian_windows=1,
        )
        assert torch.allclose(first.gaussians, same.gaussians, atol=1e-5)


def test_sources_are_others_and_spread():
    sources = choose_sources(6, 3)
    assert sources.shape == (6, 3)
    assert all(view not in row for view, row in enumerate(sources.tolist()))
    assert choose_sources(2, 3).tolist() == [[1], [0]]
    assert len(set(choose_sources(9, 3)[0].tolist())) == 3


def test_numbers_of_zero_draw_the_picture(make_clip):
    clip = make_clip(2, HEIGHT, WIDTH)
    image = clip.frames[:1].permute(0, 3, 1, 2).float() / 255
    K, w2c = clip.cameras.intrinsics[:1].float(), clip.cameras.world_to_cam[:1].float()
    depth = torch.where(clip.sky[:1], 20.0, clip.depth_m[:1])
    made = world_gaussians(torch.zeros(1, 12, HEIGHT, WIDTH), depth, image, K, w2c)
    drawn = render(made, clip.cameras[:1])
    assert float(drawn.alpha.min()) > 0.9
    assert psnr_db(drawn.color[0], image[0].permute(1, 2, 0)) > 25
    local = camera_gaussians(torch.zeros(1, 12, HEIGHT, WIDTH), depth, image, K)
    assert torch.allclose(local.means[:, 2], depth.flatten())


def test_it_is_a_depth_estimator_for_windows_and_lone_images(estimator: MiniDepthEstimator, make_clip):
    clip = make_clip(7, 96, 128)
    assert isinstance(estimator, DepthEstimator)
    posed = estimator.estimate(clip.frames, clip.cameras)
    single = estimator.estimate(clip.frames[:1], None)
    for found, count in ((posed, 7), (single, 1)):
        assert found.depth_m.shape == (count, 96, 128)
        assert bool((found.depth_m > 0).all())
        assert float(found.confidence.min()) >= 0
        assert float(found.confidence.max()) <= 1
    assert posed.intrinsics is None
    assert single.intrinsics is not None
    again = estimator.estimate(clip.frames, clip.cameras)
    assert torch.equal(posed.depth_m, again.depth_m)


def test_a_mirrored_look_does_not_know_left_from_right(tiny: MiniDepth, make_clip):
    images = make_clip(1, HEIGHT, WIDTH).frames.permute(0, 3, 1, 2).float() / 255
    K = torch.tensor([[[50.0, 0, 30.0], [0, 50.0, 24.0], [0, 0, 1]]])
    turned = torch.tensor([[[50.0, 0, WIDTH - 30.0], [0, 50.0, 24.0], [0, 0, 1]]])
    one = see_single(tiny, images, K, is_mirrored=True)
    other = see_single(tiny, images.flip(3), turned, is_mirrored=True)
    assert torch.allclose(one.depth_m, other.depth_m.flip(2), rtol=1e-4)
    plain = see_single(tiny, images, K, is_mirrored=False)
    assert not torch.allclose(one.depth_m, plain.depth_m, rtol=1e-4)


def test_believed_depth_fixes_the_scale(estimator: MiniDepthEstimator, make_clip):
    clip = make_clip(3, HEIGHT, WIDTH)
    for cameras in (clip.cameras, None):
        free = estimator.estimate(clip.frames, cameras).depth_m
        half = estimator.estimate(clip.frames, cameras, 0.5 * clip.depth_m).depth_m
        full = estimator.estimate(clip.frames, cameras, clip.depth_m).depth_m
        assert float((full / half).median()) == pytest.approx(2.0, rel=0.3)
        assert free.shape == full.shape
    unknown = estimator.estimate(clip.frames, clip.cameras, torch.zeros_like(clip.depth_m)).depth_m
    assert torch.equal(unknown, estimator.estimate(clip.frames, clip.cameras).depth_m)


def test_its_gaussians_go_through_reconstruction(estimator: MiniDepthEstimator, make_clip):
    clip = make_clip(6, HEIGHT, WIDTH)
    head = MiniHead(estimator, name="tiny")
    lift = head.lift(clip, None, Budget(views=6))
    placed, _ = place_in_world(lift.head, 0, clip.cameras.world_to_cam[0], 1.0)
    seen = see_single(estimator.model, estimator.images(clip.frames[:1]), clip.cameras.intrinsics[:1].float())
    assert 0 < len(placed) <= seen.depth_m.numel()
    config = ReconstructionConfig(
        tier=4000, chunk_frames=4, keyframes=KeyframeConfig(max_shift=0.0, min_shared=1.0), sample_views=3
    )
    found = reconstruct(clip, lifter=head, config=config)
    assert found.report.num_chunks > 1
    assert is_finite(found.gaussians).all()


def test_useless_input_has_named_errors(estimator: MiniDepthEstimator, make_clip):
    clip = make_clip(3, HEIGHT, WIDTH)
    with pytest.raises(FrameError, match="at least one frame"):
        estimator.estimate(clip.frames[:0], None)
    with pytest.raises(CameraPathError, match="one camera a frame"):
        estimator.estimate(clip.frames, clip.cameras[:2])
    with pytest.raises(CameraPathError, match="resized"):
        estimator.estimate(clip.frames, clip.cameras.resized(24, 32))
    broken = MiniDepth(TINY_MINI_DEPTH).eval()
    torch.nn.init.constant_(broken.dense[-1].bias, torch.nan)
    with pytest.raises(DepthError, match="finite"):
        MiniDepthEstimator(broken, height=HEIGHT, width=WIDTH).estimate(clip.frames, clip.cameras)
    with pytest.raises(RecipeError, match="num_heads"):
        MiniDepthConfig(dim=100, num_heads=3)
    with pytest.raises(RecipeError, match="sweep"):
        MiniDepthConfig(num_planes=1)
    with pytest.raises(RecipeError, match="odd"):
        MiniDepthConfig(refine_planes=4)
