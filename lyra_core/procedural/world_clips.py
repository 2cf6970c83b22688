"""Short clips of procedural worlds for training, from a library of scenes and long camera paths on one device."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.errors import CameraPathError, ConfigError
from lyra_core.procedural.atlas import Atlas
from lyra_core.procedural.scene_batch import SceneBatch
from lyra_core.procedural.scenes import sample_scene
from lyra_core.procedural.views import sample_path
from lyra_core.procedural.workers import preparing, spread
from lyra_core.procedural.worlds import Frames, render_color, render_frames
from lyra_core.replacing import replacing

TRAINING_PATHS = ("wander", "wander", "wander", "wander-and-return", "orbit-left", "pan-right", "truck-left", "zoom-in")
LONG_TRAINING_PATHS = (
    "wander",
    "wander-and-return",
    "out-and-back",
    "pan-left",
    "wander",
    "orbit-right",
    "dolly-in",
    "wander-and-return",
    "pan-right",
    "truck-left",
    "orbit-left",
    "zoom-out",
    "wander",
    "arc-right",
    "truck-right",
    "walk-forward-and-look-back",
    "wander-and-return",
)


WIDE_TRAINING_PATHS = (
    "pan-left",
    "wander",
    "truck-right",
    "pan-right",
    "wander",
    "orbit-left",
    "pan-left",
    "dolly-in",
    "wander-and-return",
    "walk-forward-and-look-back",
    "pan-right",
    "wander",
    "truck-left",
    "out-and-back",
    "orbit-right",
    "pan-right",
    "zoom-out",
    "wander",
    "pan-left",
)
"""More pans, turns and one-way paths: what they show was mostly never seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathPlan:
    """Camera paths of a library.

    Attributes:
        num_frames: frames of each.
        names: kinds of paths, one after the other over scenes and takes.
        takes: paths a scene.
        max_stride: clips take every first to `max_stride`-th frame.
    """

    num_frames: int = 65
    names: tuple[str, ...] = TRAINING_PATHS
    takes: int = 2
    max_stride: int = 3


SHORT_PATHS = PathPlan()
LONG_PATHS = PathPlan(num_frames=241, names=LONG_TRAINING_PATHS, max_stride=8)
"""Three chunks of the video network and their seed."""
WIDE_PATHS = PathPlan(num_frames=241, names=WIDE_TRAINING_PATHS, max_stride=8)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """One scene whose paths are to be found."""

    seed: int
    split: str
    plan: PathPlan
    size: tuple[int, int]


def _sample_views(request: _Request) -> Views | None:
    """Camera paths through a scene, or None where no camera finds a clear place."""
    scene, plan = sample_scene(request.seed, request.split), request.plan
    poses, intrinsics = [], []
    for take in range(plan.takes):
        name = plan.names[(request.seed + take) % len(plan.names)]
        try:
            path = sample_path(scene, name, plan.num_frames, *request.size, take=take)
        except CameraPathError:
            return None
        poses.append(path.cam_to_world.numpy().astype(np.float32))
        intrinsics.append(path.intrinsics[0].numpy().astype(np.float32))
    return Views(seed=request.seed, cam_to_world=np.stack(poses), intrinsics=np.stack(intrinsics))


def sample_views(
    seeds: range, split: str, plan: PathPlan, size: tuple[int, int], workers: Executor | None = None
) -> list[Views]:
    """Camera paths through the scenes of some seeds; scenes without a clear place for a camera are left out."""
    requests = [_Request(seed=seed, split=split, plan=plan, size=size) for seed in seeds]
    return [views for views in spread(_sample_views, requests, workers) if views is not None]


def search_views(
    path: Path, scenes: dict[str, int], plan: PathPlan, size: tuple[int, int], workers: int | None = None
) -> None:
    """Search camera paths through scenes 0, 1, ... of each split and keep them in a file.

    Args:
        path: the file (.npz).
        scenes: how many of each split.
        plan: of the paths.
        size: rows and columns of the frames.
        workers: processes that search; None for most of the machine's cores.
    """
    with preparing(workers) as pool:
        views = {split: sample_views(range(count), split, plan, size, pool) for split, count in scenes.items()}
    save_views(path, views)


def save_views(path: Path, views: dict[str, list[Views]]) -> None:
    """Keep camera paths by split: the search for them takes longer than everything else a run prepares.

    The file appears whole: runs side by side share it, and none reads what another is still writing.
    """
    arrays: dict[str, np.ndarray] = {}
    for split, some in views.items():
        arrays[f"{split}.seed"] = np.array([v.seed for v in some])
        pose = np.stack([v.cam_to_world for v in some])[..., :3, :]
        # the third row of a rotation follows from the others
        arrays[f"{split}.pose"] = np.delete(pose.reshape(*pose.shape[:-2], 12), (8, 9, 10), axis=-1)
        arrays[f"{split}.intrinsics"] = np.stack([v.intrinsics for v in some])
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load_views(path: Path, split: str) -> list[Views]:
    """Camera paths as saved.

    Raises:
        ConfigError: no such file, or no paths of this split in it.
    """
    if not path.is_file():
        raise ConfigError(f"camera paths are read from {path}, which is no file; make it with `lyra train views`")
    with np.load(path) as file:
        if f"{split}.seed" not in file:
            raise ConfigError(f"{path} has no camera paths of split {split!r}; make it with `lyra train views`")
        seeds, rows, intrinsics = (file[f"{split}.{name}"] for name in ("seed", "pose", "intrinsics"))
    pose = np.zeros((*rows.shape[:-1], 4, 4), dtype=np.float32)
    first, second = rows[..., :4], rows[..., 4:8]
    pose[..., 0, :], pose[..., 1, :] = first, second
    pose[..., 2, :3] = np.cross(first[..., :3], second[..., :3])
    pose[..., 2, 3], pose[..., 3, 3] = rows[..., 8], 1.0
    return [
        Views(seed=int(seed), cam_to_world=poses, intrinsics=K)
        for seed, poses, K in zip(seeds, pose, intrinsics, strict=True)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldShelf:
    """Scenes of one sort of ground with their cameras.

    Attributes:
        scenes: padded to equal numbers of shapes.
        cam_to_world: [scenes takes t 4 4] float32
        intrinsics: [scenes takes 3 3] float32
        captions: of the scenes.
    """

    scenes: SceneBatch
    cam_to_world: Float[Tensor, "n k t 4 4"]
    intrinsics: Float[Tensor, "n k 3 3"]
    captions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnClips:
    """Clips chosen and not yet rendered.

    Attributes:
        scenes: one a clip.
        cam_to_world: [b t 4 4] float32
        intrinsics: [b t 3 3] float32
        captions: of the scenes.
    """

    scenes: SceneBatch
    cam_to_world: Float[Tensor, "b t 4 4"]
    intrinsics: Float[Tensor, "b t 3 3"]
    captions: tuple[str, ...]


class WorldLibrary:
    """Scenes of a split with their camera paths, flat and wavy ground apart, on one device."""

    def __init__(
        self,
        seeds: range,
        split: str,
        atlas: Atlas,
        *,
        size: tuple[int, int],
        plan: PathPlan = SHORT_PATHS,
        views: Sequence[Views] | None = None,
    ) -> None:
        """Sample scenes and paths.

        Args:
            seeds: of the scenes.
            split: "train" or "heldout".
            atlas: of the split; its device is where clips are rendered.
            size: rows and columns of frames.
            plan: camera paths.
            views: the paths, if they are known already (of the plan's length); seeds without are left out.

        Raises:
            ConfigError: no scene of the seeds has a place for a camera.
        """
        self.size, self.plan = size, plan
        device = atlas.texels.device
        usable = sample_views(seeds, split, plan, size) if views is None else [v for v in views if v.seed in seeds]
        pairs = [(sample_scene(v.seed, split), v) for v in usable]
        self.shelves: list[WorldShelf] = []
        for is_flat in (True, False):
            some = [(scene, v) for scene, v in pairs if scene.is_flat == is_flat]
            if some:
                self.shelves.append(
                    WorldShelf(
                        scenes=SceneBatch.of([scene for scene, _ in some], atlas),
                        cam_to_world=torch.from_numpy(np.stack([v.cam_to_world for _, v in some])).to(device),
                        intrinsics=torch.from_numpy(np.stack([v.intrinsics for _, v in some])).to(device),
                        captions=tuple(scene.caption for scene, _ in some),
                    )
                )
        if not self.shelves:
            raise ConfigError(f"no scene of seeds {seeds} ({split}) has a clear place for a camera; use more seeds")
        self.sizes = torch.tensor([len(shelf.scenes) for shelf in self.shelves], dtype=torch.float32)

    def draw(self, count: int, num_frames: int, generator: torch.Generator, *, speed: int | None = None) -> DrawnClips:
        """Clips of scenes from one shelf, in proportion to its size; arguments as those of `frames`."""
        shelf = self.shelves[int(torch.multinomial(self.sizes, 1, generator=generator))]
        device = shelf.cam_to_world.device
        scene = torch.randint(len(shelf.scenes), (count,), generator=generator)
        take = torch.randint(shelf.cam_to_world.shape[1], (count,), generator=generator)
        last = self.plan.num_frames - 1
        most = max(1, last // max(1, num_frames - 1))
        stride = torch.randint(1, min(self.plan.max_stride, most) + 1, (count,), generator=generator)
        if speed is not None:
            stride = torch.full_like(stride, speed)
        room = last - stride * (num_frames - 1)
        start = (torch.rand(count, generator=generator) * (room + 1)).floor().long()
        index = start[:, None] + stride[:, None] * torch.arange(num_frames)
        captions = tuple(shelf.captions[i] for i in scene.tolist())
        scene, take, index = scene.to(device), take.to(device), index.to(device)
        cam_to_world = shelf.cam_to_world[scene[:, None], take[:, None], index]
        intrinsics = shelf.intrinsics[scene, take][:, None].expand(-1, num_frames, -1, -1).contiguous()
        return DrawnClips(
            scenes=shelf.scenes[scene], cam_to_world=cam_to_world, intrinsics=intrinsics, captions=captions
        )

    def every(self, take: int = 0) -> list[DrawnClips]:
        """The whole path of a take of every scene, one item a shelf."""
        return [
            DrawnClips(
                scenes=shelf.scenes,
                cam_to_world=shelf.cam_to_world[:, take],
                intrinsics=shelf.intrinsics[:, take, None].expand(-1, self.plan.num_frames, -1, -1).contiguous(),
                captions=shelf.captions,
            )
            for shelf in self.shelves
        ]

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
            num_frames: frames of each, at most those of the paths.
            generator: on the CPU.
            speed: path frames from frame to frame; None draws 1 to 3, 0 gives stills.
            supersample: rays along each side of a pixel.
        """
        drawn = self.draw(count, num_frames, generator, speed=speed)
        return render_frames(drawn.scenes, drawn.cam_to_world, drawn.intrinsics, *self.size, supersample=supersample)

    @torch.no_grad()
    def clips(
        self, count: int, num_frames: int, generator: torch.Generator, *, speed: int | None = None, supersample: int = 2
    ) -> Float[Tensor, "b t 3 h w"]:
        """As frames, but only colour, sRGB in [0, 1], channels before rows."""
        drawn = self.draw(count, num_frames, generator, speed=speed)
        scenes, poses, intrinsics = drawn.scenes, drawn.cam_to_world, drawn.intrinsics
        # on a CPU one frame of every scene at a time: its steps keep temporaries of all rays
        at_once = num_frames if poses.is_cuda else 1
        pairs = zip(poses.split(at_once, 1), intrinsics.split(at_once, 1), strict=True)
        rgb = torch.cat([render_color(scenes, c, k, *self.size, supersample=supersample) for c, k in pairs], 1)
        return rgb.permute(0, 1, 4, 2, 3)
