"""Stage 5: everything a world leaves behind, first as values (rendered), then as files in a local folder (encoded).

Rendering needs the models' device and stays on the worker's main path; encoding overlaps the next world.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from lyra_core.formats.cameras import (
    write_cameras_parquet,
    write_colmap_text,
    write_transforms_json,
)
from lyra_core.formats.clip import write_lossless, write_mp4
from lyra_core.formats.image import jpeg_data_uri, write_jpeg
from lyra_core.gaussians.render import render
from lyra_core.geometry.sway import swayed_path
from lyra_core.values import Gaussians, VideoClip
from tasks.recipe import Recipe

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


def encode(
    clip: VideoClip, gaussians: Gaussians, pictures: Pictures, recipe: Recipe, folder: Path
) -> list[LocalArtifact]:
    """Write every artifact the recipe asks for into a local folder.

    Raises:
        GaussiansError: values that cannot be written. OSError: the local disk is full.
    """
    written: list[LocalArtifact] = []

    def add(role: str, name: str, media_type: str, write: Callable[[Path], object]) -> None:
        if role in recipe.artifacts:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path)
            written.append(LocalArtifact(role=role, path=path, name=name, media_type=media_type))

    add("ply", "gaussians.ply", "model/ply", gaussians.save_ply)
    add(
        "video",
        "video.mp4",
        "video/mp4",
        lambda p: write_mp4(clip.frames, p, fps=clip.fps, crf=recipe.video_crf),
    )
    add(
        "lossless",
        "video.mkv",
        "video/x-matroska",
        lambda p: write_lossless(clip.frames, p, fps=clip.fps),
    )
    add(
        "cameras",
        "cameras.parquet",
        "application/vnd.apache.parquet",
        lambda p: write_cameras_parquet(clip.cameras, p, fps=clip.fps),
    )
    add(
        "transforms",
        "transforms.json",
        "application/json",
        lambda p: write_transforms_json(clip.cameras, p),
    )
    add("preview", "preview.jpg", "image/jpeg", lambda p: write_jpeg(pictures.preview, p))
    if pictures.flythrough is not None:
        frames = pictures.flythrough
        add(
            "flythrough",
            "flythrough.mp4",
            "video/mp4",
            lambda p: write_mp4(frames, p, fps=clip.fps, crf=FLYTHROUGH_CRF, preset="veryfast"),
        )
    if "colmap" in recipe.artifacts:
        written += _encode_colmap(clip, gaussians, folder)
    return written


def _encode_colmap(clip: VideoClip, gaussians: Gaussians, folder: Path) -> list[LocalArtifact]:
    target = folder / "colmap"
    target.mkdir(parents=True, exist_ok=True)
    write_colmap_text(clip.cameras, target, gaussians=gaussians)
    return [
        LocalArtifact(
            role=f"colmap_{file.stem}",
            path=file,
            name=f"colmap/{file.name}",
            media_type="text/plain",
        )
        for file in sorted(target.glob("*.txt"))
    ]
