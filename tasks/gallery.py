"""What a gallery shows of one world: a poster, a small file of splats and the whole one, and its page."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from catalogs.commit import read_commit
from catalogs.gallery.page import SplatFile, WorldFiles, world_page
from catalogs.gallery.write import world_folder
from lyra_core.errors import FormatError, StoreError
from lyra_core.extras import is_installed
from lyra_core.formats.clip import iterate_frames
from lyra_core.formats.spz import write_spz
from lyra_core.formats.store import Store
from lyra_core.gaussians.coarsen import PointSet, coarsen_to
from lyra_core.records import WorldRecord
from lyra_core.values import Gaussians, Part

# Pages and files of another version are made again.
GALLERY_VERSION = 1
LIGHT_SPLATS = 15_000  # 0.2 MB as SPZ, 1 MB as .ply: there within a second or two on a slow line
POSTER_SIDE = 640
DOWNLOADS = ("ply", "surfaces", "video", "cameras", "transforms", "mesh", "collision", "collision_obj", "mjcf", "usd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a gallery goes.

    Attributes:
        store: its own root.
        title: shown on every page.
        source: address of the worlds' store from the site's root ("../"), or None: the files are copied.
    """

    store: Store
    title: str
    source: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the index needs of a world's page: address of the video from the site's root, whether there is a poster."""

    video: str | None
    poster: bool


def show_world(worlds: Store, world_id: str, site: Site, *, again: bool = False) -> Shown:
    """Make the page of a world, unless this version made it from the same upload.

    Raises:
        CatalogError: there is no such world.
        FormatError: a stored file is damaged.
        StoreError: a file cannot be read or written.
    """
    folder = world_folder(world_id)
    commit = read_commit(worlds, world_id)
    stamp = [GALLERY_VERSION, commit.world.folder, site.source, site.title]
    made = None if again else _made(site.store, folder)
    if made is not None and made["stamp"] == stamp:
        return Shown(video=made["video"], poster=made["poster"])
    keys = {a.role: a.key for a in commit.world.artifacts}
    with tempfile.TemporaryDirectory(prefix="gallery-") as name:
        scratch = Path(name)
        poster = _put_poster(worlds, keys, site.store, folder, scratch)
        splats, pivot = _put_splats(worlds, commit.world, site, scratch)
    if site.source is None:
        for role in ("video", "cameras", "mjcf", "mesh"):
            if role in keys:
                site.store.put_bytes(folder + Path(keys[role]).name, worlds.read_bytes(keys[role]))
    up = "../" * folder.count("/")

    def address(key: str) -> str:
        return Path(key).name if site.source is None else f"{up}{site.source}{key}"

    ply = not any(file.turned for file in splats)
    copied = ("ply", "video", "cameras", "mjcf", "mesh") if ply else ("video", "cameras", "mjcf", "mesh")
    files = WorldFiles(
        splats=splats,
        poster="poster.jpg" if poster else None,
        video=address(keys["video"]) if "video" in keys else None,
        downloads=[
            (a.role, address(a.key), a.bytes, a.sha256)
            for a in commit.world.artifacts
            if a.role in (copied if site.source is None else DOWNLOADS)
        ],
    )
    page = world_page(commit.world, commit.frames, files, pivot=pivot, title=site.title)
    site.store.put_bytes(f"{folder}index.html", page.encode("utf-8"))
    video = None
    if "video" in keys:
        video = folder + Path(keys["video"]).name if site.source is None else site.source + keys["video"]
    note = {"stamp": stamp, "video": video, "poster": poster}
    site.store.put_bytes(f"{folder}made.json", json.dumps(note).encode())
    return Shown(video=video, poster=poster)


def lighter(gaussians: Gaussians, count: int) -> Gaussians:
    """At most about `count` Gaussians that look alike from afar: neighbours merged, the dome as coarse as the rest."""
    if len(gaussians) <= count:
        return gaussians
    spacing = 2.0 * gaussians.scales.sort(dim=1).values[:, 1]
    points = PointSet(gaussians=gaussians, spacing_m=spacing.clamp_min(1e-12), confidence=gaussians.opacities)
    return coarsen_to(points, count)[0].gaussians


def pivot_distance(gaussians: Gaussians) -> float:
    """Median depth, from the first camera, of what key frames show in front of it, world units; 2 if nothing is."""
    depth = gaussians.of_parts(Part.KEYFRAME).means[:, 2]
    ahead = depth[depth > 1e-3]
    return float(ahead.median()) if len(ahead) else 2.0


def _put_poster(worlds: Store, keys: dict[str, str], site: Store, folder: str, scratch: Path) -> bool:
    """Frame 0 of the video, or the preview where there is no video, at most 640 pixels wide or high."""
    if "video" in keys:
        path = scratch / Path(keys["video"]).name
        worlds.get_file(keys["video"], path)
        picture = Image.fromarray(np.ascontiguousarray(next(iter(iterate_frames(path)))))
    elif "preview" in keys:
        path = scratch / "preview.jpg"
        worlds.get_file(keys["preview"], path)
        picture = Image.open(path).convert("RGB")
    else:
        return False
    picture.thumbnail((POSTER_SIDE, POSTER_SIDE), Image.Resampling.LANCZOS)
    picture.save(scratch / "poster.jpg", quality=85, optimize=True)
    site.put_file(f"{folder}poster.jpg", scratch / "poster.jpg")
    return True


def _put_splats(worlds: Store, world: WorldRecord, site: Site, scratch: Path) -> tuple[list[SplatFile], float]:
    """The small file and the whole one, and the distance about which to turn.

    Both as SPZ where it can be written, a sixth of the size; else as .ply, and the whole one is the stored file.
    """
    stored = next((a for a in world.artifacts if a.role == "ply"), None)
    if stored is None:
        return [], 2.0
    folder = world_folder(world.world_id)
    whole = scratch / Path(stored.key).name
    worlds.get_file(stored.key, whole)
    gaussians = Gaussians.load_ply(whole)
    files = [_put_web(lighter(gaussians, LIGHT_SPLATS), "light", site.store, folder, scratch)]
    if files[0].turned:
        files.append(_put_web(gaussians, "splats", site.store, folder, scratch))
    elif site.source is None:
        site.store.put_file(f"{folder}{whole.name}", whole)
        files.append(SplatFile(url=whole.name, bytes=stored.bytes, turned=False))
    else:
        url = "../" * folder.count("/") + site.source + stored.key
        files.append(SplatFile(url=url, bytes=stored.bytes, turned=False))
    return files, pivot_distance(gaussians)


def _put_web(gaussians: Gaussians, stem: str, site: Store, folder: str, scratch: Path) -> SplatFile:
    """One file of splats for the viewer: SPZ, whose axes are turned already, or .ply.

    A .ply where gsply is not installed, or where centres lie beyond the 2048 units that SPZ holds.
    """
    path, turned = scratch / f"{stem}.spz", is_installed("gsply")
    if turned:
        try:
            write_spz(gaussians, path)
        except FormatError:
            turned = False
    if not turned:
        path = scratch / f"{stem}.ply"
        gaussians.save_ply(path)
    put = site.put_file(f"{folder}{path.name}", path)
    return SplatFile(url=path.name, bytes=put.bytes, turned=turned)


def _made(site: Store, folder: str) -> dict[str, Any] | None:
    try:
        note: dict[str, Any] = json.loads(site.read_bytes(f"{folder}made.json"))
    except (StoreError, ValueError):
        return None
    return note
