"""Short clips of procedural worlds for training, from a library of scenes and long camera paths on one device."""

from __future__ import annotations

import functools
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.errors import CameraPathError, ConfigError
from lyra_core.training.atlas import Atlas
from lyra_core.training.ray_cast import Casting
from lyra_core.training.scene_batch import CAPACITY, SceneBatch
from lyra_core.training.scenes import sample_scene
from lyra_core.training.views import sample_path
from lyra_core.training.worlds import Frames, render_color, render_frames

PATH_FRAMES = 65
TRAINING_PATHS = ("wander", "wander", "wander", "wander-and-return", "orbit-left", "pan-right", "truck-left", "zoom-in")
PARALLEL_FROM = 96
"""Scenes from which starting processes pays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """Camera paths through one scene.

    Attributes:
        seed: of the scene.
        cam_to_world: float32. [takes t 4 4]
        intrinsics: float32, pixels; one a take. [takes 3 3]
    """

    seed: int
    cam_to_world: np.ndarray
    intrinsics: np.ndarray


def sample_views(seed: int, split: str, takes: int, height: int, width: int) -> Views | None:
    """Camera paths through a scene, or None where no camera finds a clear place."""
    scene = sample_scene(seed, split)
    poses, intrinsics = [], []
    for take in range(takes):
        name = TRAINING_PATHS[(seed + take) % len(TRAINING_PATHS)]
        try:
            path = sample_path(scene, name, PATH_FRAMES, height, width, take=take)
        except CameraPathError:
            return None
        poses.append(path.cam_to_world.numpy().astype(np.float32))
        intrinsics.append(path.intrinsics[0].numpy().astype(np.float32))
    return Views(seed=seed, cam_to_world=np.stack(poses), intrinsics=np.stack(intrinsics))


def _one_thread() -> None:
    torch.set_num_threads(1)


def _all_views(seeds: range, split: str, takes: int, height: int, width: int, workers: int) -> list[Views]:
    one = functools.partial(sample_views, split=split, takes=takes, height=height, width=width)
    if workers < 2 or len(seeds) < PARALLEL_FROM:
        found = map(one, seeds)
        return [views for views in found if views is not None]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        return [views for views in pool.map(one, seeds, chunksize=8) if views is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldShelf:
    """Scenes of one sort of ground with their cameras.

    Attributes:
        scenes: padded to CAPACITY.
        cam_to_world: [scenes takes t 4 4] float32
        intrinsics: [scenes takes 3 3] float32
    """

    scenes: SceneBatch
    cam_to_world: Float[Tensor, "n k t 4 4"]
    intrinsics: Float[Tensor, "n k 3 3"]


class WorldLibrary:
    """Scenes of a split, flat and wavy apart, that render clips of equal shapes (so that they compile once)."""

    def __init__(
        self,
        seeds: range,
        split: str,
        atlas: Atlas,
        *,
        size: tuple[int, int],
        takes: int = 2,
        workers: int = 1,
        is_compiled: bool = False,
    ) -> None:
        """Sample scenes and paths.

        Args:
            seeds: of the scenes.
            split: "train" or "heldout".
            atlas: of the split; its device is where clips are rendered.
            size: rows and columns of frames.
            takes: camera paths a scene.
            workers: processes that search for cameras.
            is_compiled: compile the renderer (worth it on a GPU).

        Raises:
            ConfigError: no scene of the seeds has a place for a camera.
        """
        self.size = size
        self.casting: Casting = "fused" if is_compiled else "auto"
        device = atlas.texels.device
        views = _all_views(seeds, split, takes, *size, workers)
        pairs = [(sample_scene(v.seed, split), v) for v in views]
        self.shelves: list[WorldShelf] = []
        for is_flat in (True, False):
            some = [(scene, v) for scene, v in pairs if scene.is_flat == is_flat]
            if some:
                capacity = CAPACITY if is_compiled else None
                self.shelves.append(
                    WorldShelf(
                        scenes=SceneBatch.of([scene for scene, _ in some], atlas, capacity=capacity),
                        cam_to_world=torch.from_numpy(np.stack([v.cam_to_world for _, v in some])).to(device),
                        intrinsics=torch.from_numpy(np.stack([v.intrinsics for _, v in some])).to(device),
                    )
                )
        if not self.shelves:
            raise ConfigError(f"no scene of seeds {seeds} ({split}) has a clear place for a camera; use more seeds")
        self.sizes = torch.tensor([len(shelf.scenes) for shelf in self.shelves], dtype=torch.float32)

    def _draw(
        self, count: int, num_frames: int, generator: torch.Generator, speed: int | None
    ) -> tuple[SceneBatch, Tensor, Tensor]:
        """Scenes, cameras to world and intrinsics of clips from one shelf, in proportion to its size."""
        shelf = self.shelves[int(torch.multinomial(self.sizes, 1, generator=generator))]
        device = shelf.cam_to_world.device
        scene = torch.randint(len(shelf.scenes), (count,), generator=generator)
        take = torch.randint(shelf.cam_to_world.shape[1], (count,), generator=generator)
        most = max(1, (PATH_FRAMES - 1) // max(1, num_frames - 1))
        stride = torch.randint(1, min(3, most) + 1, (count,), generator=generator)
        if speed is not None:
            stride = torch.full_like(stride, speed)
        last = PATH_FRAMES - 1 - stride * (num_frames - 1)
        start = (torch.rand(count, generator=generator) * (last + 1)).floor().long()
        index = start[:, None] + stride[:, None] * torch.arange(num_frames)
        scene, take, index = scene.to(device), take.to(device), index.to(device)
        cam_to_world = shelf.cam_to_world[scene[:, None], take[:, None], index]
        intrinsics = shelf.intrinsics[scene, take][:, None].expand(-1, num_frames, -1, -1).contiguous()
        return shelf.scenes[scene], cam_to_world, intrinsics

    @torch.no_grad()
    def frames(
        self,
        count: int,
        num_frames: int,
        generator: torch.Generator,
        *,
        speed: int | None = None,
        supersample: int = 2,
    ) -> Frames:
        """Clips with exact depth.

        Args:
            count: clips.
            num_frames: frames of each, at most PATH_FRAMES.
            generator: on the CPU.
            speed: path frames from frame to frame; None draws 1 to 3, 0 gives stills.
            supersample: rays along each side of a pixel.
        """
        drawn = self._draw(count, num_frames, generator, speed)
        return render_frames(*drawn, *self.size, supersample=supersample, casting=self.casting)

    @torch.no_grad()
    def clips(
        self, count: int, num_frames: int, generator: torch.Generator, *, speed: int | None = None, supersample: int = 2
    ) -> Float[Tensor, "b t 3 h w"]:
        """As frames, but only colour, sRGB in [0, 1], channels before rows."""
        scenes, poses, intrinsics = self._draw(count, num_frames, generator, speed)
        render = functools.partial(render_color, supersample=supersample, casting=self.casting)
        if self.casting == "fused":
            rgb = render(scenes, poses, intrinsics, *self.size)
        else:
            # one frame of every scene at a time: without fusion the temporaries of all would not fit
            pairs = zip(poses.split(1, 1), intrinsics.split(1, 1), strict=True)
            rgb = torch.cat([render(scenes, c, k, *self.size) for c, k in pairs], 1)
        return rgb.permute(0, 1, 4, 2, 3)


def psnr_db(found: Tensor, truth: Tensor) -> Float[Tensor, " b"]:
    """Peak signal-to-noise ratio of each clip in decibels; values in [0, 1]."""
    error = (found.clamp(0, 1) - truth).square().flatten(1).mean(1)
    return -10 * torch.log10(error.clamp(min=math.exp(-30)))
