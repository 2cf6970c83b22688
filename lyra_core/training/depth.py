"""Trains the small depth and Gaussian network on procedural worlds, from nothing, in minutes on one GPU.

    result = train_depth(DepthTrainingConfig(...), TrainingRun(out_dir=Path("run"), device="cuda"))

Steps take turns: windows of frames with known cameras, and single images. Once `splat_from_step` is reached the
windows' Gaussians are also rendered from views that the network was not shown.

Left behind: `weights.safetensors` (averaged, bf16), `metrics.jsonl`, `curve.png`, `depth_worlds.png`,
`depth_photos.png` and `splats.png` (see depth_measure).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.errors import ConfigError
from lyra_core.evaluation.depth_measure import save_pictures, standard_measures
from lyra_core.gaussians.refine import Draw
from lyra_core.mini.depth import MINI_DEPTH, SINGLE_UNIT_M, MiniDepth, MiniDepthConfig
from lyra_core.mini.depth_estimator import MIN_SOLID_PIXELS
from lyra_core.procedural.depth_windows import WindowConfig, WindowPool, Windows, WindowSource, sent, vary_colors
from lyra_core.training.checkpoint import save_shipped
from lyra_core.training.cuda_graph import CudaGraphStep
from lyra_core.training.depth_confidence import fit_confidence
from lyra_core.training.depth_losses import depth_losses, picture_loss
from lyra_core.training.loop import step_generator, train
from lyra_core.training.loop_config import LoopConfig, LoopResult
from lyra_core.training.placement import placed
from lyra_core.training.run import TrainingRun
from lyra_core.weights.ema_weights import load_weights

FIRST_AND_LAST_S, MEASURE_S = 50.0, 8.0  # on one GPU: what no clock of the loop counts


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthTrainingConfig:
    """One training run of the small depth and Gaussian network.

    Attributes:
        loop: length and speed.
        data: what it learns from.
        model: widths.
        seed: of weights and data.
        batch: windows a step.
        shown: frames of a window that the network sees; the rest is what its Gaussians are drawn against.
        single_every: every so many-th step takes single images, as many as there are shown frames otherwise.
        window_every: only every so many-th step takes windows, all others single images, which cost a fraction of
            them; None leaves it to single_every.
        unit_noise: standard deviation of the logarithm of the guessed unit.
        splat_windows: windows of a batch whose Gaussians are drawn.
        splat_every: every so many-th step draws.
        is_recorded: replay steps as CUDA graphs, where there is a GPU.
        splat_from_step: first step that draws; None for never. Depth has to be roughly right before pictures help.
        splat_weight: of the pictures.
        within_s: seconds in which all is done, start-up, measuring and pictures included: training is shortened to
            fit; None for as long as `loop` says.
    """

    loop: LoopConfig
    data: WindowConfig = field(default_factory=WindowConfig)
    model: MiniDepthConfig = field(default_factory=lambda: MINI_DEPTH)
    seed: int = 0
    batch: int = 32
    shown: int = 4
    single_every: int = 3
    window_every: int | None = None
    unit_noise: float = 0.6
    splat_windows: int = 4
    splat_every: int = 6
    is_recorded: bool = True
    splat_from_step: int | None = 1200
    splat_weight: float = 1.0
    within_s: float | int | None = None

    def __post_init__(self) -> None:
        if not 2 <= self.shown < self.data.num_frames or self.splat_windows > self.batch or self.single_every < 2:
            raise ConfigError(
                "training needs two to num_frames - 1 shown frames, no more drawn windows than the batch has and "
                f"single_every of at least 2, found {self.shown}, {self.splat_windows} of {self.batch} and "
                f"{self.single_every}"
            )
        if self.window_every is not None and self.window_every < 2:
            raise ConfigError(f"windows come every second step at most where they are counted, {self.window_every}")

    def is_single(self, step: int) -> bool:
        """Whether a step learns from single images."""
        if self.window_every is not None:
            return step % self.window_every != 0
        return step % self.single_every == self.single_every - 1


def build_mini_depth(config: MiniDepthConfig, seed: int) -> MiniDepth:
    """A network with fresh weights, a function of the seed alone."""
    with torch.random.fork_rng(devices=[]):
        # layers draw their first weights from the global generator, which is put back afterwards
        torch.random.default_generator.manual_seed(seed)
        return MiniDepth(config)


def guessed_units(shown: Windows, noise: float, generator: torch.Generator) -> Tensor:
    """The unit of each window as inference would guess it from the first view, with an error. [b] metres"""
    first = shown.depth_m[:, 0].flatten(1)
    exact = torch.where(first > 0, first, torch.nan).nanmedian(1).values
    enough = (first > 0).sum(1) >= MIN_SOLID_PIXELS
    error = sent(torch.exp(noise * torch.randn(len(exact), generator=generator)), exact.device)
    return torch.where(enough, exact, SINGLE_UNIT_M) * error


def in_units(world_to_cam: Tensor, unit_m: Tensor) -> Tensor:
    """Cameras whose lengths are divided by each window's unit."""
    scale = torch.ones(len(unit_m), 1, 1, 4, device=unit_m.device)
    scale[..., 3] = 1.0 / unit_m[:, None, None]
    rows = world_to_cam[..., :3, :] * scale
    return torch.cat([rows, world_to_cam[..., 3:, :]], dim=-2)


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthBatch:
    """What a step needs, everything random drawn.

    Attributes:
        images: sRGB, colours varied. [b v 3 h w]
        depth_m: exact, 0 where sky. [b v h w]
        intrinsics: pixels, centres at +0.5. [b v 3 3]
        poses: world to camera in units; of no effect for single images. [b v 4 4]
        unit_m: of each window. [b]
    """

    images: Float[Tensor, "b v 3 h w"]
    depth_m: Float[Tensor, "b v h w"]
    intrinsics: Float[Tensor, "b v 3 3"]
    poses: Float[Tensor, "b v 4 4"]
    unit_m: Float[Tensor, " b"]


def batch_losses(model: MiniDepth, is_single: bool, batch: DepthBatch) -> dict[str, Tensor]:
    """Losses of depth, confidence and sky by name."""
    kind = batch.images.device.type
    # Cached casts of weights would be recorded as they are now.
    with torch.autocast(kind, torch.bfloat16, enabled=torch.is_autocast_enabled(kind), cache_enabled=False):
        prediction = model(batch.images, batch.intrinsics, None if is_single else batch.poses)
    losses = depth_losses(prediction, batch.depth_m, batch.unit_m, is_single=is_single)
    return {name if name == "loss" or not is_single else f"single_{name}": value for name, value in losses.items()}


class DepthTask:
    """The losses of a step; on a GPU recorded, with gradients (see lyra_core.training.cuda_graph)."""

    def __init__(self, config: DepthTrainingConfig, pool: WindowPool, draw: Draw | None, seed: int) -> None:
        self.config, self.pool, self.draw, self.seed = config, pool, draw, seed
        self.recorded: dict[bool, CudaGraphStep[DepthBatch]] = {}

    def __call__(self, model: MiniDepth, step: int) -> dict[str, Tensor]:
        """Losses of a step by name; data are a function of seed and step."""
        config, generator = self.config, step_generator(self.seed, step)
        is_single = config.is_single(step)
        with _exactly(self.pool.source.device):
            windows = self.pool.draw(generator)
            order = torch.randperm(config.data.num_frames, generator=generator).tolist()
            shown, hidden = (windows.frames(sorted(part)) for part in (order[: config.shown], order[config.shown :]))
            batch = self._batch(shown.single_images() if is_single else shown, generator, is_single=is_single)
        if config.is_recorded and batch.images.is_cuda:
            if is_single not in self.recorded:
                compute = partial(batch_losses, model, is_single)
                self.recorded[is_single] = CudaGraphStep(compute, list(model.parameters()), batch)
            losses = dict(self.recorded[is_single](batch))
        else:
            losses = batch_losses(model, is_single, batch)
        is_late = config.splat_from_step is not None and step >= config.splat_from_step
        if self.draw is None or is_single or not is_late or step % config.splat_every:
            return losses
        rendered = slice(0, config.splat_windows)
        losses["picture"] = self._picture(
            model, shown.rows(rendered), hidden.rows(rendered), batch.unit_m[rendered], self.draw
        )
        if losses["loss"].requires_grad:
            losses["loss"] = losses["loss"] + config.splat_weight * losses["picture"]
        else:
            (config.splat_weight * losses["picture"]).backward()  # type: ignore[no-untyped-call]
        return losses

    def _batch(self, shown: Windows, generator: torch.Generator, *, is_single: bool) -> DepthBatch:
        unit = torch.full((len(shown),), SINGLE_UNIT_M, device=shown.rgb.device)
        if not is_single:
            unit = guessed_units(shown, self.config.unit_noise, generator)
        return DepthBatch(
            images=vary_colors(shown.rgb, generator),
            depth_m=shown.depth_m,
            intrinsics=shown.intrinsics,
            poses=in_units(shown.world_to_cam, unit),
            unit_m=unit,
        )

    @staticmethod
    def _picture(model: MiniDepth, shown: Windows, hidden: Windows, unit: Tensor, draw: Draw) -> Tensor:
        """Loss of the Gaussians of a few windows, seen in the colours they are compared in."""
        prediction = model(shown.rgb, shown.intrinsics, in_units(shown.world_to_cam, unit), with_gaussians=True)
        with _exactly(shown.rgb.device):
            return picture_loss(prediction, shown, hidden, unit, draw)


def _exactly(device: torch.device) -> torch.autocast:
    """No autocast: products of poses and colours would be rounded to eight bits."""
    return torch.autocast(device.type, enabled=False)


def differentiable_draw(device: torch.device) -> Draw:
    """The rasteriser that gradients flow through: gsplat on CUDA, the plain one elsewhere.

    Raises:
        MissingExtraError: gsplat is not installed.
    """
    from lyra_core.gaussians.refine import choose_engine

    return choose_engine("auto", device)[0]


def train_depth(config: DepthTrainingConfig, run: TrainingRun) -> LoopResult:
    """Train the network.

    Args:
        config: hyper-parameters.
        run: folder, devices, weights to begin with.

    Returns:
        The averaged weights and all metrics.

    Raises:
        ConfigError: `within_s` leaves no time for training after the start-up.
        MissingExtraError: Gaussians are to be drawn on CUDA without gsplat.
        TrainingError: the training diverged.
        WeightsError: weights or a checkpoint that cannot be used.
    """
    begin, device = time.perf_counter(), torch.device(run.device)
    model = build_mini_depth(config.model, config.seed)
    if run.start_from is not None:
        load_weights(model, run.start_from, "depth")
    model = placed(model, device)
    source = WindowSource(config.data, "train", device, run.workers)
    held_out = WindowSource(config.data, "heldout", device, run.workers).one_of_each(config.data.num_held_out)
    seed = run.replicas.seed(config.seed)
    pool = WindowPool(source, config.batch, step_generator(seed + 1, 0))
    draw = None if config.splat_from_step is None else differentiable_draw(device)
    size = sum(p.numel() for p in model.parameters())
    run.say(f"{source.library.sizes.sum():.0f} scenes to learn from, {len(held_out)} held out, {size} parameters")

    def evaluate(module: MiniDepth) -> dict[str, float | int]:
        return standard_measures(module, held_out, shown=config.shown)

    loop = config.loop
    if config.within_s is not None:
        loop = shortened(loop, config.within_s - (time.perf_counter() - begin))
    result = train(model, DepthTask(config, pool, draw, seed), loop, run, evaluate)
    if run.replicas.is_first:
        model.load_state_dict(result.ema)
        model.eval()
        fit_confidence(model, pool.draw(step_generator(seed + 2, 0)))
        save_shipped(model, result, evaluate, run.out_dir)
        save_pictures(model, held_out, config.data.photographs, run.out_dir, shown=config.shown)
    return result


def shortened(loop: LoopConfig, left_s: float) -> LoopConfig:
    """A run that fits into the time left, with room for the first step, for measuring and for the end.

    Raises:
        ConfigError: too little time is left.
    """
    share = MEASURE_S / (MEASURE_S + loop.evaluate_every_s) if loop.evaluate_every_s else 0.0
    room = (left_s - FIRST_AND_LAST_S) * (1.0 - share)
    if room <= 0:
        raise ConfigError(
            f"{left_s:.0f} s are left after start-up, and {FIRST_AND_LAST_S:.0f} s go for the first step and the end; "
            "allow more"
        )
    return replace(loop, max_seconds=min(room, loop.max_seconds or room))
