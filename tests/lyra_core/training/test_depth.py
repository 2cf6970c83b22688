import math
from dataclasses import replace

import pytest
import torch

from lyra_core.errors import ConfigError, FrameError, WeightsError
from lyra_core.evaluation.depth_measure import abs_rel, standard_measures
from lyra_core.gaussians.rasterize_torch import rasterize_torch
from lyra_core.mini.depth import TINY_MINI_DEPTH, MiniDepth
from lyra_core.mini.depth_estimator import see_window
from lyra_core.procedural.depth_windows import PackedWindows, WindowConfig, WindowPool, WindowSource, vary_colors
from lyra_core.training.checkpoint import FULL_CHECKPOINT
from lyra_core.training.depth import DepthTask, DepthTrainingConfig, build_mini_depth, train_depth
from lyra_core.training.depth_losses import depth_losses
from lyra_core.training.loop import train
from lyra_core.training.loop_config import LoopConfig
from lyra_core.training.run import TrainingRun
from lyra_core.weights.ema_weights import WEIGHTS

DATA = WindowConfig(
    height=16,
    width=24,
    num_scenes=2,
    num_held_out=2,
    takes=1,
    textures_per_kind=1,
    texture_size=32,
    supersample=1,
    pool_windows=0,
    fresh_windows=2,
)


def config(steps: int, **options: object) -> DepthTrainingConfig:
    loop = LoopConfig(max_steps=steps, warmup_steps=4, learning_rate=4e-3, log_every=5)
    chosen = {"data": DATA, "model": TINY_MINI_DEPTH, "batch": 2, "splat_windows": 1, "splat_from_step": None}
    return DepthTrainingConfig(loop=loop, **{**chosen, **options})


@pytest.fixture(scope="module")
def source() -> WindowSource:
    return WindowSource(DATA, "train", "cpu")


def test_windows_agree_with_their_cameras(source: WindowSource):
    """What one frame sees is found by the next at the depth that its camera tells."""
    windows = source.one_of_each(2)
    assert torch.allclose(windows.world_to_cam[:, 0], torch.eye(4), atol=1e-5)
    for i in range(len(windows)):
        a, b = 0, 1
        K = windows.intrinsics[i, a]
        rows, columns = (windows.depth_m[i, a] > 0).nonzero().unbind(1)
        z = windows.depth_m[i, a, rows, columns]
        rays = torch.stack([(columns + 0.5 - K[0, 2]) / K[0, 0], (rows + 0.5 - K[1, 2]) / K[1, 1], torch.ones(len(z))])
        moved = windows.world_to_cam[i, b, :3, :3] @ (rays * z) + windows.world_to_cam[i, b, :3, 3:]
        u, v = moved[0] / moved[2] * K[0, 0] + K[0, 2], moved[1] / moved[2] * K[1, 1] + K[1, 2]
        inside = (moved[2] > 0) & (u >= 0) & (u < DATA.width) & (v >= 0) & (v < DATA.height)
        seen = windows.depth_m[i, b, v[inside].long(), u[inside].long()]
        ratio = seen / moved[2][inside]
        assert float(((ratio - 1).abs() < 0.1).float().mean()) > 0.7


def test_equal_seeds_draw_equal_windows(source: WindowSource):
    first, second = (source.draw(2, torch.Generator().manual_seed(5)) for _ in range(2))
    other = source.draw(2, torch.Generator().manual_seed(6))
    assert torch.equal(first.rgb, second.rgb)
    assert torch.equal(first.depth_m, second.depth_m)
    assert not torch.equal(first.rgb, other.rgb)


def test_colours_vary_and_stay_colours(source: WindowSource):
    rgb = source.one_of_each(2).rgb
    varied = vary_colors(rgb, torch.Generator().manual_seed(0))
    assert torch.equal(varied, vary_colors(rgb, torch.Generator().manual_seed(0)))
    assert float((varied - rgb).abs().mean()) > 0.02
    assert float(varied.min()) >= 0
    assert float(varied.max()) <= 1


def test_two_tiny_scenes_are_learned(source: WindowSource, tmp_path):
    plan = config(100)
    pool = WindowPool(WindowSource(replace(DATA, pool_windows=4, fresh_windows=4), "train", "cpu"), 2, generator(1))
    windows = PackedWindows.unpacked([pool.kept[0]] * 4, range(4))
    pool._refresh = lambda _: None  # the same four windows again and again
    model = build_mini_depth(TINY_MINI_DEPTH, 0)
    before = standard_measures(model, windows, shown=4)
    result = train(model, DepthTask(plan, pool, None, 0), plan.loop, TrainingRun(out_dir=tmp_path))
    after = standard_measures(model, windows, shown=4)
    # Rows of the loss are too few to compare: each shows another number of frames of other windows.
    assert all(math.isfinite(row["depth"]) for row in result.metrics if "depth" in row)
    assert after["absrel_cameras"] < 0.6 * before["absrel_cameras"]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_pictures_teach_the_gaussians(source: WindowSource):
    plan = config(6, splat_from_step=0, single_every=100)
    pool = WindowPool(source, 1, generator(0))
    windows = source.one_of_each(2).rows(slice(0, 1))
    pool.draw = lambda _: windows
    model = build_mini_depth(TINY_MINI_DEPTH, 0)
    task = DepthTask(replace(plan, batch=1), pool, rasterize_torch, 0)
    losses = task(model, 0)
    losses["loss"].backward()
    gradients = [p.grad for name, p in model.named_parameters() if name.startswith("splats")]
    assert float(losses["picture"].detach()) > 0
    assert all(g is not None and bool(torch.isfinite(g).all()) and float(g.abs().sum()) > 0 for g in gradients)


def test_a_resumed_run_is_the_unbroken_one(tmp_path):
    plan = config(6)
    whole = train_depth(plan, TrainingRun(out_dir=tmp_path / "whole"))
    train_depth(plan, TrainingRun(out_dir=tmp_path / "half", pause_after_s=1e-9))
    again = train_depth(plan, TrainingRun(out_dir=tmp_path / "half", resume_from=tmp_path / "half" / FULL_CHECKPOINT))
    assert again.step == whole.step == 6
    for name, value in whole.ema.items():
        assert torch.equal(value, again.ema[name]), name


def test_compact_weights_start_a_new_run_and_foreign_ones_do_not(tmp_path):
    train_depth(config(1), TrainingRun(out_dir=tmp_path / "a"))
    found = train_depth(config(1, seed=9), TrainingRun(out_dir=tmp_path / "b", start_from=tmp_path / "a" / WEIGHTS))
    assert found.step == 1
    assert {p.name for p in (tmp_path / "b").iterdir()} >= {"depth_worlds.jpg", "splats.jpg", WEIGHTS, "state.json"}
    wider = config(1, model=replace(TINY_MINI_DEPTH, match=12))
    with pytest.raises(WeightsError, match="another model"):
        train_depth(wider, TrainingRun(out_dir=tmp_path / "c", start_from=tmp_path / "a" / WEIGHTS))
    with pytest.raises(WeightsError, match="none at"):
        train_depth(config(1), TrainingRun(out_dir=tmp_path / "c", start_from=tmp_path / "nowhere.safetensors"))


def test_losses_vanish_for_the_truth_and_ignore_the_scale_where_it_is_to_be_ignored(source: WindowSource):
    windows = source.one_of_each(2)
    unit = torch.full((len(windows),), 3.0)
    truth = (windows.depth_m.clamp_min(1e-3) / 3.0).log()
    model = build_mini_depth(TINY_MINI_DEPTH, 0)
    single = windows.single_images()
    windows, truth = single, truth.flatten(0, 1)[:, None]
    unit = torch.full((len(windows),), 3.0)
    found = replace(model(single.rgb, single.intrinsics), log_depth=truth)
    exact = depth_losses(found, windows.depth_m, unit, is_single=False)
    assert float(exact["depth"].detach()) == 0
    assert float(exact["gradient"].detach()) == 0
    larger = depth_losses(replace(found, log_depth=truth + 0.3), windows.depth_m, unit, is_single=True)
    assert float(larger["depth"].detach()) == pytest.approx(0.3, abs=1e-5)
    assert float(larger["shape"].detach()) < 1e-5


def test_abs_rel_of_known_maps():
    truth = torch.tensor([[2.0, 4.0, 0.0, 200.0]])
    found = torch.tensor([[2.2, 3.0, 5.0, 1.0]])
    assert abs_rel(found, truth, truth > 0) == pytest.approx((0.1 + 0.25) / 2)
    assert abs_rel(3 * truth, truth, truth > 0, align=True) == pytest.approx(0.0, abs=1e-6)


def test_wrong_plans_are_named():
    with pytest.raises(ConfigError, match="multiples of 8"):
        WindowConfig(height=30)
    with pytest.raises(ConfigError, match="shown"):
        config(1, shown=6)
    model = MiniDepth(TINY_MINI_DEPTH)
    K = torch.eye(3).expand(1, 2, 3, 3)
    with pytest.raises(FrameError, match="windows of one"):
        model(torch.rand(1, 2, 3, 16, 24), K)
    with pytest.raises(FrameError, match="multiples of 8"):
        model(torch.rand(1, 1, 3, 20, 24), K[:, :1])
    assert see_window(model, torch.rand(2, 3, 16, 24), K[0], torch.eye(4).expand(2, 4, 4), 2.0).depth_m.shape[0] == 2
