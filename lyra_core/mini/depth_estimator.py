"""The small network as the project's depth estimator and as a source of Gaussians for one chunk of a video.

A single image gets its scale from the network's experience. A window with cameras that move gets it from parallax: the
first image, looked at alone (or depth that is already believed), only says around which depth to search.

Shape legend: t frames, h w pixels of the frames, p q of the network's input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional

from lyra_core.depth import DepthEstimate
from lyra_core.errors import CameraPathError, DepthError, FrameError
from lyra_core.gaussians.depth_anything.budget import Budget
from lyra_core.gaussians.depth_anything.estimator import resize_known, windows
from lyra_core.gaussians.depth_anything.preprocess import resize
from lyra_core.gaussians.lifters import HeadGaussians, Lift
from lyra_core.geometry.alignment import scale_from_overlap
from lyra_core.geometry.camera import DEFAULT_HFOV_DEG, intrinsics_from_hfov
from lyra_core.mini.camera_gaussians import camera_gaussians
from lyra_core.mini.depth import SINGLE_UNIT_M, MiniDepth, MiniPrediction
from lyra_core.values import CameraPath, Gaussians, VideoClip

FAR_QUANTILE = 0.99
MIN_SOLID_PIXELS = 64
UNIT_LIMITS_M = (0.02, 500.0)
SETTLED_LOG = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What the network sees in frames, at its own size and on its device.

    Attributes:
        depth_m: z-depth; sky has the 99th percentile of the rest. [t p q]
        confidence: 0 to 1. [t p q]
        sky: [t p q]
        raw: the Gaussian head's numbers, or None. [t 12 p q]
    """

    depth_m: Float[Tensor, "t p q"]
    confidence: Float[Tensor, "t p q"]
    sky: Bool[Tensor, "t p q"]
    raw: Float[Tensor, "t 12 p q"] | None = None


def typical_unit_m(depth_m: Float[Tensor, "*s"], solid: Bool[Tensor, "*s"]) -> float:
    """The unit of a window: the median of its known depth, four metres if next to nothing is known."""
    values = depth_m[solid]
    if len(values) < MIN_SOLID_PIXELS:
        return SINGLE_UNIT_M
    return min(max(float(values.median()), UNIT_LIMITS_M[0]), UNIT_LIMITS_M[1])


@torch.no_grad()
def see_single(
    model: MiniDepth,
    images: Float[Tensor, "t 3 p q"],
    intrinsics: Float[Tensor, "t 3 3"],
    *,
    with_gaussians: bool = False,
    is_mirrored: bool = True,
) -> Sight:
    """Frames looked at one by one.

    Args:
        model: in eval mode.
        images: sRGB in 0..1, sides multiples of 8.
        intrinsics: pixels of these images.
        with_gaussians: also the Gaussian head.
        is_mirrored: depth, confidence and sky are means with those of the mirrored images (AbsRel 0.246 -> 0.233).
    """
    prediction = model(images[:, None], intrinsics[:, None], with_gaussians=with_gaussians)
    if is_mirrored:
        turned = intrinsics.clone()
        turned[:, 0, 2] = images.shape[3] - intrinsics[:, 0, 2]
        other = model(images.flip(3)[:, None], turned[:, None])
        prediction = replace(
            prediction,
            log_depth=0.5 * (prediction.log_depth + other.log_depth.flip(3)),
            log_confidence=0.5 * (prediction.log_confidence + other.log_confidence.flip(3)),
            sky_logit=0.5 * (prediction.sky_logit + other.sky_logit.flip(3)),
        )
    return _sight(prediction, SINGLE_UNIT_M, dim=1)


@torch.no_grad()
def see_window(
    model: MiniDepth,
    images: Float[Tensor, "t 3 p q"],
    intrinsics: Float[Tensor, "t 3 3"],
    world_to_cam: Float[Tensor, "t 4 4"],
    unit_m: float | None = None,
    *,
    with_gaussians: bool = False,
) -> Sight:
    """Frames with known cameras looked at together.

    Args:
        model: in eval mode.
        images: sRGB in 0..1, sides multiples of 8.
        intrinsics: pixels of these images.
        world_to_cam: metres.
        unit_m: typical depth of the scene, as known; None looks at the first image alone.
        with_gaussians: also the Gaussian head.
    """
    if unit_m is None:
        first = see_single(model, images[:1], intrinsics[:1])
        guess = typical_unit_m(first.depth_m, ~first.sky)
        sight = see_window(model, images, intrinsics, world_to_cam, guess, with_gaussians=with_gaussians)
        # Parallax knows better than a single look; where they disagree, search around what parallax says.
        unit_m = typical_unit_m(sight.depth_m[:1], ~sight.sky[:1])
        if abs(math.log(unit_m / guess)) < SETTLED_LOG:
            return sight
    relative = (world_to_cam.double() @ torch.linalg.inv(world_to_cam[:1].double())).float()
    relative = torch.cat(
        [relative[:, :, :3], relative[:, :, 3:] / relative.new_tensor([unit_m] * 3 + [1.0])[:, None]], 2
    )
    prediction = model(images[None], intrinsics[None].float(), relative[None], with_gaussians=with_gaussians)
    return _sight(prediction, unit_m, dim=0)


def _sight(found: MiniPrediction, unit_m: float, dim: int) -> Sight:
    depth = (found.log_depth.float().exp() * unit_m).squeeze(dim)
    sky = (found.sky_logit > 0).squeeze(dim)
    solid = depth[~sky]
    if len(solid) >= MIN_SOLID_PIXELS:
        far = solid[:: -(-len(solid) // 100_000)].float().quantile(FAR_QUANTILE)
        depth = torch.where(sky, torch.maximum(far, depth), depth)
    confidence = found.log_confidence.float().sigmoid()  # one half for an expected error of a tenth
    raw = None if found.gaussians is None else found.gaussians.squeeze(dim)
    return Sight(depth_m=depth, confidence=confidence.squeeze(dim), sky=sky, raw=raw)


class MiniDepthEstimator:
    """Implements lyra_core.depth.DepthEstimator with the small network.

    Args:
        model: in eval mode, on its device.
        height: rows of the network's input, a multiple of 8.
        width: columns of it.
        views: frames looked at together.
        overlap: frames that neighbouring windows share.
    """

    def __init__(
        self, model: MiniDepth, *, height: int = 128, width: int = 224, views: int = 8, overlap: int = 2
    ) -> None:
        self.model, self.height, self.width, self.views, self.overlap = model, height, width, views, overlap

    def estimate(
        self,
        frames: UInt8[Tensor, "t h w 3"],
        cameras: CameraPath | None,
        reference_depth_m: Float[Tensor, "t h w"] | None = None,
    ) -> DepthEstimate:
        """Depth of frames; see lyra_core.depth.DepthEstimator.

        Where depth is already believed of a share of the pixels, the result has its scale. Without cameras frames are
        looked at one by one, with a horizontal field of view of 55 degrees.

        Raises:
            FrameError: no frame.
            CameraPathError: cameras of another count or size.
            DepthError: reference depth of another shape, or weights that give no finite depth.
        """
        _require(frames, cameras, reference_depth_m)
        height, width = (int(x) for x in frames.shape[1:3])
        single_K = intrinsics_from_hfov(DEFAULT_HFOV_DEG, height, width)[None].expand(len(frames), 3, 3)
        known = cameras or CameraPath(
            world_to_cam=torch.eye(4, dtype=torch.float64).repeat(len(frames), 1, 1),
            intrinsics=single_K,
            image_height=height,
            image_width=width,
        )
        parts: list[Sight] = []
        done = 0
        spans = windows(len(frames), self.views, self.overlap) if cameras is not None else _single(len(frames))
        for span in spans:
            reference = None if reference_depth_m is None else reference_depth_m[span]
            sight = self.look(frames[span], known[span], reference, is_posed=cameras is not None)
            if not bool(torch.isfinite(sight.depth_m).all()):
                raise DepthError(
                    f"depth must be finite, found NaN or infinity in frames from {span.start}; check weights"
                )
            own = slice(done - span.start, None)
            parts.append(Sight(depth_m=sight.depth_m[own], confidence=sight.confidence[own], sky=sight.sky[own]))
            done = span.stop
        depth, confidence, sky = (
            torch.cat([getattr(p, name) for p in parts]) for name in ("depth_m", "confidence", "sky")
        )
        # Between a near and a far pixel inverse depth is what images are linear in.
        return DepthEstimate(
            depth_m=1.0 / _enlarge(1.0 / depth.clamp_min(1e-6), height, width),
            confidence=_enlarge(confidence, height, width),
            sky=_enlarge(sky.float(), height, width) > 0.5,
            cameras=None,
            intrinsics=None if cameras is not None else single_K.contiguous(),
        )

    def look(
        self,
        frames: UInt8[Tensor, "t h w 3"],
        cameras: CameraPath,
        reference_depth_m: Float[Tensor, "t h w"] | None = None,
        *,
        is_posed: bool = True,
        with_gaussians: bool = False,
    ) -> Sight:
        """One window at the network's size, scaled to the reference where there is one."""
        device = next(self.model.parameters()).device
        images = self.images(frames)
        K = cameras.resized(self.height, self.width).intrinsics.to(device, torch.float32)
        reference, unit = None, None
        if reference_depth_m is not None and int((reference_depth_m > 0).sum()) >= MIN_SOLID_PIXELS:
            reference = resize_known(reference_depth_m.float().to(device), self.height, self.width)
            unit = typical_unit_m(reference, reference > 0)
        if is_posed and len(frames) > 1:
            w2c = cameras.world_to_cam.to(device)
            sight = see_window(self.model, images, K, w2c, unit, with_gaussians=with_gaussians)
        else:
            sight = see_single(self.model, images, K, with_gaussians=with_gaussians)
        if reference is None or int((reference > 0).sum()) < MIN_SOLID_PIXELS:
            return sight
        factor = scale_from_overlap(sight.depth_m, reference, sight.confidence * ~sight.sky + 1e-6)
        return Sight(depth_m=sight.depth_m * factor, confidence=sight.confidence, sky=sight.sky, raw=sight.raw)

    def images(self, frames: UInt8[Tensor, "t h w 3"]) -> Float[Tensor, "t 3 p q"]:
        """Frames as the network wants them: its size, 0..1, on its device."""
        device = next(self.model.parameters()).device
        pictures = frames.to(device).permute(0, 3, 1, 2).float() / 255.0
        return resize(pictures, (self.height, self.width)).clamp(0.0, 1.0)


class MiniHead:
    """Lifts a chunk with the small network's own Gaussians.

    Args:
        estimator: the network.
        name: identifies the weights.
        min_opacity: fainter Gaussians are not even stored.
    """

    needs_baseline = False

    def __init__(self, estimator: MiniDepthEstimator, *, name: str, min_opacity: float = 0.05) -> None:
        self._estimator, self.name, self._min_opacity = estimator, f"mini-head-{name}", min_opacity

    def lift(self, clip: VideoClip, reference_depth_m: Tensor | None, budget: Budget) -> Lift:  # noqa: ARG002
        """Depth and Gaussians of the chunk's frames, looked at in windows.

        Raises:
            DepthError: depth that is not finite.
        """
        made = self._estimator
        height, width = (int(x) for x in clip.frames.shape[1:3])
        spans = windows(len(clip), made.views, made.overlap)
        depths, trusts, skies, parts, frames, spacings = [], [], [], [], [], []
        done = 0
        for span in spans:
            reference = None if reference_depth_m is None else reference_depth_m[span]
            cameras = clip.cameras[span]
            sight = made.look(clip.frames[span], cameras, reference, with_gaussians=True)
            if sight.raw is None or not bool(torch.isfinite(sight.depth_m).all()):
                raise DepthError(f"the head gives no finite depth for frames from {span.start}; check the weights")
            K = cameras.resized(made.height, made.width).intrinsics.to(sight.depth_m)
            pictures = made.images(clip.frames[span])
            for t in range(done - span.start, span.stop - span.start):
                one = slice(t, t + 1)
                local = camera_gaussians(sight.raw[one], sight.depth_m[one], pictures[one], K[one])
                keep = (local.opacities >= self._min_opacity) & ~sight.sky[t].flatten()
                parts.append(local[keep].to("cpu"))
                spacings.append(parts[-1].means[:, 2] / float(K[t, 0, 0]))
                frames.append(torch.full((len(parts[-1]),), span.start + t))
            own = slice(done - span.start, None)
            depths.append(sight.depth_m[own])
            trusts.append(sight.confidence[own])
            skies.append(sight.sky[own].float())
            done = span.stop
        return Lift(
            depth_m=1.0 / _enlarge(1.0 / torch.cat(depths).clamp_min(1e-6), height, width),
            confidence=_enlarge(torch.cat(trusts), height, width),
            sky=_enlarge(torch.cat(skies), height, width) > 0.5,
            head=HeadGaussians(
                gaussians=Gaussians.concatenate(parts), frame=torch.cat(frames), spacing_m=torch.cat(spacings)
            ),
        )


def _single(count: int) -> list[slice]:
    return [slice(i, i + 1) for i in range(count)]


def _enlarge(maps: Tensor, height: int, width: int) -> Tensor:
    maps = functional.interpolate(maps[:, None].float(), size=(height, width), mode="bilinear", align_corners=False)
    return maps[:, 0].cpu()


def _require(frames: Tensor, cameras: CameraPath | None, reference: Tensor | None) -> None:
    if len(frames) < 1:
        raise FrameError("depth estimation needs at least one frame, found none")
    size = tuple(frames.shape[1:3])
    if cameras is not None and len(cameras) != len(frames):
        raise CameraPathError(
            f"depth estimation needs one camera a frame: {len(frames)} frames, {len(cameras)} cameras"
        )
    if cameras is not None and (cameras.image_height, cameras.image_width) != size:
        raise CameraPathError(
            f"cameras are for {cameras.image_width}x{cameras.image_height} images, frames are {size[1]}x{size[0]}; "
            f"call cameras.resized({size[0]}, {size[1]})"
        )
    if reference is not None and reference.shape != frames.shape[:3]:
        raise DepthError(f"reference depth must be {tuple(frames.shape[:3])}, found {tuple(reference.shape)}")
