"""Depth Anything 3 as one call: images, and cameras where known, to depth, cameras and Gaussian
maps.

    images [v 3 h w] --backbone--> 4 levels --dual head--> depth, confidence (rays)
          cameras --encoder--^        |------camera decoder--> cameras
                                      '------Gaussian head --> maps --adapter--> Gaussians
    nested:  a second, metric network gives sky and the scale that turns all of the above into
        metres.

Weights enter by `build_model(config, state)`: the model is made without memory and takes the
tensors as they are. Source: Depth Anything 3 (arXiv 2511.10647), sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lyra_core.errors import DepthError, ReconstructionError, StateDictError
from lyra_core.gaussians.depth_anything.adapter import gaussians_from_maps
from lyra_core.gaussians.depth_anything.backbone import Backbone, LayerScale, VisionTransformer
from lyra_core.gaussians.depth_anything.camera import (
    CameraDecoder,
    CameraEncoder,
    decode_cameras,
)
from lyra_core.gaussians.depth_anything.config import PATCH, DepthAnythingConfig, NestedConfig
from lyra_core.gaussians.depth_anything.gaussian_head import GaussianHead, GaussianMaps
from lyra_core.gaussians.depth_anything.heads import VIEWS_PER_SLICE, DualHead, MetricHead
from lyra_core.geometry.alignment import quantile
from lyra_core.values import Gaussians

SKY_THRESHOLD = 0.3
SKY_DEPTH_LIMIT_M = 200.0
MIN_SKY_PIXELS = 10
CANONICAL_FOCAL = 300.0
QUANTILE_SAMPLES = 100_000
MIN_DEPTH = 1e-3
MIN_METRIC_DEPTH_M = 1e-2


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceOptions:
    """What one forward pass computes.

    Attributes:
        with_rays: also predict rays.
        gaussian_stride: side in pixels of the cell that gets one Gaussian; None for no Gaussians.
        views_per_slice: views whose full-resolution maps exist at once.
        autocast: bfloat16 in the backbone on CUDA; heads and cameras always run in fp32.
    """

    with_rays: bool = False
    gaussian_stride: int | None = None
    views_per_slice: int = VIEWS_PER_SLICE
    autocast: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One scene as the network sees it, in the frame of its reference view.

    Attributes:
        depth: z-depth, in metres if is_metric, else in the network's unit; for the metric network
            alone, metres as seen by a camera of 300 pixels focal length. [v h w]
        confidence: at least 1, or None (metric network alone). [v h w]
        sky: True where the metric network sees sky, or None. [v h w]
        world_to_cam: predicted cameras, in the depth's unit, or None. [v 4 4]
        intrinsics: predicted, pixels, principal point at the centre, or None. [v 3 3]
        rays: origin and direction on a coarser grid, or None; never rescaled. [v a b 6]
        ray_confidence: at least 1, or None. [v a b]
        gaussian_maps: camera-frame Gaussians in the depth's unit, or None.
        is_metric: whether lengths are metres.
    """

    depth: Float[Tensor, "v h w"]
    confidence: Float[Tensor, "v h w"] | None = None
    sky: Bool[Tensor, "v h w"] | None = None
    world_to_cam: Float[Tensor, "v 4 4"] | None = None
    intrinsics: Float[Tensor, "v 3 3"] | None = None
    rays: Float[Tensor, "v a b 6"] | None = None
    ray_confidence: Float[Tensor, "v a b"] | None = None
    gaussian_maps: GaussianMaps | None = None
    is_metric: bool = False

    def scaled(self, factor: float) -> Prediction:
        """The same scene `factor` times larger: depth, cameras and Gaussians together."""
        cameras = self.world_to_cam
        if cameras is not None:
            cameras = cameras.clone()
            cameras[:, :3, 3] *= factor
        maps = None if self.gaussian_maps is None else self.gaussian_maps.scaled(factor)
        return replace(self, depth=self.depth * factor, world_to_cam=cameras, gaussian_maps=maps)

    def gaussians(
        self,
        world_to_cam: Float[Tensor, "v 4 4"] | None = None,
        intrinsics: Float[Tensor, "v 3 3"] | None = None,
    ) -> Gaussians:
        """Gaussians in the reference view's frame, with the predicted cameras or with given ones in
        that frame.

        Raises:
            ReconstructionError: the forward pass made no Gaussian maps.
        """
        w2c = self.world_to_cam if world_to_cam is None else world_to_cam
        k = self.intrinsics if intrinsics is None else intrinsics
        if self.gaussian_maps is None or w2c is None or k is None:
            raise ReconstructionError(
                "Gaussians need a model with a Gaussian head run with gaussian_stride set, found no Gaussian maps"
            )
        return gaussians_from_maps(self.gaussian_maps, w2c, k, *self.depth.shape[1:])


class DepthAnything3(nn.Module):
    """The any-view network, or the metric single-view one, by configuration."""

    def __init__(self, config: DepthAnythingConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.backbone.out_dim
        self.backbone = Backbone(config.backbone)
        if config.any_view:
            self.head: DualHead | MetricHead = DualHead(dim, config.head)
            self.cam_enc = CameraEncoder(config.backbone.dim, config.camera_heads)
            self.cam_dec = CameraDecoder(dim)
        else:
            self.head = MetricHead(dim, config.head)
        self.gs_head = GaussianHead(dim, config.head) if config.gaussian_head else None

    def forward(
        self,
        images: Float[Tensor, "v 3 h w"],
        world_to_cam: Float[Tensor, "u 4 4"] | None = None,
        intrinsics: Float[Tensor, "u 3 3"] | None = None,
        options: InferenceOptions | None = None,
    ) -> Prediction:
        """Predict one scene.

        Args:
            images: normalised colour, sides multiples of 14. [v 3 h w]
            world_to_cam: known cameras, normalised by camera.normalise_cameras, or None. [v 4 4]
            intrinsics: theirs, pixels of these images. [v 3 3]
            options: what to compute.

        Raises:
            FrameError: image sides that are no multiples of 14.
            ReconstructionError: cameras of another count, or Gaussians asked of a network without
                that head.
        """
        options = options or InferenceOptions()
        self._require(images, world_to_cam, intrinsics, options)
        height, width = images.shape[2:]
        rows, cols = height // PATCH, width // PATCH
        device = images.device.type
        with torch.autocast(device, torch.bfloat16, enabled=options.autocast and device == "cuda"):
            tokens = None
            if world_to_cam is not None and intrinsics is not None:
                with torch.autocast(device, enabled=False):
                    tokens = self.cam_enc(world_to_cam, intrinsics, height, width)
            features = self.backbone(images, tokens)
        levels = [f.patches for f in features]
        slicing = options.views_per_slice
        with torch.autocast(device, enabled=False):
            if isinstance(self.head, MetricHead):
                metric = self.head(levels, rows, cols, views_per_slice=slicing)
                return _fill_sky(metric.depth, metric.sky >= SKY_THRESHOLD)
            dense = self.head(levels, rows, cols, with_rays=options.with_rays, views_per_slice=slicing)
            w2c, k = decode_cameras(self.cam_dec(features[-1].camera), height, width)
            maps = None
            if options.gaussian_stride is not None and self.gs_head is not None:
                maps = self.gs_head(
                    levels,
                    images,
                    dense.depth,
                    stride=options.gaussian_stride,
                    views_per_slice=slicing,
                )
        return Prediction(
            depth=dense.depth,
            confidence=dense.confidence,
            world_to_cam=w2c,
            intrinsics=k,
            rays=dense.rays,
            ray_confidence=dense.ray_confidence,
            gaussian_maps=maps,
        )

    def _require(
        self,
        images: Tensor,
        world_to_cam: Tensor | None,
        intrinsics: Tensor | None,
        options: InferenceOptions,
    ) -> None:
        if (world_to_cam is None) != (intrinsics is None):
            raise ReconstructionError("known cameras need both poses and intrinsics, found only one of them")
        if world_to_cam is not None and intrinsics is not None:
            if not self.config.any_view:
                raise ReconstructionError("the metric network takes no cameras, found some; leave them out")
            if not len(world_to_cam) == len(intrinsics) == len(images):
                raise ReconstructionError(
                    f"{len(images)} images need as many cameras, found {len(world_to_cam)} poses "
                    "and "
                    f"{len(intrinsics)} intrinsics"
                )
        if options.gaussian_stride is not None and self.gs_head is None:
            raise ReconstructionError(
                "Gaussians were asked of a network without a Gaussian head; use the giant or "
                "nested model, or "
                "unproject its depth"
            )


class NestedDepthAnything3(nn.Module):
    """The any-view network with a metric one beside it: depth, cameras and Gaussians in metres."""

    def __init__(self, config: NestedConfig) -> None:
        super().__init__()
        self.config = config
        self.da3 = DepthAnything3(config.any_view)
        self.da3_metric = DepthAnything3(config.metric)

    def forward(
        self,
        images: Float[Tensor, "v 3 h w"],
        world_to_cam: Float[Tensor, "u 4 4"] | None = None,
        intrinsics: Float[Tensor, "u 3 3"] | None = None,
        options: InferenceOptions | None = None,
    ) -> Prediction:
        """As DepthAnything3.forward, in metres and with sky.

        Raises:
            DepthError: nothing but sky, or no pixel fit to fix the scale.
        """
        options = options or InferenceOptions()
        relative = self.da3(images, world_to_cam, intrinsics, options)
        metric = self.da3_metric(
            images,
            options=InferenceOptions(views_per_slice=options.views_per_slice, autocast=options.autocast),
        )
        factor = metric_scale(relative, metric)
        # The release scales depth and cameras but not the Gaussians (its issue 242); here they stay
        # together.
        scaled = relative.scaled(factor)
        filled = _fill_sky(scaled.depth, metric.sky, limit=SKY_DEPTH_LIMIT_M, always=True)
        confidence = torch.where(metric.sky, torch.ones_like(scaled.confidence), scaled.confidence)
        return replace(scaled, depth=filled.depth, confidence=confidence, sky=metric.sky, is_metric=True)


def metric_scale(relative: Prediction, metric: Prediction) -> float:
    """Metres in one unit of the any-view network: least squares over confident pixels that are not
    sky.

    Raises:
        DepthError: fewer than 10 such pixels, or depth that is not finite.
    """
    if relative.confidence is None or relative.intrinsics is None or metric.sky is None:
        raise DepthError("metric scale needs an any-view prediction and a metric one with sky")
    solid = ~metric.sky
    if int(solid.sum()) <= MIN_SKY_PIXELS:
        raise DepthError(
            f"metric scale needs more than {MIN_SKY_PIXELS} pixels that are not sky, found "
            f"{int(solid.sum())} of "
            f"{solid.numel()}; give frames that see something"
        )
    focal = (relative.intrinsics[:, 0, 0] + relative.intrinsics[:, 1, 1]) / 2
    metres = metric.depth * (focal / CANONICAL_FOCAL)[:, None, None]
    confident = relative.confidence >= quantile(strided(relative.confidence[solid]), 0.5)
    usable = solid & confident & (metres > MIN_METRIC_DEPTH_M) & (relative.depth > MIN_DEPTH)
    usable &= torch.isfinite(metres) & torch.isfinite(relative.depth)
    unit, wanted = relative.depth[usable].double(), metres[usable].double()
    if len(unit) <= MIN_SKY_PIXELS:
        raise DepthError(
            f"metric scale needs more than {MIN_SKY_PIXELS} confident pixels with depth, found "
            f"{len(unit)}; "
            f"the depth is not finite or vanishes"
        )
    return float((wanted @ unit) / (unit @ unit))


def strided(values: Float[Tensor, " n"]) -> Float[Tensor, " m"]:
    """At most about 100,000 values at even distances: quantiles of large maps without a random
    draw.
    """
    return values[:: -(-len(values) // QUANTILE_SAMPLES)]


def _fill_sky(depth: Tensor, sky: Tensor, *, limit: float | None = None, always: bool = False) -> Prediction:
    # Sky gets the 99th percentile of the rest. The metric network alone leaves a handful of pixels
    # as they are.
    few = int(sky.sum()) <= MIN_SKY_PIXELS or int((~sky).sum()) <= MIN_SKY_PIXELS
    if (few and not always) or not sky.any():
        return Prediction(depth=depth, sky=sky)
    far = quantile(strided(depth[~sky]), 0.99)
    far = far if limit is None else far.clamp(max=limit)
    return Prediction(depth=torch.where(sky, far, depth), sky=sky)


def build_model(
    config: DepthAnythingConfig | NestedConfig, state: Mapping[str, Tensor]
) -> DepthAnything3 | NestedDepthAnything3:
    """A model that takes over the tensors of a state dict, without memory of its own.

    Args:
        config: the architecture.
        state: every key of it, no other (an optional leading "model." is dropped).

    Raises:
        StateDictError: keys missing, unexpected or of a wrong shape; all are listed.
    """
    with torch.device("meta"):
        model = NestedDepthAnything3(config) if isinstance(config, NestedConfig) else DepthAnything3(config)
    wanted = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    if all(name.startswith("model.") for name in state):
        state = {name.removeprefix("model."): t for name, t in state.items()}
    problems = [f"missing {name} {shape}" for name, shape in wanted.items() if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in wanted]
    problems += [
        f"{name}: wanted {wanted[name]}, found {tuple(t.shape)}"
        for name, t in state.items()
        if name in wanted and tuple(t.shape) != wanted[name]
    ]
    if problems:
        raise StateDictError(
            f"the weights do not fit this Depth Anything 3 architecture ({len(problems)} "
            "problems); check that "
            f"preset and file belong together:\n" + "\n".join(problems)
        )
    model.load_state_dict(dict(state), assign=True)
    return model.eval()


def store_half(model: DepthAnything3 | NestedDepthAnything3) -> None:
    """Keep in bfloat16 what autocast rounds to it at every pass anyhow: the same results from half the memory, on CUDA.

    Norms, gains, positions, camera tokens and all heads stay in float32.
    """
    for network in model.modules():
        if isinstance(network, VisionTransformer):
            for layer in (*network.patch_embed.modules(), *network.blocks.modules()):
                if isinstance(layer, nn.Linear | nn.Conv2d):
                    layer.to(torch.bfloat16)


def random_state(
    config: DepthAnythingConfig | NestedConfig,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
) -> dict[str, Tensor]:
    """Weights to start training from, or to measure with: norms and gains 1, biases 0, the rest by
    fan-in.
    """
    with torch.device("meta"):
        model = NestedDepthAnything3(config) if isinstance(config, NestedConfig) else DepthAnything3(config)
    state = {}
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            shape, leaf = parameter.shape, name.rsplit(".", 1)[-1]
            if leaf == "bias":
                state[name] = torch.zeros(shape, device=device)
            elif isinstance(module, nn.LayerNorm | LayerScale):
                state[name] = torch.ones(shape, device=device)
            else:
                noise = torch.randn(shape, generator=generator, device=device)
                fan_in = parameter[0].numel() if parameter.ndim in (2, 4) else 2500
                state[name] = noise / fan_in**0.5
    return state
