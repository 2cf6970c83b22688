"""Write other programs' formats from a stored world's files; the models that made it are not needed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lyra_core.errors import CatalogError, FormatError, RecipeError
from lyra_core.formats.cameras import read_cameras_parquet, write_colmap_text, write_transforms_json
from lyra_core.formats.clip import iterate_frames
from lyra_core.formats.colmap import write_colmap_binary
from lyra_core.formats.image import write_depth_png, write_jpeg
from lyra_core.formats.points import write_points_ply
from lyra_core.formats.store import Store
from lyra_core.records import WorldRecord
from lyra_core.sensors.cast import Caster
from lyra_core.sensors.rays import pinhole_rays
from lyra_core.values import CameraPath, Gaussians

FRAME_QUALITY = 95  # trainers learn from these pictures


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWorld:
    """A world's files, copied from its store."""

    gaussians: Gaussians
    cameras: CameraPath
    video: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A format that is written later.

    Attributes:
        name: what `lyra export --format` calls it, and its folder in the world's.
        write: writes into a folder that exists and is empty.
    """

    name: str
    write: Callable[[StoredWorld, Path], None]


def find_exports(names: Sequence[str]) -> list[Export]:
    """The exports of some names, each once, in the order of the names.

    Raises:
        RecipeError: a name is not known, or there is none.
    """
    unknown = [name for name in names if name not in EXPORTS]
    if unknown or not names:
        found = ", ".join(repr(name) for name in unknown) or "none"
        raise RecipeError(f"formats to export: wanted some of {', '.join(EXPORTS)}, found {found}")
    return [EXPORTS[name] for name in dict.fromkeys(names)]


def export_world(store: Store, world: WorldRecord, exports: Sequence[Export], folder: Path) -> list[Path]:
    """Write what is missing of a world's exports, each into `folder/<world id>/<format>`.

    A folder of that name is whole: it is written beside its place and renamed. Its files are fetched only if
    something is missing.

    Returns:
        the folders that were written now; those that existed are left as they are.

    Raises:
        CatalogError: it has no Gaussians, cameras or video.
        FormatError: a file is damaged, or the video has another number of frames than the cameras.
        StoreError: a file cannot be read.
    """
    home = folder / world.world_id
    missing = [export for export in exports if not (home / export.name).exists()]
    if not missing:
        return []
    keys = {a.role: a.key for a in world.artifacts}
    video = "lossless" if "lossless" in keys else "video"
    lacking = [role for role in ("ply", "cameras", video) if role not in keys]
    if lacking:
        raise CatalogError(
            f"world {world.world_id} cannot be exported: wanted its artifacts ply, cameras and video, found "
            f"{', '.join(keys) or 'none'}; make it again with these"
        )
    home.mkdir(parents=True, exist_ok=True)
    written = []
    with tempfile.TemporaryDirectory(prefix=".export-", dir=home) as name:
        scratch = Path(name)
        fetched = {role: scratch / Path(keys[role]).name for role in ("ply", "cameras", video)}
        for role, path in fetched.items():
            store.get_file(keys[role], path)
        stored = StoredWorld(
            gaussians=Gaussians.load_ply(fetched["ply"]),
            cameras=read_cameras_parquet(fetched["cameras"]),
            video=fetched[video],
        )
        for export in missing:
            unfinished = scratch / f"{export.name}.unfinished"
            unfinished.mkdir()
            export.write(stored, unfinished)
            try:
                unfinished.rename(home / export.name)
            except OSError:
                # Another process finished the same export first.
                if not (home / export.name).is_dir():
                    raise
                shutil.rmtree(unfinished)
                continue
            written.append(home / export.name)
    return written


def write_frames(world: StoredWorld, folder: Path) -> list[str]:
    """Write the stored video's frames as `frame_00000.jpg`, ...; returns the names.

    Raises:
        FormatError: the video cannot be decoded, or has another number of frames than the cameras.
    """
    names = []
    for number, frame in enumerate(iterate_frames(world.video)):
        names.append(f"frame_{number:05d}.jpg")
        write_jpeg(torch.from_numpy(frame), folder / names[-1], quality=FRAME_QUALITY)
    if len(names) != len(world.cameras):
        raise FormatError(
            f"{world.video.name}: wanted one frame for each of {len(world.cameras)} cameras, found {len(names)}; "
            "lyra verify tells whether the stored files are whole"
        )
    return names


def write_depths(world: StoredWorld, folder: Path) -> list[str]:
    """Write the depth of the splats' surface as `frame_00000.png`, ...: 16 bits, thousandths of a unit; the names."""
    caster, names = Caster(world.gaussians), []
    size = (world.cameras.image_height, world.cameras.image_width)
    for number, pose in enumerate(world.cameras.world_to_cam):
        depth = caster.capture(pinhole_rays(world.cameras.intrinsics[number], *size), pose).depth
        names.append(f"frame_{number:05d}.png")
        write_depth_png(depth, folder / names[-1])
    return names


def _write_colmap(world: StoredWorld, folder: Path) -> None:
    names = write_frames(world, folder / "images")
    model = folder / "sparse" / "0"
    write_colmap_text(world.cameras, model, world.gaussians, image_names=names)
    write_colmap_binary(world.cameras, model, names, world.gaussians)


def _write_nerfstudio(world: StoredWorld, folder: Path) -> None:
    names = write_frames(world, folder / "images")
    write_points_ply(world.gaussians, folder / "points.ply")
    write_transforms_json(
        world.cameras,
        folder / "transforms.json",
        [f"images/{name}" for name in names],
        points_file="points.ply",
        depth_paths=[f"depths/{name}" for name in write_depths(world, folder / "depths")],
    )


EXPORTS = {
    export.name: export
    for export in (
        Export(name="colmap", write=_write_colmap),
        Export(name="nerfstudio", write=_write_nerfstudio),
    )
}
