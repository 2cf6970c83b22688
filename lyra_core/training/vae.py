"""Trains the small video autoencoder on procedural worlds and photographs, from nothing, in minutes on one GPU.

    result = train_vae(VaeTrainingConfig(...), TrainingRun(out_dir=Path("run"), device="cuda"))

Left behind: `weights.safetensors` (averaged, bf16, with the statistics of the latents), `metrics.jsonl`, `curve.png`,
`reconstructions.png` (truth above, reconstruction below; held-out worlds, then held-out photographs).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lyra_core.errors import ConfigError
from lyra_core.evaluation.autoencoding import reconstruct, to_video
from lyra_core.image_metrics import psnr_each_db
from lyra_core.mini.vae import GROUP, MINI_VAE, MiniVAE, MiniVAEConfig, build_mini_vae
from lyra_core.procedural.atlas import build_atlas
from lyra_core.procedural.photo_clips import Number, PhotoLibrary, jitter_colors, photo_clips
from lyra_core.procedural.photographs import load_photographs
from lyra_core.procedural.world_clips import LONG_PATHS, SHORT_PATHS, WorldLibrary, load_views
from lyra_core.training.checkpoint import save_shipped
from lyra_core.training.loop import step_generator, train
from lyra_core.training.loop_config import LoopConfig, LoopResult
from lyra_core.training.placement import placed
from lyra_core.training.run import TrainingRun
from lyra_core.weights.ema_weights import load_state, read_weights

Clips = Float[Tensor, "b t 3 h w"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeTrainingConfig:
    """One training run of the small autoencoder.

    Attributes:
        loop: length and speed.
        model: widths.
        seed: of weights and data.
        height: rows of frames.
        width: columns.
        num_frames: frames of a clip, 1 + 4n.
        batch: clips a step.
        photo_share: share of clips made of photographs (where there are any).
        still_share: share of clips that stand still.
        hole_share: share of clips with black holes, like warped frames.
        photographs: folder of photographs; those of photographs.HELD_OUT_PHOTOGRAPHS only measure.
        num_scenes: procedural scenes to learn from.
        num_held_out: procedural scenes to measure on.
        textures_per_kind: procedural textures of each kind.
        texture_size: texels of a side.
        pool_clips: rendered clips kept on the device and drawn from; 0 renders every batch anew (a resumed run is then
            the same bit for bit).
        fresh_clips: clips rendered into the pool at once.
        refreshes: how often a step does so.
        supersample: rays along each side of a pixel.
        is_compiled: compile the model.
        views: file of camera paths (world_clips.save_views); None searches for them.
        kl_weight: of the KL term.
        max_speed: frames of a path a clip may go on by at once; None is as fast as the paths allow.

    Raises:
        ConfigError: a number of frames that is not 1 + 4n.
    """

    loop: LoopConfig
    model: MiniVAEConfig = field(default_factory=lambda: MINI_VAE)
    seed: int = 0
    height: int = 128
    width: int = 224
    num_frames: int = 9
    batch: int = 96
    photo_share: float = 0.4
    still_share: float = 0.125
    hole_share: float = 0.125
    photographs: Path | None = None
    num_scenes: int = 768
    num_held_out: int = 48
    textures_per_kind: int = 16
    texture_size: int = 256
    pool_clips: int = 8192
    fresh_clips: int = 32
    refreshes: int = 2
    supersample: int = 2
    is_compiled: bool = False
    views: Path | None = None
    kl_weight: float = 1e-4
    max_speed: int | None = None

    def __post_init__(self) -> None:
        if self.num_frames < 1 or (self.num_frames - 1) % GROUP:
            raise ConfigError(f"clips have 1 + {GROUP}n frames, found {self.num_frames}")


class ClipSource:
    """Clips of one split: procedural worlds, and photographs where there are any."""

    def __init__(
        self,
        config: VaeTrainingConfig,
        split: str,
        device: str | torch.device,
        workers: Executor | None = None,
    ) -> None:
        self.config, self.device = config, torch.device(device)
        is_train = split == "train"
        atlas = build_atlas(
            split,
            per_kind=config.textures_per_kind if is_train else max(2, config.textures_per_kind // 4),
            size=config.texture_size,
            photographs=config.photographs,
            workers=workers,
        ).to(device)
        plan = SHORT_PATHS if config.views is None else LONG_PATHS
        self.worlds = WorldLibrary(
            range(config.num_scenes if is_train else config.num_held_out),
            split,
            atlas,
            size=(config.height, config.width),
            plan=replace(plan, max_stride=config.max_speed or plan.max_stride),
            views=None if config.views is None else load_views(config.views, split),
        )
        self.photos: PhotoLibrary | None = None
        if config.photographs is not None:
            images = load_photographs(config.photographs, split)
            self.photos = PhotoLibrary.of(images, device) if images else None

    def world_clips(self, count: int, generator: torch.Generator, *, speed: int | None = None) -> Clips:
        """Clips of procedural worlds."""
        return self.worlds.clips(
            count, self.config.num_frames, generator, speed=speed, supersample=self.config.supersample
        )

    def photo_clips(self, count: int, generator: torch.Generator, *, speed: Number = 1.0) -> Clips:
        """Clips of photographs.

        Raises:
            ConfigError: there are none.
        """
        if self.photos is None:
            raise ConfigError("clips of photographs were asked for, but no folder of photographs was given")
        c = self.config
        return photo_clips(self.photos, count, c.num_frames, c.height, c.width, generator, speed=speed)

    def mixed(self, count: int, generator: torch.Generator) -> Clips:
        """Clips of both sorts in the configured share, colours jittered; both parts have fixed sizes."""
        photos = round(count * self.config.photo_share) if self.photos is not None else 0
        parts = [self.world_clips(count - photos, generator)] if count > photos else []
        if photos:
            parts.append(self.photo_clips(photos, generator))
        return jitter_colors(torch.cat(parts), generator)


class ClipPool:
    """Rendered clips on the device, partly replaced each step: rendering is dearer than a second look at a clip."""

    def __init__(self, source: ClipSource, generator: torch.Generator) -> None:
        self.source, self.clips = source, torch.empty(0)
        c = source.config
        if c.pool_clips:
            shape = (c.pool_clips, c.num_frames, 3, c.height, c.width)
            self.clips = torch.empty(shape, dtype=torch.uint8, device=source.device)
            self.filled, self.cursor = 0, 0
            while self.filled < min(c.pool_clips, 8 * c.batch):
                self._refresh(generator)

    def _refresh(self, generator: torch.Generator) -> None:
        c = self.source.config
        fresh = (self.source.mixed(c.fresh_clips, generator) * 255).round().to(torch.uint8)
        rows = (self.cursor + torch.arange(len(fresh))) % c.pool_clips
        self.clips[rows.to(self.clips.device)] = fresh
        self.cursor = (self.cursor + len(fresh)) % c.pool_clips
        self.filled = min(c.pool_clips, self.filled + len(fresh))

    def draw(self, generator: torch.Generator) -> Clips:
        """A batch, sRGB in [0, 1]."""
        c = self.source.config
        if not c.pool_clips:
            return self.source.mixed(c.batch, generator)
        for _ in range(c.refreshes):
            self._refresh(generator)
        rows = torch.randint(self.filled, (c.batch,), generator=generator)
        return self.clips[rows.to(self.clips.device)].float() / 255


def augment(clips: Clips, config: VaeTrainingConfig, generator: torch.Generator) -> Clips:
    """Some clips stand still, some get black holes that wander like those of warped frames.

    Args:
        clips: sRGB in [0, 1].
        config: the shares.
        generator: on the CPU.
    """
    b, t, _, h, w = clips.shape
    device = clips.device
    still = (torch.rand(b, generator=generator) < config.still_share).to(device)
    clips = torch.where(still[:, None, None, None, None], clips[:, :1], clips)
    holed = (torch.rand(b, generator=generator) < config.hole_share).to(device)
    coarse = torch.rand(b, 1, 3, max(2, h // 16), max(2, w // 16), generator=generator).to(device)
    field_ = functional.interpolate(coarse, size=(t, h, w), mode="trilinear", align_corners=True)
    hole = (field_[:, 0] < 0.36) & holed[:, None, None, None]
    return clips.masked_fill(hole[:, :, None], 0.0)


def reconstruction_loss(reconstruction: Tensor, truth: Tensor) -> Float[Tensor, ""]:
    """Squared and absolute error, and the absolute error of three Laplacian levels; videos [b 3 t h w] in [-1, 1].

    The Laplacian part (as in Bojanowski et al. 2018, section 3.2) keeps grain that squared error lets go.
    """
    error = reconstruction - truth
    loss = 5.0 * error.square().mean() + 0.5 * error.abs().mean()
    flat = error.transpose(1, 2).flatten(0, 1)
    for level in range(3):
        low = functional.avg_pool2d(flat, 2)
        band = flat - functional.interpolate(low, scale_factor=2.0, mode="nearest")
        loss = loss + 0.5 / 2**level * band.abs().mean()
        flat = low
    return loss


def _forward(model: MiniVAE, video: Tensor, noise: Tensor, kl_weight: float) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, mean squared error (in [0, 1] units) and KL of a batch of videos in [-1, 1]."""
    mean, log_variance = model.posterior(video)
    mean, log_variance = mean.float(), log_variance.float()
    reconstruction = model.reconstruct(mean + torch.exp(0.5 * log_variance) * noise).float()
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    squared = (0.5 * (reconstruction - video)).square().mean()
    return reconstruction_loss(reconstruction, video) + kl_weight * kl, squared, kl


def latent_noise(config: VaeTrainingConfig, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Noise of the latents of `count` clips, on the device."""
    side = config.model.spatial_factor
    groups = 1 + (config.num_frames - 1) // GROUP
    shape = (count, config.model.latent_channels, groups, config.height // side, config.width // side)
    device_generator = torch.Generator(device)
    device_generator.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
    return torch.randn(shape, generator=device_generator, device=device)


def held_out_clips(source: ClipSource, count: int) -> dict[str, Clips]:
    """Fixed clips to measure on, by name."""
    sets = {}
    draw = torch.Generator().manual_seed(7)
    pieces = [source.world_clips(8, draw) for _ in range(max(1, count // 8))]
    sets["worlds"] = torch.cat(pieces)
    if source.photos is not None:
        sets["photos"] = source.photo_clips(count, draw)
        sets["photos_still"] = source.photo_clips(count, draw, speed=0.0)
    return sets


@torch.no_grad()
def fit_latent_statistics(model: MiniVAE, source: ClipSource, batches: int) -> None:
    """Set latent_mean and latent_std from clips of the training split, so that encode returns unit latents."""
    model.latent_mean.zero_()
    model.latent_std.fill_(1.0)
    latents = []
    for index in range(batches):
        clips = source.mixed(source.config.fresh_clips or source.config.batch, step_generator(11, index))
        latents.append(model.encode(to_video(clips)).float())
    flat = torch.cat(latents).transpose(0, 1).flatten(1)
    model.latent_mean.copy_(flat.mean(1))
    model.latent_std.copy_(flat.std(1).clamp(min=1e-3))


def save_sheet(model: MiniVAE, sets: dict[str, Clips], path: Path, rows: int = 8) -> None:
    """Truth above, reconstruction below: the last frame of some clips of each set, side by side."""
    from PIL import Image

    columns = []
    for clips in sets.values():
        some = clips[:: max(1, len(clips) // rows)][:rows]
        reconstructions = reconstruct(model, some)
        pairs = torch.stack([some[:, -1], reconstructions[:, -1]], 1).flatten(0, 1)
        columns.append(torch.cat(list(pairs), dim=1))
    tall = max(column.shape[1] for column in columns)
    sheet = torch.cat([functional.pad(c, (0, 0, 0, tall - c.shape[1])) for c in columns], dim=2)
    pixels = (sheet * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    Image.fromarray(pixels).save(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Data:
    """What a run learns from, and what it is measured on (in the first process only)."""

    source: ClipSource
    pool: ClipPool
    measured: dict[str, Clips]


def _prepare(config: VaeTrainingConfig, run: TrainingRun) -> _Data:
    source = ClipSource(config, "train", run.device, run.workers)
    held_out = ClipSource(config, "heldout", run.device, run.workers) if run.replicas.is_first else None
    pool = ClipPool(source, step_generator(run.replicas.seed(config.seed + 1), 0))
    count = 48 if source.device.type == "cuda" else 8
    return _Data(source=source, pool=pool, measured={} if held_out is None else held_out_clips(held_out, count))


def _warm_up(forward: Callable[..., tuple[Tensor, Tensor, Tensor]], model: MiniVAE, config: VaeTrainingConfig) -> None:
    """One step on noise, so that compiling runs beside the preparation of the data."""
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    shape = (config.batch, 3, config.num_frames, config.height, config.width)
    video = torch.rand(shape, device=device, generator=torch.Generator(device).manual_seed(0)) * 2 - 1
    noise = latent_noise(config, config.batch, generator, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.loop.precision == "autocast"):
        loss, *_ = forward(model, video, noise, config.kl_weight)
    loss.backward()
    model.zero_grad(set_to_none=True)


def train_vae(config: VaeTrainingConfig, run: TrainingRun) -> LoopResult:
    """Train the small autoencoder.

    Args:
        config: hyper-parameters.
        run: folder, devices, weights to begin with (of an autoencoder with as many residual blocks or fewer).

    Returns:
        The averaged weights (with latent statistics) and all metrics.

    Raises:
        SeedError: photographs that cannot be read.
        TrainingError: the training diverged.
        WeightsError: weights or a checkpoint that cannot be used.
    """
    device = torch.device(run.device)
    model = initial_vae(config, device)
    if run.start_from is not None:
        load_grown(model, run.start_from)
        model.latent_mean.zero_()
        model.latent_std.fill_(1.0)
    forward = torch.compile(_forward, dynamic=False) if config.is_compiled else _forward
    with ThreadPoolExecutor(1) as beside:
        preparation = beside.submit(_prepare, config, run)
        if config.is_compiled:
            _warm_up(forward, model, config)
        data = preparation.result()
    seed = run.replicas.seed(config.seed)

    def loss_of(module: MiniVAE, step: int) -> dict[str, Tensor]:
        generator = step_generator(seed, step)
        clips = augment(data.pool.draw(generator), config, generator)
        noise = latent_noise(config, len(clips), generator, device)
        loss, squared, kl = forward(module, to_video(clips), noise, config.kl_weight)
        return {"loss": loss, "psnr_train": -10 * torch.log10(squared.detach()), "kl": kl}

    def evaluate(module: MiniVAE) -> dict[str, float | int]:
        return {
            f"psnr_{name}": float(psnr_each_db(reconstruct(module, clips), clips).mean())
            for name, clips in data.measured.items()
        }

    result = train(model, loss_of, config.loop, run, evaluate)
    if run.replicas.is_first:
        model.load_state_dict(result.ema)
        model.eval()
        fit_latent_statistics(model, data.source, batches=4)
        save_shipped(model, result, evaluate, run.out_dir)
        save_sheet(model, data.measured, run.out_dir / "reconstructions.png")
    return result


def initial_vae(config: VaeTrainingConfig, device: torch.device) -> MiniVAE:
    """An autoencoder with the first weights of a run."""
    with torch.random.fork_rng(devices=[]):
        # layers draw their first weights from the global generator, which is put back afterwards
        torch.random.default_generator.manual_seed(config.seed)
        model = build_mini_vae(config.model)
    return placed(model, device)


def load_grown(model: MiniVAE, path: Path) -> None:
    """EMA weights of an autoencoder of the same widths and no more residual blocks; others begin as the identity.

    Raises:
        WeightsError: no such file, or weights of another autoencoder.
    """
    fresh = model.state_dict()
    state = read_weights(path, "vae")
    blocks = re.compile(r"(encoder|decoder)\.(eighth|quarter)\.\d+\.")
    added = {name: value for name, value in fresh.items() if name not in state and blocks.match(name)}
    # the second convolution begins with zero weights: without its bias the whole block adds nothing
    added |= {name: torch.zeros_like(value) for name, value in added.items() if name.endswith("conv2.bias")}
    load_state(model, state | added, path)
