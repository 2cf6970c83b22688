"""A depth and Gaussian network small enough to travel with the package, in the shape of Depth Anything 3.

    images [b v 3 h w] --stem--> 1/2, 1/4 --------------.
                          |        | plane sweep of known cameras (plane_sweep.py)
                          v        v                     |
             tokens at 1/8: blocks within views and across all views, alternating (backbone.py)
                          |
                          v
             fused from coarse to fine --> depth (planes + residual), confidence, sky; one Gaussian a pixel

Kept of Depth Anything 3 (arXiv 2511.10647): one transformer for one view or many, attention that alternates between a
view and all views, known cameras as an input, depth with confidence and a Gaussian head on one pyramid. Different: a
convolutional stem, a plane sweep where cameras are known, and depth read as an expectation over planes (Bhat et al.
2021, AdaBins), because five million parameters have to learn this in minutes.

Depth is relative to a unit the caller gives: a rough guess of the scene's typical depth for windows with cameras, four
metres for single images, whose scale the network has to guess itself.

Shape legend: b scenes, v views, h w pixels, r s cells of 8 x 8 pixels, d planes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lyra_core.errors import FrameError, RecipeError
from lyra_core.gaussians.depth_anything.backbone import FeedForward, ViTBlock, rope_table
from lyra_core.gaussians.depth_anything.heads import ResidualUnit
from lyra_core.gaussians.depth_anything.plane_sweep import PlaneSweep, log_planes
from lyra_core.geometry.rotation import invert_rigid

CELL = 8
SINGLE_UNIT_M = 4.0
CAMERA_NUMBERS = 15  # relative rotation (9) and centre (3), fields of view (2), whether cameras are known
RAY_NUMBERS = 2
GAUSSIAN_CHANNELS = 12  # log scales (3), quaternion (4), opacity logit, colour (3), log-depth offset
DENSE_CHANNELS = 3  # log-depth residual, confidence logit, sky logit
MAX_LOG_CONFIDENCE = 5.0
NEVER = 3e-3  # least share of a neighbouring cell: gradients have to reach it


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniDepthConfig:
    """Widths.

    Attributes:
        dim: channels of a token.
        depth: blocks; every second attends across views.
        num_heads: attention heads.
        stem: channels at full, 1/2 and 1/4 resolution.
        decoder: channels at 1/8, 1/4, 1/2 and full resolution.
        match: channels compared by the plane sweep.
        num_planes: of the sweep and of the expectation.
        span: nearest and farthest plane in units.
        num_sources: views each view is compared with.
        refine_steps: log-depth between the planes of each further sweep around the depth found so far.
        refine_planes: of a further sweep, odd.
        refine_dim: channels of it.
        is_sharp: full-resolution depth picks among neighbouring cells in place of blending them.
    """

    dim: int = 192
    depth: int = 8
    num_heads: int = 3
    stem: tuple[int, int, int] = (24, 48, 64)
    decoder: tuple[int, int, int, int] = (128, 96, 48, 32)
    match: int = 32
    num_planes: int = 48
    span: tuple[float, float] = (1 / 16, 16.0)
    num_sources: int = 3
    refine_steps: tuple[float, ...] = ()
    refine_planes: int = 17
    refine_dim: int = 40
    is_sharp: bool = False

    def __post_init__(self) -> None:
        if self.dim % (4 * self.num_heads):
            raise RecipeError(f"dim must be a multiple of 4 * num_heads, found {self.dim} and {self.num_heads} heads")
        if self.num_planes < 2 or not 0 < self.span[0] < 1 < self.span[1] or self.num_sources < 1:
            raise RecipeError(
                f"the sweep needs two planes, a span around 1 and a source, found {self.num_planes}, {self.span} and "
                f"{self.num_sources}"
            )
        if any(step <= 0 for step in self.refine_steps) or self.refine_planes < 3 or self.refine_planes % 2 == 0:
            raise RecipeError(
                "further sweeps need positive steps and an odd number of planes, found "
                f"{self.refine_steps} and {self.refine_planes}"
            )


MINI_DEPTH = MiniDepthConfig(refine_steps=(0.03, 0.01), is_sharp=True)
TINY_MINI_DEPTH = MiniDepthConfig(
    dim=32, depth=2, num_heads=2, stem=(8, 12, 16), decoder=(24, 16, 12, 8), match=8, num_planes=16
)
TINY_REFINED_DEPTH = replace(TINY_MINI_DEPTH, refine_steps=(0.1,), refine_planes=5, refine_dim=8, is_sharp=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniPrediction:
    """What the network says of b windows.

    Attributes:
        log_depth: natural logarithm of z-depth in units. [b v h w]
        log_confidence: logarithm of a tenth over the expected relative error. [b v h w]
        sky_logit: positive where sky is likelier than not. [b v h w]
        gaussians: raw numbers of one Gaussian a pixel of the windows they were asked for, or None. [a v 12 h w]
        stages: log-depth of cells of 4 x 4 pixels after the first sweep and each further one. [b v k h/4 w/4]
    """

    log_depth: Float[Tensor, "b v h w"]
    log_confidence: Float[Tensor, "b v h w"]
    sky_logit: Float[Tensor, "b v h w"]
    gaussians: Float[Tensor, "a v 12 h w"] | None = None
    stages: Float[Tensor, "b v k h4 w4"] | None = None


class _Up(nn.Module):
    """Twice the resolution, a finer map beside it, two convolutions."""

    def __init__(self, coarse: int, fine: int, out: int) -> None:
        super().__init__()
        self.join = nn.Conv2d(coarse + fine, out, 3, padding=1)
        self.unit = ResidualUnit(out)

    def forward(self, x: Tensor, fine: Tensor) -> Tensor:
        x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return self.unit(self.join(torch.cat([x, fine], 1)))


class _Refinement(nn.Module):
    """A further sweep with finer planes around the depth found so far (Gu et al. 2020, cascade cost volumes)."""

    def __init__(self, features: int, config: MiniDepthConfig, step: float) -> None:
        super().__init__()
        self.step, self.planes = step, config.refine_planes
        self.look = nn.Conv2d(features + 2 * self.planes, config.refine_dim, 3, padding=1)
        self.unit = ResidualUnit(config.refine_dim)
        self.choose = nn.Conv2d(config.refine_dim, self.planes, 3, padding=1)
        self.hand_on = nn.Conv2d(config.refine_dim, features, 1)
        for last in (self.choose, self.hand_on):
            # Nothing changes at first: planes lie evenly around the depth, and all are equally likely.
            nn.init.zeros_(last.weight)
            assert last.bias is not None  # noqa: S101
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, log_depth: Tensor, sweep: PlaneSweep) -> tuple[Tensor, Tensor]:
        """Features and log-depth, [(b v) c h w] and [(b v) 1 h w], after the look."""
        middle = (self.planes - 1) // 2
        offsets = self.step * torch.arange(-middle, middle + 1, device=x.device, dtype=torch.float32)[:, None, None]
        around = (log_depth.detach() + offsets).unflatten(0, sweep.size[:2])
        agreement = sweep.at(around)
        evidence = torch.cat([agreement.mean, agreement.best], 2).flatten(0, 1).to(x.dtype)
        prediction = self.unit(self.look(torch.cat([x, evidence], 1)))
        likely = self.choose(prediction).float().softmax(1)
        return x + self.hand_on(prediction), log_depth + (likely * offsets).sum(1, keepdim=True)


class MiniDepth(nn.Module):
    """Depth, confidence, sky and Gaussians of single images and of windows of frames with known cameras."""

    def __init__(self, config: MiniDepthConfig = MINI_DEPTH) -> None:
        super().__init__()
        self.config = config
        full, half, quarter = config.stem
        d8, d4, d2, d1 = config.decoder
        self.stem1 = nn.Conv2d(3, full, 3, padding=1)
        self.stem2 = nn.Sequential(nn.Conv2d(full, half, 3, 2, 1), nn.ReLU(), ResidualUnit(half))
        self.stem4 = nn.Sequential(
            nn.Conv2d(half, quarter, 3, 2, 1), nn.ReLU(), ResidualUnit(quarter), ResidualUnit(quarter)
        )
        self.match = nn.Conv2d(quarter, config.match, 3, padding=1)
        self.evidence = nn.Sequential(
            nn.Conv2d(config.num_planes + quarter, d4, 3, padding=1), nn.ReLU(), ResidualUnit(d4)
        )
        self.tokens = nn.Conv2d(quarter + d4, config.dim, 3, 2, 1)
        self.rays = nn.Linear(RAY_NUMBERS, config.dim)
        self.camera = FeedForward(CAMERA_NUMBERS, config.dim)
        self.blocks = nn.ModuleList(ViTBlock(config.dim, config.num_heads, qk_norm=True) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim)
        self.eighth = nn.Sequential(nn.Conv2d(config.dim, d8, 1), ResidualUnit(d8))
        self.up4 = _Up(d8, d4, d4)
        self.planes = nn.Conv2d(d4 + config.num_planes, config.num_planes, 3, padding=1)
        self.up2 = _Up(d4 + 1, half, d2)
        self.up1 = _Up(d2, full, d1)
        self.dense = nn.Sequential(nn.Conv2d(d1, d1, 3, padding=1), nn.ReLU(), nn.Conv2d(d1, DENSE_CHANNELS, 1))
        self.splats = nn.Sequential(
            nn.Conv2d(d1 + 3, 2 * d1, 3, padding=1), nn.ReLU(), nn.Conv2d(2 * d1, GAUSSIAN_CHANNELS, 1)
        )
        self.refinements = nn.ModuleList(_Refinement(d4, config, step) for step in config.refine_steps)
        self.pick = nn.Conv2d(d1, 9, 1) if config.is_sharp else None
        if self.pick is not None:
            nn.init.zeros_(self.pick.weight)
            assert self.pick.bias is not None  # noqa: S101
            nn.init.zeros_(self.pick.bias)
        for last in (self.dense[-1], self.splats[-1]):
            # Small first outputs: depth starts from the planes alone, Gaussians from a pixel's footprint.
            assert isinstance(last, nn.Conv2d)  # noqa: S101
            assert last.bias is not None  # noqa: S101
            nn.init.normal_(last.weight, std=1e-3)
            nn.init.zeros_(last.bias)

    def forward(
        self,
        images: Float[Tensor, "b v 3 h w"],
        intrinsics: Float[Tensor, "b v 3 3"],
        world_to_cam: Float[Tensor, "b v 4 4"] | None = None,
        *,
        with_gaussians: bool = False,
        gaussian_windows: int | None = None,
    ) -> MiniPrediction:
        """Predict.

        Args:
            images: sRGB in 0..1, sides multiples of 8.
            intrinsics: pixels of these images, centres at +0.5.
            world_to_cam: known cameras, lengths in units; None for single images, each a window of one view.
            with_gaussians: also the Gaussian head.
            gaussian_windows: of the first so many windows only.

        Raises:
            FrameError: sides that are no multiples of 8, or several views without cameras.
        """
        b, v, _, height, width = images.shape
        if height % CELL or width % CELL:
            raise FrameError(f"images need sides that are multiples of {CELL}, found {width}x{height}; resize them")
        if world_to_cam is None and v > 1:
            raise FrameError(f"views without cameras are windows of one, found {v}; put them into the batch")
        flat = images.flatten(0, 1)
        full = functional.relu(self.stem1(2.0 * flat - 1.0))
        half = self.stem2(full)
        quarter = self.stem4(half)
        sweep = self._sweep(quarter, intrinsics, world_to_cam, b)
        planes = log_planes(self.config.num_planes, *self.config.span, device=images.device)
        # nothing to compare with where there is one view
        cost = quarter.new_zeros(b * v, len(planes), *quarter.shape[2:])
        if sweep is not None:
            cost = sweep.at(planes).mean.flatten(0, 1).to(quarter.dtype)
        evidence = self.evidence(torch.cat([quarter, cost], 1))
        x = self._attend(torch.cat([quarter, evidence], 1), images, intrinsics, world_to_cam)
        x = self.up4(self.eighth(x), evidence)
        likely = self.planes(torch.cat([x, cost], 1)).float().softmax(1)
        coarse = (likely * planes[:, None, None]).sum(1, keepdim=True)  # no matrix product: autocast would round it
        stages = [coarse]
        if sweep is not None:
            for refinement in self.refinements:
                x, coarse = refinement(x, coarse, sweep)
                stages.append(coarse)
        x = self.up1(self.up2(torch.cat([x, coarse], 1), half), full)
        with torch.autocast(x.device.type, enabled=False):
            dense = self.dense(x.float())
            log_depth = self._enlarged(coarse, x.float()) + dense[:, 0]
        maps = None
        if with_gaussians:
            some = slice(0, v * (b if gaussian_windows is None else gaussian_windows))
            maps = self.splats(torch.cat([x[some], flat[some].to(x.dtype)], 1)).float().unflatten(0, (-1, v))
        return MiniPrediction(
            log_depth=log_depth.unflatten(0, (b, v)),
            log_confidence=dense[:, 1].clamp(-MAX_LOG_CONFIDENCE, MAX_LOG_CONFIDENCE).unflatten(0, (b, v)),
            sky_logit=dense[:, 2].unflatten(0, (b, v)),
            gaussians=maps,
            stages=torch.cat(stages, 1).unflatten(0, (b, v)),
        )

    def _sweep(self, quarter: Tensor, intrinsics: Tensor, world_to_cam: Tensor | None, b: int) -> PlaneSweep | None:
        """Comparison of the views, None for single images."""
        if world_to_cam is None or world_to_cam.shape[1] < 2:
            return None
        features = functional.normalize(self.match(quarter).float(), dim=1).unflatten(0, (b, -1))
        cells = torch.cat([0.25 * intrinsics[..., :2, :], intrinsics[..., 2:, :]], -2)
        return PlaneSweep(features, world_to_cam, cells, self.config.num_sources)

    def _enlarged(self, coarse: Tensor, x: Tensor) -> Tensor:
        """Log-depth of cells [(b v) 1 h/4 w/4] at full resolution. [(b v) h w]

        Sharp: a convex combination of the 3 x 3 nearest cells (Teed and Deng 2020, RAFT, section 3.3), which begins as
        the bilinear one.
        """
        height, width = x.shape[2:]
        if self.pick is None:
            return functional.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)[:, 0]
        near = functional.unfold(functional.pad(coarse, (1, 1, 1, 1), mode="replicate"), 3)
        near = functional.interpolate(near.unflatten(2, coarse.shape[2:]), scale_factor=4, mode="nearest")
        usual = _bilinear_logits(x.device).repeat(1, height // 4, width // 4)
        return (near * (self.pick(x) + usual).softmax(1)).sum(1)

    def _attend(self, maps: Tensor, images: Tensor, intrinsics: Tensor, world_to_cam: Tensor | None) -> Tensor:
        b, v, _, height, width = images.shape
        rows, columns = height // CELL, width // CELL
        x = rearrange(self.tokens(maps), "(b v) c r s -> b v (r s) c", b=b).float()  # the residual stream is fp32
        x = x + self.rays(_cell_rays(intrinsics, rows, columns))
        x = x + self.camera(_camera_numbers(intrinsics, world_to_cam, height, width))[:, :, None]
        grid = torch.cartesian_prod(
            torch.arange(rows, device=x.device).float(), torch.arange(columns, device=x.device).float()
        )
        head = self.config.dim // self.config.num_heads
        own, shared = rope_table(grid, head), rope_table(grid.repeat(v, 1), head)
        for i, block in enumerate(self.blocks):
            if i % 2 and v > 1:
                x = rearrange(block(rearrange(x, "b v n c -> b (v n) c"), shared), "b (v n) c -> b v n c", v=v)
            else:
                x = block(x.flatten(0, 1), own).unflatten(0, (b, v))
        return rearrange(self.norm(x), "b v (r s) c -> (b v) c r s", r=rows)


@lru_cache(maxsize=8)
def _bilinear_logits(device: torch.device) -> Tensor:
    """Logarithms of the bilinear weights of the 3 x 3 cells around each pixel of a cell. [9 4 4]"""
    low = torch.tensor([0.375, 0.125, 0.0, 0.0], device=device)
    line = torch.stack([low, 1.0 - low - low.flip(0), low.flip(0)])  # [3 4]
    weights = (line[:, None, :, None] * line[None, :, None, :]).flatten(0, 1)
    return weights.clamp_min(NEVER).log()


def _cell_rays(intrinsics: Tensor, rows: int, columns: int) -> Tensor:
    """Where the middle of each cell looks, as x / z and y / z. [b v (r s) 2]"""
    K = intrinsics[:, :, None, None]
    v = CELL * (torch.arange(rows, device=K.device) + 0.5)[:, None].expand(rows, columns)
    u = CELL * (torch.arange(columns, device=K.device) + 0.5).expand(rows, columns)
    x, y = (u - K[..., 0, 2]) / K[..., 0, 0], (v - K[..., 1, 2]) / K[..., 1, 1]
    return torch.stack([x, y], -1).flatten(2, 3)


def _camera_numbers(intrinsics: Tensor, world_to_cam: Tensor | None, height: int, width: int) -> Tensor:
    """Each view's camera as seen from the first. [b v 15]"""
    fov = torch.stack([width / intrinsics[..., 0, 0], height / intrinsics[..., 1, 1]], -1)
    if world_to_cam is None:
        return torch.cat([fov.new_zeros(*fov.shape[:2], 12), fov, torch.zeros_like(fov[..., :1])], -1)
    with torch.autocast(fov.device.type, enabled=False):
        relative = world_to_cam[:, :1] @ invert_rigid(world_to_cam, None)
    parts = [relative[..., :3, :3].flatten(2), relative[..., :3, 3], fov, torch.ones_like(fov[..., :1])]
    return torch.cat(parts, -1)
