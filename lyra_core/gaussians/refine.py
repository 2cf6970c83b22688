"""A short photometric refinement of finished Gaussians against the frames; kept only if held-out frames gain.

Generated frames disagree a little with each other. Fitting them turns disagreement into blur and floaters unless the
disagreement has somewhere else to go: here each frame has its own exposure and a small pose correction, depth is held
by a prior, and frames that were never fitted decide whether the result is better at all.

    each step: one frame -> draw with corrected pose and exposure -> L1 + SSIM + depth + regularisers -> Adam

The gauge is fixed: frame 0, the seed, has no pose correction, and the mean exposure of the fitted frames is the
identity; otherwise world and corrections could drift together.

Held-out frames have faults of their own, so each is judged after its own pose and exposure are fitted to it with the
Gaussians frozen, before and after refinement alike: test-time pose optimisation as in BARF (Lin et al. 2021, section
4.2), and the affine colour fit with which appearance models are evaluated (Martin-Brualla et al. 2021, NeRF in the
Wild, section 5; least squares as in Mildenhall et al. 2022, RawNeRF). 18 numbers a frame cannot hide a wrong world.

Shape legend: t frames, n Gaussians, h w pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.config.reconstruction import RefineOptions
from lyra_core.errors import FrameError, RecipeError
from lyra_core.extras import require
from lyra_core.gaussians.rasterize import Raster
from lyra_core.geometry.rotation import rotation_vector_to_matrix
from lyra_core.image_metrics import differentiable_ssim, psnr_db
from lyra_core.values import CameraPath, Gaussians, Part, VideoClip

ENGINES = ("auto", "gsplat", "torch")
MAX_PSNR_DB = 120.0  # above what a catalog records, so that frames already drawn well are told apart
Draw = Callable[[Gaussians, Tensor, Tensor, int, int], Raster]


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningRates:
    """Adam's step sizes; centres and poses in pixels at the scene's typical distance, so that they fit every size."""

    means: float = 0.02
    quats: float = 5e-4
    log_scales: float = 2e-3
    opacity_logits: float = 2e-2
    sh_base: float = 2.5e-3
    sh_rest: float = 1e-4
    poses: float = 0.08
    exposures: float = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class RefineConfig(RefineOptions):
    """How the refinement runs: a user's options, and the weights and step sizes of the fit.

    Attributes:
        ssim_weight: of 1 - SSIM; L1 has the rest.
        depth_weight: of the inverse-depth prior, at the first and at the last step.
        opacity_weight: pulls opacities down.
        scale_weight: pulls extents down, relative to the scene's.
        exposure_weight: pulls exposures to the identity.
        pose_weight: pulls pose corrections to zero.
        max_coverage_loss: share of held-out pixels that may go undrawn.
        rates: step sizes.
        final_rate: share of them at the end, reached by equal factors.
        judge_steps: steps that fit the pose of a held-out frame before it is judged.
        judge_rate: their first step size, as LearningRates.poses.
        seed: of the order of frames.
    """

    ssim_weight: float = 0.2
    depth_weight: tuple[float, float] = (0.05, 0.005)
    opacity_weight: float = 0.001
    scale_weight: float = 0.01
    exposure_weight: float = 0.1
    pose_weight: float = 0.1
    max_coverage_loss: float = 0.001
    rates: LearningRates = LearningRates()
    final_rate: float = 0.1
    judge_steps: int = 40
    judge_rate: float = 0.25
    seed: int = 0


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
        world_to_cam: corrected cameras; those of held-out frames are fitted to the frozen Gaussians. [t 4 4]
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
    draw, device = choose_engine(engine, gaussians.means.device)
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
        problem.fix_gauge(fitted)
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
        self._part = gaussians.part
        surface = gaussians.of_parts(Part.KEYFRAME)
        self._extent = _extent_m(surface.means if len(surface) else gaussians.means, clip.cameras)
        # one pixel: as an angle, and as a length at the typical distance in units of that distance
        self._pixel = 1.0 / float(clip.cameras.intrinsics[:, 0, 0].mean())

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
            (self._means, rates.means * self._pixel * self._extent),
            (self._quats, rates.quats),
            (self._log_scales, rates.log_scales),
            (self._logits, rates.opacity_logits),
            (self._sh_base, rates.sh_base),
            (self._sh_rest, rates.sh_rest),
            (self._poses, rates.poses * self._pixel),
            (self._exposures, rates.exposures),
        ]
        self._rates = [lr for _, lr in groups]
        self._adam = torch.optim.Adam([{"params": [p], "lr": lr} for p, lr in groups], eps=1e-15)

    def gaussians(self) -> Gaussians:
        """As they are now, without gradients."""
        return Gaussians(
            means=self._means.detach(),
            quats=torch.nn.functional.normalize(self._quats.detach(), dim=1),
            scales=self._log_scales.detach().exp(),
            opacities=self._logits.detach().sigmoid(),
            sh=torch.cat([self._sh_base, self._sh_rest], 1).detach(),
            part=self._part,
        )

    def camera(self, frame: int, pose: Tensor | None = None) -> Tensor:
        """world_to_cam with its correction, a small turn and a shift in units of the scene; frame 0 has none."""
        if frame == 0:
            return self._w2c[0]
        pose = self._poses[frame] if pose is None else pose
        turn, shift = pose[:3], pose[3:] * self._extent
        moved = torch.cat([rotation_vector_to_matrix(turn), shift[:, None]], 1)
        return torch.cat([moved, moved.new_tensor([[0.0, 0.0, 0.0, 1.0]])]) @ self._w2c[frame]

    def step(self, draw: Draw, frame: int, progress: float) -> float:
        """One step of Adam on one frame; the loss before it."""
        config = self._config
        for group, rate in zip(self._adam.param_groups, self._rates, strict=True):
            group["lr"] = rate * _between((1.0, config.final_rate), progress)
        raster, target = self._drawn(draw, frame, self._current(), self.camera(frame))
        exposure = self._exposures[frame]
        picture = _exposed(raster.color, exposure)
        loss = (1.0 - config.ssim_weight) * (picture - target).abs().mean()
        loss = loss + config.ssim_weight * (1.0 - differentiable_ssim(picture, target))
        loss = loss + _between(config.depth_weight, progress) * self._depth_loss(raster, frame)
        # Adam makes a full step of any gradient, however small: what this frame does not see must not be pulled.
        seen = self._seen(frame)
        share = seen / seen.sum().clamp_min(1.0)
        loss = loss + config.opacity_weight * (share * self._logits.sigmoid()).sum()
        loss = loss + config.scale_weight * (share * self._log_scales.exp().mean(1)).sum() / self._extent
        identity = torch.eye(3, 4, device=self._device)
        loss = loss + config.exposure_weight * (self._exposures[frame] - identity).square().sum()
        loss = loss + config.pose_weight * self._poses[frame].square().sum()
        self._adam.zero_grad(set_to_none=False)
        loss.backward()
        self._adam.step()
        return float(loss.detach())

    @torch.no_grad()
    def fix_gauge(self, fitted: list[int]) -> None:
        """Mean exposure of the fitted frames back to the identity."""
        drift = self._exposures[fitted].mean(0) - torch.eye(3, 4, device=self._device)
        self._exposures[fitted] -= drift

    def _current(self) -> Gaussians:
        return Gaussians(
            means=self._means,
            quats=self._quats,
            scales=self._log_scales.exp(),
            opacities=self._logits.sigmoid(),
            sh=torch.cat([self._sh_base, self._sh_rest], 1),
        )

    @torch.no_grad()
    def _seen(self, frame: int) -> Tensor:
        """1 for Gaussians whose centres this frame shows, else 0. [n]"""
        height, width = self._clip.frames.shape[1:3]
        K = self._clip.cameras.intrinsics[frame].to(self._device, torch.float32)
        camera = self.camera(frame)
        local = self._means @ camera[:3, :3].mT + camera[:3, 3]
        x = local[:, 0] / local[:, 2] * K[0, 0] + K[0, 2]
        y = local[:, 1] / local[:, 2] * K[1, 1] + K[1, 2]
        return ((local[:, 2] > 0) & (x >= 0) & (x <= width) & (y >= 0) & (y <= height)).float()

    def _drawn(self, draw: Draw, frame: int, gaussians: Gaussians, camera: Tensor) -> tuple[Raster, Tensor]:
        """The raster of a frame and what it should be."""
        height, width = self._clip.frames.shape[1:3]
        intrinsics = self._clip.cameras.intrinsics[frame].to(self._device, torch.float32)
        raster = draw(gaussians, camera, intrinsics, int(height), int(width))
        return raster, self._clip.frames[frame].to(self._device).float() / 255.0

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
        """Held-out frames start from what their fitted neighbours have, by linear interpolation."""
        for unknown in (self._poses, self._exposures):
            for frame in held:
                below = max((i for i in fitted if i < frame), default=None)
                above = min((i for i in fitted if i > frame), default=None)
                if below is None or above is None:
                    unknown[frame] = unknown[below if above is None else above]
                    continue
                unknown[frame] = torch.lerp(unknown[below], unknown[above], (frame - below) / (above - below))

    def judge(self, draw: Draw, frames: list[int]) -> tuple[float, float]:
        """PSNR in dB and the share of pixels drawn, both means over frames, each with its pose and exposure fitted."""
        frozen = self.gaussians()
        quality = cover = 0.0
        for frame in frames:
            self._fit_pose(draw, frame, frozen)
            with torch.no_grad():
                raster, target = self._drawn(draw, frame, frozen, self.camera(frame))
                self._exposures[frame] = _fitted_exposure(raster, target)
                picture = _exposed(raster.color, self._exposures[frame])
            quality += psnr_db(picture.clamp(0.0, 1.0), target, max_db=MAX_PSNR_DB)
            cover += float((raster.alpha > 0.5).float().mean())
        return quality / len(frames), cover / len(frames)

    def _fit_pose(self, draw: Draw, frame: int, frozen: Gaussians) -> None:
        if frame == 0:
            return
        pose = self._poses[frame].detach().clone().requires_grad_(True)
        first, steps = self._config.judge_rate * self._pixel, self._config.judge_steps
        adam = torch.optim.Adam([pose], lr=first, betas=(0.8, 0.95))
        for step in range(steps):
            adam.param_groups[0]["lr"] = first * _between((1.0, 0.05), step / steps)
            raster, target = self._drawn(draw, frame, frozen, self.camera(frame, pose))
            exposure = _fitted_exposure(raster, target)
            loss = (_exposed(raster.color, exposure) - target).abs().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
        with torch.no_grad():
            self._poses[frame] = pose


def _exposed(color: Tensor, exposure: Tensor) -> Tensor:
    return color @ exposure[:, :3].mT + exposure[:, 3]


@torch.no_grad()
def _fitted_exposure(raster: Raster, target: Tensor) -> Tensor:
    """The affine map of colours that brings a picture nearest to a frame, by least squares. [3 4]"""
    covered = raster.alpha.flatten() > 0.5
    color = raster.color.reshape(-1, 3)[covered].double()
    known = torch.cat([color, torch.ones_like(color[:, :1])], 1)
    # A ridge of a thousandth of the pixels keeps channels that a grey picture cannot tell apart near the identity.
    ridge = (1.0 + 1e-3 * len(known)) * torch.eye(4, dtype=torch.float64, device=known.device)
    start = torch.eye(3, 4, dtype=torch.float64, device=known.device)
    colors = target.reshape(-1, 3)[covered].double()
    return torch.linalg.solve(known.mT @ known + ridge, known.mT @ colors + ridge @ start.mT).mT.float()


def _extent_m(means: Tensor, cameras: CameraPath) -> float:
    """Typical distance of the Gaussians from the first camera; a far shell does not move a median."""
    first = cameras.centers_m[0].to(means)
    return max(float((means.detach() - first).norm(dim=1).median()), 1e-6)


def _between(ends: tuple[float, float], progress: float) -> float:
    """From one weight to the other, by equal factors."""
    return ends[0] * (ends[1] / ends[0]) ** progress if min(ends) > 0 else ends[0] + progress * (ends[1] - ends[0])


def choose_engine(name: str, device: torch.device) -> tuple[Draw, torch.device]:
    """A rasteriser that gradients flow through, and the device it works on.

    Raises:
        RecipeError: unknown engine, or one that this device has not got.
        MissingExtraError: gsplat is not installed.
    """
    if name not in ENGINES:
        raise RecipeError(f"unknown refinement engine {name!r}; choose one of {', '.join(ENGINES)}")
    if name == "auto":
        name = "gsplat" if device.type == "cuda" else "torch"
    if name == "torch":
        from lyra_core.gaussians.rasterize_torch import rasterize_torch

        return rasterize_torch, torch.device("cpu")
    require("gsplat", "refining on a GPU")
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
