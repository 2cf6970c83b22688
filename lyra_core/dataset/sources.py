"""Where frames come from: the stored video of a world, or its Gaussians along a new camera path."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lyra_core.dataset.cache import FileCache
from lyra_core.errors import CatalogError, ConfigError
from lyra_core.formats.cameras import read_cameras_parquet
from lyra_core.formats.clip import read_frames
from lyra_core.formats.store import Store
from lyra_core.geometry.camera_paths import build_camera_path, measure_scene_depth_m
from lyra_core.geometry.requests import require_preset
from lyra_core.geometry.rotation import invert_rigid
from lyra_core.sensors.cast import Caster
from lyra_core.sensors.rays import pinhole_rays
from lyra_core.values import CameraPath, Gaussians


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldEntry:
    """The columns of a world that its frames need; see docs/catalog.md."""

    world_id: str
    seed_sha256: str | None
    num_frames: int | None
    width: int | None
    height: int | None
    video_uri: str | None
    cameras_uri: str | None
    ply_uri: str | None
    meters_per_unit: float | None
    metric_scale_source: str | None
    scale_confidence: float | None

    @classmethod
    def columns(cls) -> list[str]:
        """Their names."""
        return [field.name for field in fields(cls)]

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> WorldEntry:
        """The entry of a row."""
        return cls(**{name: row[name] for name in cls.columns()})

    def key(self, column: str) -> str:
        """The key of one of its files.

        Raises:
            CatalogError: the world has no such file.
        """
        found = getattr(self, column)
        if found is None:
            raise CatalogError(
                f"world {self.world_id} has no {column.removesuffix('_uri')}, which its frames need; leave it out with "
                f'where("{column} IS NOT NULL"), or make it again with that artifact'
            )
        return str(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPaths:
    """Camera paths to render worlds along.

    Attributes:
        names: presets (docs/extending.md, lyra run --camera-path).
        num_frames: of each path.
        strength: how far the camera goes; 1 as in a video.
    """

    names: tuple[str, ...]
    num_frames: int = 81
    strength: float = 1.0

    def __post_init__(self) -> None:
        for name in self.names:
            require_preset(name)
        if not self.names or self.num_frames < 1 or not (math.isfinite(self.strength) and self.strength > 0):
            raise ConfigError(f"new paths need names, frames and a positive strength, found {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One frame before it becomes a sample."""

    image: UInt8[np.ndarray, "h w 3"]
    depth: Float[Tensor, "h w"] | None
    intrinsics: Float[Tensor, "3 3"]
    cam_to_world: Float[Tensor, "4 4"]


class FrameSource:
    """Loads frames of worlds, in this process.

    Args:
        store: where worlds lie.
        cache: of their files and of depth.
        paths: new camera paths, or None for the stored videos.
        depth: whether depth is wanted.
        size: height and width of the frames, or None for those stored.
    """

    def __init__(
        self, store: Store, cache: FileCache, *, paths: NewPaths | None, depth: bool, size: tuple[int, int] | None
    ) -> None:
        self.store, self.cache, self.paths, self.depth, self.size = store, cache, paths, depth, size

    def load(
        self, entry: WorldEntry, path_name: str, frames: Sequence[int]
    ) -> Iterator[tuple[int, Callable[[], Picture]]]:
        """Frames of a world, in ascending order, decoded; rays are cast when a picture is called for.

        Args:
            entry: the world.
            path_name: of the new path; "" for the stored video.
            frames: their numbers, ascending.

        Raises:
            CatalogError: the world lacks a file, or has fewer cameras than frames.
            FormatError: a file is damaged.
            StoreError: a file cannot be read.
        """
        stored = read_cameras_parquet(self.cache.fetch(self.store, entry.key("cameras_uri")))
        if self.size is not None:
            stored = stored.resized(*self.size)
        caster = _LateCaster(self, entry)
        if self.paths is not None:
            path = self._path(caster, stored, path_name, self.paths)
            for frame in frames:
                yield frame, partial(self._rendered, caster, path, frame)
            return
        if frames and frames[-1] >= len(stored):
            raise CatalogError(
                f"world {entry.world_id}: wanted a camera for frame {frames[-1]}, found {len(stored)}; lyra verify "
                "tells whether its files are whole"
            )
        video = self.cache.fetch(self.store, entry.key("video_uri"))
        size = (stored.image_height, stored.image_width)
        for frame, image in read_frames(video, frames, size=size, threads=0 if _is_main() else 1):
            yield frame, partial(self._stored, caster, stored, frame, image)

    def _stored(self, caster: _LateCaster, path: CameraPath, frame: int, image: np.ndarray) -> Picture:
        return Picture(
            image=image,
            depth=self._depth(caster, path, frame) if self.depth else None,
            intrinsics=path.intrinsics[frame],
            cam_to_world=invert_rigid(path.world_to_cam[frame]),
        )

    def _rendered(self, caster: _LateCaster, path: CameraPath, frame: int) -> Picture:
        rays = pinhole_rays(path.intrinsics[frame], path.image_height, path.image_width)
        cast = caster.ready().capture(rays, path.world_to_cam[frame])
        return Picture(
            image=(cast.color * 255).round().byte().numpy(),
            depth=cast.depth if self.depth else None,
            intrinsics=path.intrinsics[frame],
            cam_to_world=invert_rigid(path.world_to_cam[frame]),
        )

    def _path(self, caster: _LateCaster, stored: CameraPath, name: str, paths: NewPaths) -> CameraPath:
        """A preset from the world's first camera, scaled by how far its surfaces are there."""
        size = (stored.image_height, stored.image_width)
        first = caster.ready().capture(pinhole_rays(stored.intrinsics[0], *size), stored.world_to_cam[0])
        return build_camera_path(
            name,
            num_frames=paths.num_frames,
            intrinsics=stored.intrinsics[0],
            image_height=size[0],
            image_width=size[1],
            scene_depth_m=measure_scene_depth_m(first.depth),
            strength=paths.strength,
            any_count=True,
        )

    def _depth(self, caster: _LateCaster, path: CameraPath, frame: int) -> Tensor:
        """Casting takes far longer than decoding, so depth is kept beside the copies of files."""
        size = (path.image_height, path.image_width)

        def write(file: Path) -> None:
            rays = pinhole_rays(path.intrinsics[frame], *size)
            depth = caster.ready().capture(rays, path.world_to_cam[frame]).depth
            with file.open("wb") as target:
                np.save(target, depth.numpy())

        # The upload's folder is part of the name: the same id may have been stored twice.
        upload = caster.entry.key("ply_uri").split("/")[-2]
        name = f"depth1-{caster.entry.world_id}-{upload}-{size[0]}x{size[1]}-{frame:05d}.npy"
        return torch.from_numpy(np.load(self.cache.make(name, write)))


class _LateCaster:
    """Reads a world's Gaussians when the first ray is cast."""

    def __init__(self, source: FrameSource, entry: WorldEntry) -> None:
        self.source, self.entry, self._caster = source, entry, None

    _caster: Caster | None

    def ready(self) -> Caster:
        if self._caster is None:
            file = self.source.cache.fetch(self.source.store, self.entry.key("ply_uri"))
            self._caster = Caster(Gaussians.load_ply(file), parallel=_is_main())
        return self._caster


def _is_main() -> bool:
    return torch.utils.data.get_worker_info() is None
