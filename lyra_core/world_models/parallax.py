"""The baseline world model: a photograph in motion and its Gaussians, without weights and without chance.

The video is drawn from the Gaussians, so both agree by construction; frame 0 is the photograph itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from lyra_core.errors import ReconstructionError
from lyra_core.formats.image import open_image
from lyra_core.gaussians.rasterize import Rasterizer
from lyra_core.gaussians.reconstruct import ReconstructionReport
from lyra_core.geometry.seed_cameras import cameras_for_seed
from lyra_core.identity import ALGORITHM_VERSION
from lyra_core.layered_depth.depth import SKY_DEPTH_M, ParallaxDepth, photo_depth
from lyra_core.layered_depth.layers import build_layers
from lyra_core.native import FRAMES_PER_SECOND, Native
from lyra_core.provenance import Provenance
from lyra_core.values import CameraPath, Gaussians, Seed, VideoClip
from lyra_core.world_models.sharpened_splats import build_splats

# Drawn depth beyond this share of the sky's distance is sky.
SKY_SHARE = 0.6


class ParallaxModel(ParallaxDepth):
    """A `WorldModel` without learning, and a `DepthEstimator`: the thing to beat, and deterministic."""

    name = "parallax"
    weights_digest = f"parallax-{ALGORITHM_VERSION}"  # no weights: the code is all there is
    native = Native(size=(416, 240))
    # Its depth assumes an eye level and a room's size (lyra_core.layered_depth.depth): no metres.
    provenance = Provenance(precision="float32", metric_scale_source="relative")

    def __init__(self, *, device: str = "cpu") -> None:  # noqa: ARG002 - always the CPU; a GPU worker may run it too
        self._lifted: tuple[bytes, Gaussians] | None = None

    def generate(
        self,
        image: Seed | str | Path | Image.Image | np.ndarray | Tensor,
        camera_path: CameraPath | str,
        *,
        num_frames: int = 81,
        seed: int = 0,  # noqa: ARG002 - part of the protocol; nothing here is random
        prompts: Sequence[str] | None = None,  # noqa: ARG002 - no text enters
        width: int | None = None,
        height: int | None = None,
        on_frame: Callable[[int, int], None] | None = None,
        chunk_ids: Sequence[str] | None = None,  # noqa: ARG002 - idem
        chunk_dir: str | Path | None = None,  # noqa: ARG002 - seconds of work are not worth keeping
    ) -> VideoClip:
        """The photograph seen along a camera path whose first camera took it.

        Args:
            image: a photograph, or a seed, whose size then counts.
            camera_path: a preset's name, a trajectory file, or cameras; it stops short of geometry.
            num_frames: length of a preset; of a path, its first frames are used.
            seed: accepted and not used.
            prompts: accepted and not used.
            width: of the frames, pixels; exchanged with the height for photographs of the other orientation. Native
                without both.
            height: of the frames, pixels.
            on_frame: called with (frames done, frames wanted).
            chunk_ids: accepted and not used.
            chunk_dir: accepted and not used.

        Returns:
            A clip whose depth and sky of frame 0 are the estimated ones and of later frames the drawn ones.

        Raises:
            SeedError: the image cannot be used.
            FrameError: one side without the other, or sides shorter than 16 pixels.
            CameraPathError: an unknown preset, or fewer cameras than frames.
        """
        photo = image if isinstance(image, Seed) else open_image(image, *self.native.chosen_size(width, height))
        depth, sky = photo_depth(photo.image, float(photo.intrinsics[1, 1]))
        cameras = cameras_for_seed(
            camera_path, num_frames=num_frames, intrinsics=photo.intrinsics, depth_m=depth, sky=sky
        )
        gaussians = self._lift(photo.image, depth, sky, cameras)
        clip = _film(gaussians, photo.image, cameras, on_frame)
        assert clip.depth_m is not None  # noqa: S101 - _film always gives both
        assert clip.sky is not None  # noqa: S101
        clip.depth_m[0], clip.sky[0] = depth, sky
        return clip

    def reconstruct(
        self,
        clip: VideoClip,
        *,
        chunk_dir: str | Path | None = None,  # noqa: ARG002 - one frame is lifted, in one go
        on_report: Callable[[ReconstructionReport], None] | None = None,  # noqa: ARG002 - no cameras are recovered
    ) -> Gaussians:
        """Gaussians of the clip, lifted from frame 0 and its depth (estimated where the clip has none).

        Raises:
            ReconstructionError: the depth of frame 0 has no positive finite pixel.
        """
        photo, camera = clip.frames[0], clip.cameras[:1]
        if clip.depth_m is None:
            estimate = self.estimate(clip.frames[:1], camera)
            depth, sky = estimate.depth_m[0], estimate.sky[0]
        else:
            depth = clip.depth_m[0].float()
            valid = torch.isfinite(depth) & (depth > 0)
            if not bool(valid.any()):
                raise ReconstructionError(
                    "frame 0 needs depth in metres to be lifted; all of it is zero or not finite. "
                    "Give a clip without depth_m to have it estimated"
                )
            depth = torch.where(valid, depth, 0.0)
            sky = clip.sky[0] if clip.sky is not None else ~valid
        return self._lift(photo, depth, sky, camera)

    def _lift(
        self,
        photo: UInt8[Tensor, "h w 3"],
        depth: Float[Tensor, "h w"],
        sky: Bool[Tensor, "h w"],
        cameras: CameraPath,
    ) -> Gaussians:
        """Gaussians of a photograph and its depth; the last answer is kept, as `reconstruct` asks for it again."""
        inputs = (photo, depth, sky, cameras.world_to_cam[0], cameras.intrinsics[0])
        digest = hashlib.sha256()
        for tensor in inputs:
            digest.update(repr(tuple(tensor.shape)).encode() + tensor.contiguous().numpy().tobytes())
        key = digest.digest()
        if self._lifted is None or self._lifted[0] != key:
            image = photo.float() / 255.0
            with one_torch_thread():
                layers = build_layers(image, depth, sky, cameras.intrinsics[0])
                gaussians = build_splats(layers, image, cameras.world_to_cam[0], cameras.intrinsics[0])
            self._lifted = (key, gaussians)
        return self._lifted[1]


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Sums of the hole filling depend on how torch splits them; one thread makes bytes equal on every machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _film(
    gaussians: Gaussians,
    photo: Tensor,
    cameras: CameraPath,
    on_frame: Callable[[int, int], None] | None,
) -> VideoClip:
    rasterizer = Rasterizer(gaussians)
    shape = (len(cameras), cameras.image_height, cameras.image_width)
    frames = torch.empty(*shape, 3, dtype=torch.uint8)
    depth, sky = torch.empty(shape), torch.empty(shape, dtype=torch.bool)
    for t in range(len(cameras)):
        drawn = rasterizer.draw(cameras.world_to_cam[t], cameras.intrinsics[t], *shape[1:])
        frames[t] = (drawn.color.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
        depth[t], sky[t] = drawn.depth_m, drawn.depth_m > SKY_SHARE * SKY_DEPTH_M
        if on_frame is not None:
            on_frame(t + 1, len(cameras))
    frames[0] = photo
    return VideoClip(frames=frames, cameras=cameras, fps=FRAMES_PER_SECOND, depth_m=depth, sky=sky)
