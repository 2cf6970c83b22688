"""Stage 6: everything a world leaves behind, first as values (rendered), then as files in a local folder (encoded).

Rendering needs the models' device and stays on the worker's main path; encoding overlaps the next world.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from lyra_core.entry_point import load_entry_point
from lyra_core.errors import RecipeError
from lyra_core.extras import require
from lyra_core.formats.cameras import (
    write_cameras_parquet,
    write_colmap_text,
    write_transforms_json,
)
from lyra_core.formats.clip import write_lossless, write_mp4
from lyra_core.formats.compressed_ply import write_compressed_ply
from lyra_core.formats.gltf_splats import write_splat_glb
from lyra_core.formats.image import jpeg_data_uri, write_jpeg
from lyra_core.formats.mesh import write_glb, write_obj
from lyra_core.formats.mjcf import write_mjcf
from lyra_core.formats.spz import write_spz
from lyra_core.formats.usd import UsdWorld, write_usd, write_usdz
from lyra_core.gaussians.render import render
from lyra_core.geometry.sway import swayed_path
from lyra_core.records import WorldRecord
from lyra_core.scene_geometry.ground_frame import GroundFrame
from lyra_core.values import Gaussians, Part, VideoClip
from tasks.geometry import WorldGeometry
from tasks.recipe import COLLIDER_ROLES, Recipe
from tasks.stored_world import world_facts

THUMBNAIL_SIDE = 160
THUMBNAIL_BYTES = 6_000
FLYTHROUGH_CRF = 20  # to look at; the video is what one learns from


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Frames rendered from the Gaussians. [t h w 3] uint8, or None where the recipe wants none."""

    flythrough: UInt8[Tensor, "t h w 3"] | None
    preview: UInt8[Tensor, "h w 3"]
    thumbnail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What the files of a world are made of."""

    clip: VideoClip
    gaussians: Gaussians
    pictures: Pictures
    recipe: Recipe
    geometry: WorldGeometry | None = None
    record: WorldRecord | None = None  # of the world, for files that tell where they come from


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One file of a world, or a folder of files.

    Attributes:
        role: its name in the catalog's `artifacts`; a file of a folder is `<role>_<stem>`.
        name: its path in the world's folder.
        media_type: of the file, or of each file in the folder.
        write: writes it to a path that does not exist yet; what a world has not got is left out.
    """

    role: str
    name: str
    media_type: str
    write: Callable[[Contents, Path], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalArtifact:
    """A file to upload: role, path relative to the world's folder, media type."""

    role: str
    path: Path
    name: str
    media_type: str


def render_pictures(clip: VideoClip, gaussians: Gaussians, recipe: Recipe) -> Pictures:
    """The fly-through along the path with a sway, and the preview (its middle frame)."""
    if "flythrough" in recipe.artifacts:
        cameras = swayed_path(
            clip.cameras,
            sway_deg=recipe.sway_deg,
            num_frames=min(recipe.flythrough_frames, max(2, len(clip))),
            pivot_m=_pivot_m(clip),
        )
        color = render(gaussians, cameras).color
        flythrough = (color.clamp(0, 1) * 255).round().to(torch.uint8)
        preview = flythrough[len(flythrough) // 2]
    else:
        flythrough = None
        preview = clip.frames[len(clip) // 2]
    return Pictures(
        flythrough=flythrough,
        preview=preview,
        thumbnail=jpeg_data_uri(preview, max_side=THUMBNAIL_SIDE, max_bytes=THUMBNAIL_BYTES),
    )


def _pivot_m(clip: VideoClip) -> float:
    if clip.depth_m is None:
        return 2.0
    known = clip.depth_m[0][clip.depth_m[0] > 0]
    return float(known.median()) if known.numel() else 2.0


def find_formats(recipe: Recipe) -> list[Format]:
    """The formats of a recipe's artifacts, always in the same order; "chunks" are kept by the worker.

    Raises:
        RecipeError: one cannot be imported or is no Format, or two write the same file.
        MissingExtraError: a mesh is wanted and the extra `geometry` is not installed, or a file of another program and
            the extra `export` is not.
    """
    roles = set(recipe.artifacts)
    if recipe.geometry is not None and COLLIDER_ROLES & roles:
        for package in ("skimage", "fast_simplification"):
            require(package, "making meshes", "geometry")
    for package, wanted in (("pxr", {"usd", "usdz"}), ("gsply", {"spz"})):
        if wanted & roles:
            require(package, f"the artifact {min(wanted & roles)}", "export")
    formats = [form for role, form in FORMATS.items() if role in recipe.artifacts]
    for name in recipe.artifacts:
        if ":" in name:
            form = load_entry_point(name, "format")
            if not isinstance(form, Format):
                raise RecipeError(f"format {name!r}: wanted a tasks.artifacts.Format, found {type(form).__name__}")
            formats.append(form)
    for field in ("role", "name"):
        values = [getattr(form, field) for form in formats]
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise RecipeError(f"artifacts: two formats have the {field} {twice[0]!r}; give each one of its own")
    return formats


def encode(contents: Contents, formats: Sequence[Format], folder: Path) -> list[LocalArtifact]:
    """Write every file of a world into a local folder.

    Raises:
        GaussiansError: values that cannot be written. OSError: the local disk is full.
    """
    written: list[LocalArtifact] = []
    for form in formats:
        path = folder / form.name
        path.parent.mkdir(parents=True, exist_ok=True)
        form.write(contents, path)
        files = sorted(path.iterdir()) if path.is_dir() else [path] if path.exists() else []
        for file in files:
            role = form.role if file == path else f"{form.role}_{file.stem}"
            name = file.relative_to(folder).as_posix()
            written.append(LocalArtifact(role=role, path=file, name=name, media_type=form.media_type))
    return written


def _write_flythrough(world: Contents, path: Path) -> None:
    if world.pictures.flythrough is None:
        raise RecipeError("flythrough: wanted its rendered frames, found none; name it among the artifacts")
    write_mp4(world.pictures.flythrough, path, fps=world.clip.fps, crf=FLYTHROUGH_CRF, preset="veryfast")


def _write_mesh(world: Contents, path: Path) -> None:
    if world.geometry is not None and world.geometry.visual is not None:
        write_glb(world.geometry.visual, path)


def _write_collision(world: Contents, path: Path) -> None:
    if world.geometry is not None and world.geometry.collision is not None:
        write_glb(world.geometry.collision, path, "collision")


def _write_obj(world: Contents, path: Path) -> None:
    if world.geometry is not None and world.geometry.collision is not None:
        write_obj(world.geometry.collision, path, "collision")


def _write_mjcf(world: Contents, path: Path) -> None:
    standing = None if world.geometry is None else world.geometry.scene.mujoco_world()
    if standing is not None:
        write_mjcf(standing, path)


def _ground(world: Contents) -> GroundFrame:
    return GroundFrame.on(None, 1.0) if world.geometry is None else world.geometry.scene.frame


def _usd_world(world: Contents) -> UsdWorld:
    return UsdWorld(
        gaussians=world.gaussians,
        world_to_ground=_ground(world).matrix,
        camera=world.clip.cameras[:1],
        collision=None if world.geometry is None else world.geometry.collision,
        facts={} if world.record is None else world_facts(world.record),
    )


def _write_gltf(world: Contents, path: Path) -> None:
    facts = {} if world.record is None else world_facts(world.record)
    write_splat_glb(world.gaussians, path, _ground(world).matrix, facts)


def _write_colmap(world: Contents, path: Path) -> None:
    path.mkdir()
    write_colmap_text(world.clip.cameras, path, gaussians=world.gaussians)


def _video_name(recipe: Recipe) -> str | None:
    """The stored video that frames can be taken from, the exact one first."""
    return next((FORMATS[role].name for role in ("lossless", "video") if role in recipe.artifacts), None)


# Every format by its role, which is one of `tasks.recipe.ROLES`.
FORMATS = {
    form.role: form
    for form in (
        Format(
            role="ply",
            name="gaussians.ply",
            media_type="model/ply",
            write=lambda world, path: world.gaussians.save_ply(path),
        ),
        Format(
            role="surfaces",
            name="surfaces.ply",
            media_type="model/ply",
            write=lambda world, path: world.gaussians.of_parts(Part.KEYFRAME).save_ply(path),
        ),
        Format(
            role="video",
            name="video.mp4",
            media_type="video/mp4",
            write=lambda world, path: write_mp4(
                world.clip.frames, path, fps=world.clip.fps, crf=world.recipe.video_crf
            ),
        ),
        Format(
            role="lossless",
            name="video.mkv",
            media_type="video/x-matroska",
            write=lambda world, path: write_lossless(world.clip.frames, path, fps=world.clip.fps),
        ),
        Format(
            role="cameras",
            name="cameras.parquet",
            media_type="application/vnd.apache.parquet",
            write=lambda world, path: write_cameras_parquet(world.clip.cameras, path, fps=world.clip.fps),
        ),
        Format(
            role="transforms",
            name="transforms.json",
            media_type="application/json",
            write=lambda world, path: write_transforms_json(
                world.clip.cameras, path, video_file=_video_name(world.recipe)
            ),
        ),
        Format(
            role="preview",
            name="preview.jpg",
            media_type="image/jpeg",
            write=lambda world, path: write_jpeg(world.pictures.preview, path),
        ),
        Format(role="flythrough", name="flythrough.mp4", media_type="video/mp4", write=_write_flythrough),
        Format(role="mesh", name="mesh.glb", media_type="model/gltf-binary", write=_write_mesh),
        Format(role="collision", name="collision.glb", media_type="model/gltf-binary", write=_write_collision),
        Format(role="collision_obj", name="collision.obj", media_type="model/obj", write=_write_obj),
        Format(role="mjcf", name="world.xml", media_type="application/xml", write=_write_mjcf),
        Format(
            role="usd",
            name="world.usdc",
            media_type="application/octet-stream",
            write=lambda world, path: write_usd(_usd_world(world), path),
        ),
        Format(
            role="usdz",
            name="world.usdz",
            media_type="model/vnd.usdz+zip",
            write=lambda world, path: write_usdz(_usd_world(world), path),
        ),
        Format(role="gltf", name="splats.glb", media_type="model/gltf-binary", write=_write_gltf),
        Format(
            role="spz",
            name="world.spz",
            media_type="application/octet-stream",
            write=lambda world, path: write_spz(world.gaussians, path),
        ),
        Format(
            role="compressed_ply",
            name="world.compressed.ply",
            media_type="model/ply",
            write=lambda world, path: write_compressed_ply(world.gaussians, path),
        ),
        Format(role="colmap", name="colmap", media_type="text/plain", write=_write_colmap),
    )
}
