"""Critics of frames, and how they pull on whoever made them: a patch critic of groups, a projected critic of frames.

The patch critic (Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks", section 3.2.2)
sees the four frames of a latent together, so that grain has to move with its surface. The projected critic sees single
frames with the eyes of a network that knows photographs (training.projected_critic). Beside them stands the distance
of that network's features to the truth's. Each pull has a share of the gradient of the plain errors, as in Esser et al.
2021, "Taming Transformers", equation 7, but by pixels in place of the last layer's weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lyra_core.image_features import ImageFeatures
from lyra_core.mini.vae import GROUP
from lyra_core.training.projected_critic import CriticConfig, ProjectedCritic, critic_hinge, critic_verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticsConfig:
    """How much each pull counts, and sizes.

    Attributes:
        adversarial: gradient of the patch critic's verdict by the pixels, against that of the errors.
        matching: weight of the distance between its features of truth and made frames (Wang et al. 2018,
            "High-Resolution Image Synthesis with Conditional GANs", equation 4).
        projected: gradient of the projected critic's verdict, against that of the errors.
        perceptual: gradient of the distance of image features, likewise.
        unseen: weight of errors and distances where the truth cannot be known, against 1 elsewhere.
        seen_pull: weight of the critics where it is known, against 1 where it is not.
        dims: channels of the patch critic at 1/2, 1/4 and 1/8 of the resolution.
        frames_per_group: frames of each group that the image network looks at; they are spread over the group.
    """

    adversarial: float = 0.5
    matching: float = 0.1
    projected: float = 0.0
    perceptual: float = 0.0
    unseen: float = 1.0
    seen_pull: float = 1.0
    dims: tuple[int, int, int] = (48, 96, 192)
    frames_per_group: int = 1

    @property
    def needs_features(self) -> bool:
        """Whether an image network takes part."""
        return self.projected > 0 or self.perceptual > 0


class PatchCritic(nn.Module):
    """Groups of frames to one number for each patch, high where they look true, with the features on the way."""

    def __init__(self, dims: tuple[int, int, int]) -> None:
        super().__init__()
        widths = (3 * GROUP, *dims)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 4, stride=2, padding=1),
                nn.GroupNorm(8, after) if level else nn.Identity(),
                nn.LeakyReLU(0.2),
            )
            for level, (before, after) in enumerate(pairwise(widths))
        )
        self.head = nn.Conv2d(dims[-1], 1, 3, padding=1)

    def forward(self, groups: Float[Tensor, "n 12 h w"]) -> tuple[Tensor, ...]:
        """Features of each level, then the verdicts."""
        features: list[Tensor] = []
        x = groups
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return (*features, self.head(x))


class FrameCritics(nn.Module):
    """Both critics; the image network is handed in, because it neither learns nor is kept."""

    def __init__(self, config: CriticsConfig, widths: tuple[int, ...] | None, seed: int) -> None:
        """First weights by the seed.

        Args:
            config: shares and sizes.
            widths: channels of the image features; None leaves the projected critic out.
            seed: of the weights.
        """
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)
            self.patch = PatchCritic(config.dims)
        has_projected = widths is not None and config.projected > 0
        self.projected = ProjectedCritic(widths, CriticConfig(seed=seed)) if widths and has_projected else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What critics say of made frames.

    Attributes:
        pull: gradient by the frames of all that moves their maker. [b 3 t h w]
        learning: loss of the critics themselves.
        row: numbers for the log.
    """

    pull: Tensor
    learning: Tensor
    row: dict[str, Tensor]


def judge(
    critics: FrameCritics,
    features: ImageFeatures | None,
    found: Float[Tensor, "b 3 t h w"],
    truth: Float[Tensor, "b 3 t h w"],
    errors: Float[Tensor, ""],
    known: Float[Tensor, "b 1 t h w"] | None = None,
    *,
    real: Float[Tensor, "b 3 t h w"] | None = None,
    is_judged: bool,
) -> Judgement:
    """Let critics see truth and made frames; gradients of critics and maker do not mix.

    Args:
        critics: learn by `learning`.
        features: of photographs, where the configuration asks for them.
        found: made frames in [-1, 1], whole groups of 4, of which a graph is kept.
        truth: the true ones.
        errors: plain errors of `found`, whose gradient sets the scale of all others.
        known: 1 where the truth follows from the conditions, 0 where it cannot be known; None is 1 everywhere.
        real: what critics take for true, if not the truth itself: as good as the maker could be.
        is_judged: whether the critics count for the maker.
    """
    config = critics.config
    dtype = critics.patch.head.weight.dtype
    shown = truth if real is None else real
    true, made = (rearrange(x, "b c (g t) h w -> (b g) (t c) h w", t=GROUP).to(dtype) for x in (shown, found))
    freedom = 1.0 if known is None else 1 - (1 - config.seen_pull) * known
    (by_errors,) = torch.autograd.grad(errors, found, retain_graph=True)
    size = by_errors.norm()
    pull, row = by_errors, {"errors": errors.detach()}

    def add(value: Tensor, share: float) -> Tensor:
        (gradient,) = torch.autograd.grad(value, found, retain_graph=True)
        return share * size / gradient.norm().clamp(min=1e-8) * gradient

    verdict_true, verdict_made = critics.patch(true)[-1], critics.patch(made.detach())[-1]
    learning = critic_hinge([verdict_true], [verdict_made])
    row["critic"] = learning.detach()
    if is_judged and (config.adversarial or config.matching):
        with torch.no_grad():
            real_maps = critics.patch(true)[:-1]
        *levels, verdict = critics.patch(made)
        if config.adversarial:
            adversarial = critic_verdict([verdict])
            pull = pull + freedom * add(adversarial, config.adversarial)
            row["adversarial"] = adversarial.detach()
        if config.matching:
            pairs = zip(levels, real_maps, strict=True)
            matching = torch.stack([(a.float() - b.float()).abs().mean() for a, b in pairs]).sum()
            (by_matching,) = torch.autograd.grad(matching, found, retain_graph=True)
            pull = pull + config.matching * by_matching
            row["matching"] = matching.detach()
    if features is None or not config.needs_features:
        return Judgement(pull=pull, learning=learning, row=row)
    step = GROUP // config.frames_per_group
    maps_made = features(_looked_at(found, step))
    with torch.no_grad():
        maps_truth = features(_looked_at(truth, step))
        maps_real = maps_truth if real is None else features(_looked_at(real, step))
    if config.perceptual:
        weights = None if known is None else rearrange(known[:, :, step - 1 :: step], "b c t h w -> (b t) c h w")
        distance = weighted_distance(maps_made, maps_truth, weights, config.unseen)
        pull = pull + add(distance, config.perceptual)
        row["perceptual"] = distance.detach()
    if critics.projected is not None:
        hinge = critic_hinge(critics.projected(maps_real), critics.projected([m.detach() for m in maps_made]))
        learning = learning + hinge
        row["projected_critic"] = hinge.detach()
        if is_judged:
            verdict = critic_verdict(critics.projected(maps_made))
            pull = pull + freedom * add(verdict, config.projected)
            row["projected"] = verdict.detach()
    return Judgement(pull=pull, learning=learning, row=row)


def _looked_at(frames: Float[Tensor, "b 3 t h w"], step: int) -> Float[Tensor, "n 3 h w"]:
    """Every `step`-th frame, in [0, 1] and a little beyond, where gradients go on."""
    some = rearrange(frames[:, :, step - 1 :: step], "b c t h w -> (b t) c h w")
    return some.clamp(-1.2, 1.2) * 0.5 + 0.5


def weighted_distance(
    found: list[Tensor], truth: list[Tensor], known: Float[Tensor, "b 1 h w"] | None, unseen: float
) -> Float[Tensor, ""]:
    """image_features.perceptual_distance of a batch, positions weighted by how far the truth is known."""
    total = torch.zeros((), device=found[0].device)
    for one, other in zip(found, truth, strict=True):
        a, b = (functional.normalize(x.float(), dim=1, eps=1e-4) for x in (one, other))
        apart = (a - b).square().sum(1)
        if known is not None:
            size = (int(apart.shape[-2]), int(apart.shape[-1]))
            share = functional.interpolate(known.float(), size=size, mode="area")[:, 0]
            apart = apart * (unseen + (1 - unseen) * share)
        total = total + apart.mean()
    return total / len(found)
