"""A short photometric refinement of finished Gaussians against the frames; kept only if held-out frames gain.

Generated frames disagree a little with each other. Fitting them turns disagreement into blur and floaters unless the
disagreement has somewhere else to go: here each frame has its own exposure and a small pose correction, depth is held
by a prior, and frames that were never fitted decide whether the result is better at all.

    each step: one frame -> draw with corrected pose and exposure -> L1 + SSIM + depth + regularisers -> Adam

Shape legend: t frames, n Gaussians, h w pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.errors import FrameError, MissingExtraError, RecipeError
from lyra_core.gaussians.photometric import psnr_db, ssim
from lyra_core.gaussians.rasterize import Raster
from lyra_core.values import CameraPath, Gaussians, VideoClip

ENGINES = ("auto", "gsplat", "torch")
Draw = Callable[[Gaussians, Tensor, Tensor, int, int], Raster]


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningRates:
    """Adam's step sizes; centres in units of the scene's extent."""

    means: float = 1.6e-5
    quats: float = 5e-4
    log_scales: float = 2e-3
    opacity_logits: float = 2e-2
    sh_base: float = 1e-3
    sh_rest: float = 5e-5
    poses: float = 1e-4
    exposures: float = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class RefineConfig:
    """How the refinement runs.

    Attributes:
        steps: one frame each; 300 to 1000.
        hold_out_every: every so many-th frame is never fitted.
        ssim_weight: of 1 - SSIM; L1 has the rest.
        depth_weight: of the inverse-depth prior, at the first and at the last step.
        opacity_weight: pulls opacities down.
        scale_weight: pulls extents down, relative to the scene's.
        exposure_weight: pulls exposures to the identity.
        pose_weight: pulls pose corrections to zero.
        min_gain_db: held-out gain below which the input is returned.
        max_coverage_loss: share of held-out pixels that may go undrawn.
        rates: step sizes.
        seed: of the order of frames.
    """

    steps: int = 500
    hold_out_every: int = 8
    ssim_weight: float = 0.2
    depth_weight: tuple[float, float] = (0.05, 0.005)
    opacity_weight: float = 0.01
    scale_weight: float = 0.01
    exposure_weight: float = 0.1
    pose_weight: float = 0.1
    min_gain_db: float = 0.2
    max_coverage_loss: float = 0.001
    rates: LearningRates = LearningRates()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.hold_out_every < 2:
            raise RecipeError(
                f"refinement needs steps >= 1 and hold_out_every >= 2, found {self.steps} and {self.hold_out_every}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """What came of it.

    Attributes:
        gaussians: refined, or the input where the gate closed.
        is_kept: whether they are the refined ones.
        psnr_before_db: on held-out frames.
        psnr_after_db: on held-out frames, of the refined Gaussians even if they were not kept.
        coverage_before: share of held-out pixels drawn, 0 to 1.
        coverage_after: likewise.
        world_to_cam: corrected cameras, held-out ones between their neighbours. [t 4 4]
        seconds: wall time.
    """

    gaussians: Gaussians
    is_kept: bool
    psnr_before_db: float
    psnr_after_db: float
    coverage_before: float
    coverage_after: float
    world_to_cam: Float[Tensor, "t 4 4"]
    seconds: float


def refine(
    gaussians: Gaussians,
    clip: VideoClip,
    config: RefineConfig = RefineConfig(),
    *,
    engine: str = "auto",
    on_step: Callable[[int, float], None] | None = None,
) -> Refinement:
    """Fit Gaussians to the frames of a clip.

    Equal seeds give equal results with the torch engine; gsplat adds gradients in no fixed order, so there they agree
    only to rounding.

    Args:
        gaussians: world frame.
        clip: frames and cameras; its depth, where it has any, is the prior.
        config: how.
        engine: "gsplat" (CUDA), "torch" (CPU, a few hundred Gaussians), or "auto" by where the Gaussians lie.
        on_step: called with (step, loss).

    Raises:
        FrameError: too few frames to hold one out.
        RecipeError: unknown engine, or one that this device has not got.
        MissingExtraError: gsplat is not installed.
    """
    if len(clip) < config.hold_out_every:
        raise FrameError(
            f"refinement holds out every {config.hold_out_every}th frame and needs as many, found {len(clip)}"
        )
    started = time.perf_counter()
    draw, device = _engine(engine, gaussians.means.device)
    problem = _Problem(gaussians.to(device), clip, device, config)
    held = torch.arange(config.hold_out_every - 1, len(clip), config.hold_out_every)
    fitted = [i for i in range(len(clip)) if i not in set(held.tolist())]
    before = problem.judge(draw, held.tolist())
    order = torch.Generator().manual_seed(config.seed)
    queue: list[int] = []
    for step in range(config.steps):
        if not queue:
            queue = [fitted[i] for i in torch.randperm(len(fitted), generator=order).tolist()]
        loss = problem.step(draw, queue.pop(), step / config.steps)
        if on_step is not None:
            on_step(step, loss)
    problem.fill_in(held.tolist(), fitted)
    after = problem.judge(draw, held.tolist())
    is_kept = after[0] - before[0] >= config.min_gain_db and before[1] - after[1] <= config.max_coverage_loss
    return Refinement(
        gaussians=problem.gaussians().to(gaussians.means.device) if is_kept else gaussians,
        is_kept=is_kept,
        psnr_before_db=before[0],
        psnr_after_db=after[0],
        coverage_before=before[1],
        coverage_after=after[1],
        world_to_cam=torch.stack([problem.camera(i) for i in range(len(clip))]).detach().cpu().double(),
        seconds=time.perf_counter() - started,
    )


class _Problem:
    """The unknowns, and one step towards fitting a frame."""

    def __init__(self, gaussians: Gaussians, clip: VideoClip, device: torch.device, config: RefineConfig) -> None:
        self._clip, self._device, self._config = clip, device, config
        self._w2c = clip.cameras.world_to_cam.to(device, torch.float32)
        self._extent = _extent_m(gaussians.means, clip.cameras)

        def unknown(start: Tensor) -> Tensor:
            return start.detach().to(device, torch.float32).clone().requires_grad_(True)

        self._means = unknown(gaussians.means)
        self._quats = unknown(gaussians.quats)
        self._log_scales = unknown(gaussians.scales.clamp_min(1e-12).log())
        self._logits = unknown(torch.logit(gaussians.opacities.clamp(1e-4, 1.0 - 1e-4)))
        self._sh_base, self._sh_rest = unknown(gaussians.sh[:, :1]), unknown(gaussians.sh[:, 1:])
        self._poses = unknown(torch.zeros(len(clip), 6))
        self._exposures = unknown(torch.eye(3, 4).repeat(len(clip), 1, 1))
        rates = config.rates
        groups = [
            (self._means, rates.means * self._extent),
            (self._quats, rates.quats),
            (self._log_scales, rates.log_scales),
            (self._logits, rates.opacity_logits),
            (self._sh_base, rates.sh_base),
            (self._sh_rest, rates.sh_rest),
            (self._poses, rates.poses),
            (self._exposures, rates.exposures),
        ]
        self._adam = torch.optim.Adam([{"params": [p], "lr": lr} for p, lr in groups], eps=1e-15)

    def gaussians(self) -> Gaussians:
        """As they are now, without gradients."""
        return Gaussians(
            means=self._means.detach(),
            quats=torch.nn.functional.normalize(self._quats.detach(), dim=1),
            scales=self._log_scales.detach().exp(),
            opacities=self._logits.detach().sigmoid(),
            sh=torch.cat([self._sh_base, self._sh_rest], 1).detach(),
        )

    def camera(self, frame: int) -> Tensor:
        """world_to_cam with its correction, a small turn and a shift in units of the scene; frame 0 has none."""
        if frame == 0:
            return self._w2c[0]
        turn, shift = self._poses[frame, :3], self._poses[frame, 3:] * self._extent
        zero = torch.zeros_like(turn[0])
        skew = torch.stack([zero, -turn[2], turn[1], turn[2], zero, -turn[0], -turn[1], turn[0], zero]).view(3, 3)
        moved = torch.cat([torch.linalg.matrix_exp(skew), shift[:, None]], 1)
        return torch.cat([moved, moved.new_tensor([[0.0, 0.0, 0.0, 1.0]])]) @ self._w2c[frame]

    def step(self, draw: Draw, frame: int, progress: float) -> float:
        """One step of Adam on one frame; the loss before it."""
        config = self._config
        raster, picture, target = self._drawn(draw, frame)
        loss = (1.0 - config.ssim_weight) * (picture - target).abs().mean()
        loss = loss + config.ssim_weight * (1.0 - ssim(picture, target))
        loss = loss + _between(config.depth_weight, progress) * self._depth_loss(raster, frame)
        loss = loss + config.opacity_weight * self._logits.sigmoid().mean()
        loss = loss + config.scale_weight * self._log_scales.exp().mean() / self._extent
        identity = torch.eye(3, 4, device=self._device)
        loss = loss + config.exposure_weight * (self._exposures[frame] - identity).square().sum()
        loss = loss + config.pose_weight * self._poses[frame].square().sum()
        self._adam.zero_grad(set_to_none=False)
        loss.backward()
        self._adam.step()
        return float(loss.detach())

    def _drawn(self, draw: Draw, frame: int) -> tuple[Raster, Tensor, Tensor]:
        height, width = self._clip.frames.shape[1:3]
        current = Gaussians(
            means=self._means,
            quats=self._quats,
            scales=self._log_scales.exp(),
            opacities=self._logits.sigmoid(),
            sh=torch.cat([self._sh_base, self._sh_rest], 1),
        )
        intrinsics = self._clip.cameras.intrinsics[frame].to(self._device, torch.float32)
        raster = draw(current, self.camera(frame), intrinsics, int(height), int(width))
        exposure = self._exposures[frame]
        picture = raster.color @ exposure[:, :3].mT + exposure[:, 3]
        target = self._clip.frames[frame].to(self._device).float() / 255.0
        return raster, picture, target

    def _depth_loss(self, raster: Raster, frame: int) -> Tensor:
        """L1 between inverse depths in units of the scene's extent, where the clip knows its depth."""
        if self._clip.depth_m is None:
            return raster.depth_m.new_zeros(())
        known = self._clip.depth_m[frame].to(self._device)
        solid = (known > 0) & (raster.alpha.detach() > 0.5)
        if self._clip.sky is not None:
            solid &= ~self._clip.sky[frame].to(self._device)
        weight = solid.float()
        if self._clip.depth_confidence is not None:
            weight = weight * self._clip.depth_confidence[frame].to(self._device)
        drawn = self._extent / raster.depth_m.clamp_min(1e-3 * self._extent)
        wanted = self._extent / known.clamp_min(1e-3 * self._extent)
        return (weight * (drawn - wanted).abs()).sum() / weight.sum().clamp_min(1.0)

    @torch.no_grad()
    def fill_in(self, held: list[int], fitted: list[int]) -> None:
        """Held-out frames get what their fitted neighbours have, by linear interpolation: nothing is fitted to them."""
        for unknown in (self._poses, self._exposures):
            for frame in held:
                below = max((i for i in fitted if i < frame), default=None)
                above = min((i for i in fitted if i > frame), default=None)
                if below is None or above is None:
                    unknown[frame] = unknown[below if above is None else above]
                    continue
                unknown[frame] = torch.lerp(unknown[below], unknown[above], (frame - below) / (above - below))

    @torch.no_grad()
    def judge(self, draw: Draw, frames: list[int]) -> tuple[float, float]:
        """PSNR in dB and the share of pixels drawn, both means over frames."""
        quality = cover = 0.0
        for frame in frames:
            raster, picture, target = self._drawn(draw, frame)
            quality += psnr_db(picture.clamp(0.0, 1.0), target)
            cover += float((raster.alpha > 0.5).float().mean())
        return quality / len(frames), cover / len(frames)


def _extent_m(means: Tensor, cameras: CameraPath) -> float:
    """Typical distance of the Gaussians from the first camera; a far shell does not move a median."""
    first = cameras.centers_m[0].to(means)
    return max(float((means.detach() - first).norm(dim=1).median()), 1e-6)


def _between(ends: tuple[float, float], progress: float) -> float:
    """From one weight to the other, by equal factors."""
    return ends[0] * (ends[1] / ends[0]) ** progress if min(ends) > 0 else ends[0] + progress * (ends[1] - ends[0])


def _engine(name: str, device: torch.device) -> tuple[Draw, torch.device]:
    if name not in ENGINES:
        raise RecipeError(f"unknown refinement engine {name!r}; choose one of {', '.join(ENGINES)}")
    if name == "auto":
        name = "gsplat" if device.type == "cuda" else "torch"
    if name == "torch":
        from lyra_core.gaussians.rasterize_torch import rasterize_torch

        return rasterize_torch, torch.device("cpu")
    import importlib.util

    if importlib.util.find_spec("gsplat") is None:
        raise MissingExtraError("gsplat", "gpu", "refining on a GPU")
    if not torch.cuda.is_available():
        raise RecipeError('engine "gsplat" needs a CUDA device and none is visible; use engine="torch"')
    return _draw_gsplat, device if device.type == "cuda" else torch.device("cuda")


def _draw_gsplat(gaussians: Gaussians, world_to_cam: Tensor, intrinsics: Tensor, height: int, width: int) -> Raster:
    from gsplat import rasterization

    drawn, alpha, _ = rasterization(
        gaussians.means,
        gaussians.quats,
        gaussians.scales,
        gaussians.opacities,
        gaussians.sh,
        world_to_cam[None],
        intrinsics[None],
        width,
        height,
        sh_degree=gaussians.sh_degree,
        render_mode="RGB+ED",
        packed=False,  # gradients of cameras need the dense form
    )
    return Raster(color=drawn[0, ..., :3], depth_m=drawn[0, ..., 3], alpha=alpha[0, ..., 0])
