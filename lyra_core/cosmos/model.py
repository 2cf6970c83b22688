"""Cosmos 3 as a world model: its video, and Depth Anything 3 under Apache-2.0 for depth and Gaussians.

Nothing in this chain restricts what may be done with its worlds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from lyra_core.config.cosmos import CAMERA, IMAGE, IMAGE_STUDENT, CosmosOptions
from lyra_core.config.rollout import identity_text
from lyra_core.configure import configured
from lyra_core.cosmos.checkpoint import Checkpoint, read_checkpoint, require_fitting
from lyra_core.cosmos.components import Components, load_components
from lyra_core.cosmos.pipeline import build_sampler
from lyra_core.cosmos.rollout import CosmosRollout
from lyra_core.device import require_device
from lyra_core.gaussians.depth_anything.estimator import DepthAnythingEstimator
from lyra_core.gaussians.lifters import HeadLifter
from lyra_core.models import MODELS
from lyra_core.provenance import Provenance
from lyra_core.video.captions import VisionLanguageCaptioner
from lyra_core.weights.bundle import PARTS, find_sets, set_digests
from lyra_core.world_models.generative import RolloutModel, Walk
from lyra_core.world_models.networks import load_apache_depth
from lyra_core.world_models.presets import Options, build_reconstructor, joined_digest


def load_nano(**options: object) -> RolloutModel:
    """Cosmos3-Nano, steered by cameras; arguments as load_cosmos."""
    return load_cosmos("cosmos3-nano", CAMERA, **options)  # type: ignore[arg-type]


def load_super(**options: object) -> RolloutModel:
    """Cosmos3-Super, steered by cameras; arguments as load_cosmos."""
    return load_cosmos("cosmos3-super", CAMERA, **options)  # type: ignore[arg-type]


def load_super_i2v(**options: object) -> RolloutModel:
    """Cosmos3-Super-Image2Video, steered by words; arguments as load_cosmos."""
    return load_cosmos("cosmos3-super-i2v", IMAGE, **options)  # type: ignore[arg-type]


def load_super_i2v_4step(**options: object) -> RolloutModel:
    """Its four-step student, steered by words; arguments as load_cosmos."""
    return load_cosmos("cosmos3-super-i2v-4step", IMAGE_STUDENT, **options)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class CosmosParts:
    """What a model of the family consists of.

    Attributes:
        options: every choice.
        checkpoint: what the weights can do.
        components: networks, tokenizer and schedule.
        estimator: depth network.
        digests: of the sets, the video network's first.
    """

    options: CosmosOptions
    checkpoint: Checkpoint
    components: Components
    estimator: DepthAnythingEstimator
    digests: tuple[str, ...]


def load_parts(
    name: str, base: CosmosOptions, *, device: str, weights: str | Path | None, cosmos: Options | None
) -> CosmosParts:
    """The parts of a model; arguments and errors as load_cosmos."""
    require_device(device)
    options = configured(base, dict(cosmos or {}), "cosmos.")
    homes = find_sets(weights, PARTS[name])
    checkpoint = read_checkpoint(homes["dit"])
    require_fitting(checkpoint, options)
    components = load_components(checkpoint, options, device)
    estimator = DepthAnythingEstimator(load_apache_depth(homes["depth"], homes["metric depth"], device))
    return CosmosParts(
        options=options,
        checkpoint=checkpoint,
        components=components,
        estimator=estimator,
        digests=set_digests(homes),
    )


def load_cosmos(
    name: str,
    base: CosmosOptions,
    *,
    device: str = "cpu",
    weights: str | Path | None = None,
    cosmos: Options | None = None,
    reconstruction: Options | None = None,
) -> RolloutModel:
    """A model of the family, from a folder of converted sets (docs/weights.md).

    Args:
        name: as in lyra_core.models.MODELS, which is also the name of its set.
        base: what is chosen where nothing is said.
        device: where it computes.
        weights: the folder; None is `weights` in the current folder.
        cosmos: fields of lyra_core.config.cosmos.CosmosOptions that differ from `base`.
        reconstruction: as in lyra_core.world_models.presets.build_reconstructor; the lifter is "depth" unless said.

    Raises:
        WeightsError: sets are missing; the message says how to bring them.
        MissingExtraError: a package of the extra `cosmos` is not installed.
        RecipeError: an unknown field, choices that do not fit each other or the weights, or another version of the
            library than they name.
        OutOfMemoryError: too little GPU memory, found before anything is loaded.
    """
    parts = load_parts(name, base, device=device, weights=weights, cosmos=cosmos)
    options, estimator = parts.options, parts.estimator
    depth_name = joined_digest(parts.digests[1:])[:12]
    head = HeadLifter(estimator, name=depth_name)
    chosen = {"lifter": "depth", **(reconstruction or {})}
    captioner = None if options.captioner == "manifest" else VisionLanguageCaptioner(options.captioner, device=device)
    provenance = Provenance(
        precision=options.transformer_dtype,
        num_steps=options.num_steps,
        guidance=options.guidance_scale,
        negative_prompt=options.negative_prompt if options.guidance_scale != 1.0 else None,
        metric_scale_source="depth_model",
    )
    walk = Walk(
        rollout=CosmosRollout(build_sampler(parts.components, parts.checkpoint, options), estimator, options),
        native=replace(MODELS[name].native, chunk_frames=options.chunk_frames),
        depth=estimator,
        depth_config=options.depth,
        reconstructor=build_reconstructor(estimator, head, depth_name, chosen, device),
        choices=identity_text(options),
        provenance=provenance,
        captioner=captioner,
    )
    return RolloutModel(name, joined_digest(parts.digests), walk)
