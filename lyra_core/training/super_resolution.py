"""Trains super-resolution: errors, features of photographs, critics, and a term against flicker.

    result = train_super_resolution(SuperResolutionTrainingConfig(...), out_dir=Path("run"), device="cuda")

Of each sample the key frame is enlarged first, then the frame, which sees the enlarged key frame warped to it: the
network learns to live with its own output. Critics look at pixels and at features of photographs (Sauer et al. 2021,
"Projected GANs Converge Faster"), and their share of the gradient follows that of the errors, as in
`lyra_core.training.gan`.

Left behind: `weights.safetensors`, `critics.safetensors`, `metrics.jsonl`, `enlarged.jpg`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from lyra_core.evaluation.measures import detail, masked_psnr_db
from lyra_core.image_features import ImageFeatures, load_image_features
from lyra_core.mini.backward_warp import pyramid, sample
from lyra_core.mini.manifest import SUPER_RESOLUTION
from lyra_core.mini.super_resolution import (
    FACTOR,
    SuperResolution,
    SuperResolutionConfig,
    build_super_resolution,
    enlarged,
    reduced,
    transfer_detail,
)
from lyra_core.training.detail_batch import DetailBatch, make_batch
from lyra_core.training.detail_samples import DetailSamples
from lyra_core.training.loop import LoopConfig, LoopResult, step_generator, train
from lyra_core.training.run import TrainingRun
from lyra_core.weights.ema_weights import WEIGHTS, read_weights, save_weights

CRITIC_LEVELS = 3
CRITICS = "critics.safetensors"
"""Beside the weights, for a run that goes on with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetailLosses:
    """How much each part of the loss counts.

    Attributes:
        gradient: absolute error of neighbouring pixels' differences.
        perceptual: distance of features.
        temporal: how much more than the truth a frame differs from the key frame warped to it.
        unseen: what the video invented is to keep its colours.
        adversarial: gradient of the critics by the pixels, against that of everything else.
        critic_first: steps in which critics learn and do not count.
        critic_dims: channels of the pixel critic at 1/2, 1/4 and 1/8 of the resolution.
    """

    gradient: float = 0.5
    perceptual: float = 0.06
    temporal: float = 0.5
    unseen: float = 0.5
    adversarial: float = 0.4
    critic_first: int = 600
    critic_dims: tuple[int, int, int] = (48, 96, 192)


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperResolutionTrainingConfig:
    """One training run.

    Attributes:
        loop: length and speed.
        model: widths.
        losses: weights of the loss.
        seed: of weights and batches.
        batch: samples a step.
        side: rows and columns of their parts, low-resolution pixels.
        repeats: most times that a key frame is enlarged from itself before it counts.
        features: file of image features (lyra_core.image_features.save_image_features); None takes the package.
    """

    loop: LoopConfig
    model: SuperResolutionConfig = field(default_factory=SuperResolutionConfig)
    losses: DetailLosses = field(default_factory=DetailLosses)
    seed: int = 0
    batch: int = 16
    side: tuple[int, int] = (80, 80)
    repeats: int = 3
    features: Path | None = None


class _PixelCritic(nn.Module):
    """One verdict for each patch of pixels."""

    def __init__(self, dims: tuple[int, int, int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for level, (before, after) in enumerate(pairwise((3, *dims))):
            layers.append(nn.Conv2d(before, after, 4, stride=2, padding=1))
            if level:
                layers.append(nn.GroupNorm(8, after))
            layers.append(nn.LeakyReLU(0.2))
        layers.append(nn.Conv2d(dims[-1], 1, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Tensor:
        """Verdicts, high where patches look true."""
        return self.layers(images)


class _FeatureCritic(nn.Module):
    """Verdicts on maps of frozen features."""

    def __init__(self, widths: tuple[int, ...], dim: int = 64) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, dim, 1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(dim, dim, 3, padding=1),
                nn.GroupNorm(8, dim),
                nn.LeakyReLU(0.2),
                nn.Conv2d(dim, 1, 1),
            )
            for width in widths
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Verdicts of each level."""
        return [head(one) for head, one in zip(self.heads, maps, strict=True)]


class Critics(nn.Module):
    """Both critics; the features are given, so that they are no part of what is trained."""

    def __init__(self, losses: DetailLosses, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.pixels = _PixelCritic(losses.critic_dims)
        self.features = _FeatureCritic(widths)

    def forward(self, images: Float[Tensor, "b 3 h w"], maps: list[Tensor]) -> list[Tensor]:
        """Verdicts of all critics."""
        return [self.pixels(images), *self.features(maps)]


class DetailTraining(nn.Module):
    """What a run moves: the network and its critics."""

    def __init__(self, network: SuperResolution, losses: DetailLosses, widths: tuple[int, ...], seed: int) -> None:
        super().__init__()
        self.network = network
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)
            self.critics = Critics(losses, widths)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enlarged:
    """What the network makes of a batch.

    Attributes:
        both: key frames, then frames. [2b 3 H W]
        flicker: difference of frames from key frames warped to them by true depth. [b 3 H W]
        flicker_of_truth: the same of the truth.
        cover: where that means anything. [b 1 H W]
    """

    both: Float[Tensor, "2b 3 H W"]
    flicker: Float[Tensor, "b 3 H W"]
    flicker_of_truth: Float[Tensor, "b 3 H W"]
    cover: Float[Tensor, "b 1 H W"]


def enlarge_batch(network: SuperResolution, batch: DetailBatch) -> tuple[Tensor, Tensor]:
    """Key frames and frames, [b 3 H W] each.

    Some key frames are enlarged several times, each time from the last: a world's frames are the tenth in a row.
    """
    references = [batch.seed_for_key, batch.earlier]
    with torch.no_grad():
        for _ in range(batch.repeats):
            key = network(batch.low_key, references).float().clamp(-1, 1)
            references = [batch.seed_for_key, batch.reference(key, batch.still)]
    key = network(batch.low_key, references)
    frame = network(batch.low_frame, [batch.seed_for_frame, batch.reference(key, batch.own)])
    return key, frame


def flickering(batch: DetailBatch, key: Tensor, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How frames differ from key frames warped by true depth, how the truth does, and where that can be said."""
    reference = batch.reference(key, batch.truly)
    coarse = reference.seen_coarse()
    where = reference.sample_points(FACTOR)
    moved = sample(reference.levels[:1], where, reference.size)
    moved_truth = sample(pyramid(batch.key)[:1], where, reference.size)
    sure = ((coarse.cover >= 1) * 1.0).to(key)
    cover = functional.interpolate(sure, scale_factor=float(FACTOR), mode="nearest") * batch.seen_frame
    return frame - moved, batch.frame - moved_truth, cover


def _gradient_error(error: Tensor, mask: Tensor) -> Tensor:
    across = (error[..., 1:] - error[..., :-1]).abs() * mask[..., 1:] * mask[..., :-1]
    down = (error[..., 1:, :] - error[..., :-1, :]).abs() * mask[..., 1:, :] * mask[..., :-1, :]
    return across.mean() + down.mean()


def _color_error(error: Tensor, mask: Tensor) -> Tensor:
    """Of colours of 4x4 low-resolution pixels: what a soft frame has right."""
    return (functional.avg_pool2d(error, FACTOR).abs() * functional.avg_pool2d(mask, FACTOR)).mean()


def _feature_distance(found: list[Tensor], wanted: list[Tensor], mask: Tensor) -> Tensor:
    """As lyra_core.image_features.perceptual_distance, over positions that lie in a mask altogether."""
    levels = []
    for one, other in zip(found, wanted, strict=True):
        a, b = (functional.normalize(x.float(), dim=1, eps=1e-4) for x in (one, other))
        inside = functional.adaptive_avg_pool2d(mask, (int(one.shape[2]), int(one.shape[3])))[:, 0] > 1 - 1e-4
        levels.append(((a - b).square().sum(1) * inside).mean())
    return torch.stack(levels).mean()


def detail_losses(
    training: DetailTraining,
    batch: DetailBatch,
    features: ImageFeatures,
    weights: DetailLosses,
    *,
    is_judged: bool,
) -> dict[str, Tensor]:
    """Losses of network and critics, whose gradients do not mix.

    Args:
        training: what is trained.
        batch: drawn.
        features: frozen.
        weights: of the parts.
        is_judged: whether the critics count for the network.
    """
    key, frame = enlarge_batch(training.network, batch)
    made = torch.cat([key, frame]).float()
    true = torch.cat([batch.key, batch.frame])
    mask = torch.cat([batch.seen_key, batch.seen_frame])
    low = torch.cat([batch.low_key, batch.low_frame])
    error = (made - true) * mask
    absolute = error.abs().mean()
    slopes = _gradient_error(error, mask)
    # what the video invented has no truth; there the frame's own colours count
    off = _color_error(reduced(made) - low, 1 - functional.avg_pool2d(mask, FACTOR))
    drift, drift_of_truth, cover = flickering(batch, *made.chunk(2))
    flicker = ((drift - drift_of_truth).abs() * cover).mean()
    with torch.no_grad():
        maps_true = features((true + 1) / 2)
    maps_made = features((made + 1) / 2)
    distance = _feature_distance(maps_made, maps_true, mask)
    errors = (
        absolute
        + weights.gradient * slopes
        + weights.unseen * off
        + weights.temporal * flicker
        + weights.perceptual * distance
    )
    row = {
        "errors": errors.detach(),
        "absolute": absolute.detach(),
        "slopes": slopes.detach(),
        "flicker": flicker.detach(),
        "perceptual": distance.detach(),
    }
    critics = training.critics
    verdicts_true = critics(true, maps_true)
    verdicts_made = critics(made.detach(), [one.detach() for one in maps_made])
    hinge = torch.stack(
        [
            functional.relu(1 - real.float()).mean() + functional.relu(1 + fake.float()).mean()
            for real, fake in zip(verdicts_true, verdicts_made, strict=True)
        ]
    ).mean()
    row["critic"] = hinge.detach()
    if not is_judged:
        return {"loss": errors + hinge, **row}
    frozen = {name: value.detach() for name, value in critics.named_parameters()}
    verdicts = functional_call(critics, frozen, (made, maps_made))
    adversarial = -torch.stack([verdict.float().mean() for verdict in verdicts]).mean()
    (by_errors,) = torch.autograd.grad(errors, made, retain_graph=True)
    (by_verdict,) = torch.autograd.grad(adversarial, made, retain_graph=True)
    share = weights.adversarial * by_errors.norm() / by_verdict.norm().clamp(min=1e-8)
    # what follows has the gradient `pull` by the pixels; the graph behind them runs once
    pull = by_errors + share * by_verdict
    return {"loss": (made * pull).sum() + hinge, **row, "adversarial": adversarial.detach()}


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Samples to measure on, by name."""

    sets: dict[str, DetailSamples]

    @torch.no_grad()
    def measure(self, network: SuperResolution, at_once: int = 4) -> dict[str, float | int]:
        """PSNR where the truth is known, above bicubic enlargement and the untrained transfer; detail and flicker."""
        row: dict[str, float | int] = {}
        for name, samples in self.sets.items():
            values_by_name: dict[str, list[Tensor]] = {}
            for start in range(0, len(samples), at_once):
                draw = torch.Generator().manual_seed(start)
                size = (int(samples.low_key.shape[2]), int(samples.low_key.shape[3]))
                batch = make_batch(samples[start : start + at_once], size, draw)
                with torch.autocast(batch.key.device.type, torch.bfloat16, enabled=batch.key.is_cuda):
                    key, frame = (x.float().clamp(-1, 1) for x in enlarge_batch(network, batch))
                for what, values in _measures(batch, key, frame).items():
                    values_by_name.setdefault(what, []).append(values.cpu())
            for what, parts in values_by_name.items():
                row[f"{what}_{name}"] = float(torch.cat(parts).nanmean())
        return row


def _measures(batch: DetailBatch, key: Tensor, frame: Tensor) -> dict[str, Tensor]:
    truth, made = (batch.frame + 1) / 2, (frame + 1) / 2
    mask = batch.seen_frame[:, 0] > 0
    bicubic = (enlarged(batch.low_frame) + 1) / 2
    seed = batch.seed_for_frame.seen(batch.seed_for_frame.seen_coarse(), None)
    plain = (transfer_detail(batch.low_frame, [seed]) + 1) / 2
    drift, drift_of_truth, cover = flickering(batch, key, frame)
    amount = [(x.abs() * cover).flatten(1).mean(1) for x in (drift, drift_of_truth)]
    db = masked_psnr_db(made, truth, mask)
    return {
        "psnr": db,
        "over_bicubic": db - masked_psnr_db(bicubic, truth, mask),
        "over_transfer": db - masked_psnr_db(plain, truth, mask),
        "detail": detail(made, mask) / detail(truth, mask).clamp(min=1e-4),
        "detail_bicubic": detail(bicubic, mask) / detail(truth, mask).clamp(min=1e-4),
        "flicker_ratio": amount[0] / amount[1].clamp(min=1e-5),
    }


@torch.no_grad()
def save_sheet(network: SuperResolution, sets: dict[str, DetailSamples], path: Path, rows: int = 3) -> None:
    """Samples one below the other: bicubic, enlarged, truth; the middle of each frame."""
    import numpy as np
    from PIL import Image

    lines = []
    for samples in sets.values():
        for index in range(min(rows, len(samples))):
            size = (int(samples.low_key.shape[2]), int(samples.low_key.shape[3]))
            batch = make_batch(samples[index : index + 1], size, torch.Generator().manual_seed(index))
            with torch.autocast(batch.key.device.type, torch.bfloat16, enabled=batch.key.is_cuda):
                frame = enlarge_batch(network, batch)[1]
            cells = [enlarged(batch.low_frame), frame.float(), batch.frame]
            lines.append(torch.cat([cell[0] for cell in cells], dim=2))
    picture = ((torch.cat(lines, dim=1).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(picture.cpu().numpy())).save(path, quality=88)


def train_super_resolution(
    config: SuperResolutionTrainingConfig,
    samples: DetailSamples | Callable[[], DetailSamples],
    held_out: HeldOut,
    run: TrainingRun,
) -> LoopResult:
    """Train on samples that lie on the device.

    Args:
        config: what decides the weights.
        samples: to learn from.
        held_out: to measure on.
        run: folder, device and the weights to begin with; the critics of an earlier run are taken from beside them.

    Returns:
        The EMA weights of the network and all metrics.

    Raises:
        WeightsError: a checkpoint or features that cannot be read. TrainingError: it diverged.
    """
    device = torch.device(run.device)
    pool = samples() if callable(samples) else samples
    features = load_image_features("lite0", levels=CRITIC_LEVELS, path=config.features, device=device)
    if device.type == "cuda":
        features = features.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network = build_super_resolution(config.model, config.seed)
    training = DetailTraining(network, config.losses, features.widths, config.seed)
    if run.start_from is not None:
        network.load_state_dict(read_weights(run.start_from, SUPER_RESOLUTION))
        if (run.start_from.parent / CRITICS).is_file():
            training.critics.load_state_dict(read_weights(run.start_from.parent / CRITICS, "critics"))
    training = training.to(device)
    if device.type == "cuda":
        training = training.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss_of(module: DetailTraining, step: int) -> dict[str, Tensor]:
        generator = step_generator(config.seed, step)
        rows = torch.randint(len(pool), (config.batch,), generator=generator).to(pool.kind.device)
        with torch.autocast(device.type, enabled=False):
            batch = make_batch(pool[rows], config.side, generator, repeats=config.repeats)
        return detail_losses(module, batch, features, config.losses, is_judged=step >= config.losses.critic_first)

    def evaluate(module: DetailTraining) -> dict[str, float | int]:
        return held_out.measure(module.network)

    result = train(training, loss_of, config.loop, run, evaluate)
    save_weights(training.critics.state_dict(), run.out_dir / CRITICS)
    training.load_state_dict(result.ema)
    result.ema = {name: value.detach().clone() for name, value in network.state_dict().items()}
    save_weights(result.ema, run.out_dir / WEIGHTS)
    save_sheet(network.eval(), held_out.sets, run.out_dir / "enlarged.jpg")
    return result
