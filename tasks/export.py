"""Write other programs' formats from a stored world's files; the models that made it are not needed."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lyra_core.errors import CatalogError, FormatError, LyraError, RecipeError
from lyra_core.extras import require
from lyra_core.formats.cameras import write_colmap_text, write_transforms_json
from lyra_core.formats.clip import iterate_frames
from lyra_core.formats.colmap import write_colmap_binary
from lyra_core.formats.compressed_ply import write_compressed_ply
from lyra_core.formats.gltf_splats import write_splat_glb
from lyra_core.formats.image import write_depth_png, write_jpeg
from lyra_core.formats.mesh import write_glb
from lyra_core.formats.mjcf import write_mjcf
from lyra_core.formats.ply import write_full_ply
from lyra_core.formats.points import write_points_ply
from lyra_core.formats.spz import write_spz
from lyra_core.formats.store import Store
from lyra_core.formats.usd import UsdWorld, write_usd, write_usdz
from lyra_core.gaussians.detail_levels import make_detail_levels
from lyra_core.records import WorldRecord
from lyra_core.sensors.cast import Caster
from lyra_core.sensors.rays import pinhole_rays
from lyra_core.values import Part
from tasks.stored_world import StoredWorld, world_facts

FRAME_QUALITY = 95  # trainers learn from these pictures


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A format that is written later.

    Attributes:
        name: what `lyra export --format` calls it, and its folder in the world's.
        write: writes into a folder that exists and is empty.
        artifacts: roles of the files it is made from; no others are fetched.
        packages: optional packages that it needs, by import name.
    """

    name: str
    write: Callable[[StoredWorld, Path], None]
    artifacts: tuple[str, ...] = ("ply",)
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What became of a world's exports.

    Attributes:
        written: folders that were written now; those that existed are left as they are.
        problems: for each format that could not be written, why.
    """

    written: tuple[Path, ...] = ()
    problems: Mapping[str, str] = field(default_factory=dict)


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


def require_packages(exports: Sequence[Export]) -> None:
    """Refuse exports whose optional packages are not installed, before anything is written.

    Raises:
        MissingExtraError: one is not; with the command that installs it.
    """
    for export in exports:
        for package in export.packages:
            require(package, f"exporting {export.name}", "export")


def export_world(store: Store, world: WorldRecord, exports: Sequence[Export], folder: Path) -> Exported:
    """Write what is missing of a world's exports, each into `folder/<world id>/<format>`.

    A folder of that name is whole: it is written beside its place and renamed. Only files that the missing exports need
    are fetched, and what cannot be written does not keep the others from being written.
    """
    home = folder / world.world_id
    missing = [export for export in exports if not (home / export.name).exists()]
    if not missing:
        return Exported()
    home.mkdir(parents=True, exist_ok=True)
    written, problems = [], {}
    with tempfile.TemporaryDirectory(prefix=".export-", dir=home) as name:
        fetched = Path(name) / "fetched"
        fetched.mkdir()
        stored = StoredWorld(store, world, fetched)
        for export in missing:
            unfinished = Path(name) / f"{export.name}.unfinished"
            unfinished.mkdir()
            try:
                _require_artifacts(stored, export)
                export.write(stored, unfinished)
            except LyraError as error:
                problems[export.name] = str(error)
                continue
            try:
                unfinished.rename(home / export.name)
            except OSError:
                # Another process finished the same export first.
                if not (home / export.name).is_dir():
                    raise
                shutil.rmtree(unfinished)
                continue
            written.append(home / export.name)
    if not any(home.iterdir()):
        home.rmdir()
    return Exported(written=tuple(written), problems=problems)


def _require_artifacts(world: StoredWorld, export: Export) -> None:
    lacking = [
        role for role in export.artifacts if not world.has(role) and not (role == "video" and world.has("lossless"))
    ]
    if lacking:
        wanted, found = " and ".join(export.artifacts), [artifact.role for artifact in world.record.artifacts]
        raise CatalogError(
            f"world {world.record.world_id} cannot be exported to {export.name}: wanted its artifacts {wanted}, found "
            f"{', '.join(found) or 'none'}; make it again with these"
        )


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


def _write_gltf(world: StoredWorld, folder: Path) -> None:
    write_splat_glb(world.gaussians, folder / "splats.glb", world.scene.frame.matrix, world_facts(world.record))
    for name, mesh in (("mesh", world.visual_mesh), ("collision", world.collision_mesh)):
        if mesh is not None:
            write_glb(mesh, folder / f"{name}.glb", name)


def _usd_world(world: StoredWorld) -> UsdWorld:
    return UsdWorld(
        gaussians=world.gaussians,
        world_to_ground=world.scene.frame.matrix,
        camera=world.cameras[:1],
        collision=world.collision_mesh,
        facts=world_facts(world.record),
    )


def _write_mjcf(world: StoredWorld, folder: Path) -> None:
    if world.has("mjcf"):
        shutil.copyfile(world.fetch("mjcf"), folder / "world.xml")
        return
    standing = world.scene.mujoco_world()
    if standing is None:
        raise FormatError(f"a MuJoCo world needs a place to stand: {'; '.join(world.scene.reasons)}")
    write_mjcf(standing, folder / "world.xml")


def _write_lod(world: StoredWorld, folder: Path) -> None:
    levels = []
    for level in make_detail_levels(world.gaussians, world.cameras):
        name = f"level_{round(100 * level.share):03d}.ply"
        level.gaussians.save_ply(folder / name)
        levels.append(
            {
                "file": name,
                "share": level.share,
                "num_splats": len(level.gaussians),
                "bytes": (folder / name).stat().st_size,
                "psnr_db_seed_camera": None if level.psnr_db is None else round(level.psnr_db, 2),
            }
        )
    text = json.dumps({"world_id": world.record.world_id, "levels": levels}, indent=1)
    (folder / "levels.json").write_text(text + "\n", encoding="utf-8")


MESH_PACKAGES = ("skimage", "fast_simplification")
_GROUND = ("ply", "cameras")
_FRAMES = ("ply", "cameras", "video")
EXPORTS = {
    export.name: export
    for export in (
        Export(name="colmap", write=_write_colmap, artifacts=_FRAMES),
        Export(name="nerfstudio", write=_write_nerfstudio, artifacts=_FRAMES),
        Export(name="gltf", write=_write_gltf, artifacts=_GROUND, packages=MESH_PACKAGES),
        Export(
            name="spz",
            write=lambda world, folder: write_spz(world.gaussians, folder / "world.spz"),
            packages=("gsply",),
        ),
        Export(
            name="usd",
            write=lambda world, folder: write_usd(_usd_world(world), folder / "world.usdc"),
            artifacts=_GROUND,
            packages=("pxr", *MESH_PACKAGES),
        ),
        Export(
            name="usdz",
            write=lambda world, folder: write_usdz(_usd_world(world), folder / "world.usdz"),
            artifacts=_GROUND,
            packages=("pxr", *MESH_PACKAGES),
        ),
        Export(
            name="compressed-ply",
            write=lambda world, folder: write_compressed_ply(world.gaussians, folder / "world.compressed.ply"),
        ),
        Export(name="ply-62", write=lambda world, folder: write_full_ply(world.gaussians, folder / "point_cloud.ply")),
        Export(
            name="surfaces",
            write=lambda world, folder: world.gaussians.of_parts(Part.KEYFRAME).save_ply(folder / "surfaces.ply"),
        ),
        Export(name="mjcf", write=_write_mjcf, artifacts=_GROUND),
        Export(name="lod", write=_write_lod, artifacts=_GROUND),
    )
}
