"""Stored worlds as one data set of another program: what `lyra export` writes for one world, this writes for many."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lyra_core.dataset import FileCache, WorldSet
from lyra_core.errors import RecipeError, StoreError
from lyra_core.extras import require
from lyra_core.formats.cameras import read_cameras_parquet
from lyra_core.formats.lerobot import Episode, write_lerobot
from lyra_core.formats.recording import write_recording
from lyra_core.formats.webdataset import write_webdataset
from lyra_core.values import Gaussians

SETS = ("lerobot", "webdataset", "rerun")


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenSet:
    """A data set that was written: its folder, and how many worlds and frames it holds."""

    folder: Path
    worlds: int
    frames: int


def write_data_set(worlds: WorldSet, form: str, to: Path, *, depth: bool = True) -> WrittenSet:
    """Write worlds as one data set, into a folder that must not exist; it appears whole or not at all.

    Args:
        worlds: which, and where they lie.
        form: one of SETS.
        to: the folder.
        depth: cast depth from the Gaussians, where the format keeps it (webdataset, rerun).

    Raises:
        RecipeError: an unknown form.
        StoreError: the folder exists, or cannot be written.
        CatalogError: there are no worlds, or one lacks a file.
        FormatError: a stored file is damaged, or worlds do not fit into one data set.
        MissingExtraError: rerun without rerun-sdk.
    """
    if form not in SETS:
        raise RecipeError(f"a data set is written as one of {', '.join(SETS)}, found {form!r}")
    if to.exists():
        raise StoreError(f"{to}: wanted a folder that does not exist yet; remove it, or choose another")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".data-set-", dir=to.parent) as name:
            unfinished, cache = Path(name) / "set", FileCache(Path(name) / "files")
            frames = _WRITERS[form](worlds, unfinished, cache, depth)
            unfinished.rename(to)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise StoreError(f"{to}: wanted a folder to write into, found {error.strerror}; choose another") from error
    return WrittenSet(folder=to, worlds=len(worlds), frames=frames)


def _write_lerobot(worlds: WorldSet, folder: Path, cache: FileCache, _depth: bool) -> int:
    write_lerobot(_episodes(worlds, cache), folder)
    return sum(worlds.table["num_frames"].to_pylist())


def _episodes(worlds: WorldSet, cache: FileCache) -> Iterator[Episode]:
    columns = ["world_id", "video_uri", "cameras_uri", "trajectory_name", "seed_sha256", "meters_per_unit"]
    for row in worlds.where("video_uri IS NOT NULL AND cameras_uri IS NOT NULL").table.select(columns).to_pylist():
        yield Episode(
            task=f"move the camera along the path {row['trajectory_name'] or 'custom'}",
            video=cache.fetch(worlds.store, row["video_uri"]),
            cameras=read_cameras_parquet(cache.fetch(worlds.store, row["cameras_uri"])),
            world_id=row["world_id"],
            seed_sha256=row["seed_sha256"],
            meters_per_unit=row["meters_per_unit"],
        )
        shutil.rmtree(cache.folder, ignore_errors=True)


def _write_webdataset(worlds: WorldSet, folder: Path, cache: FileCache, depth: bool) -> int:
    sizes = set(zip(worlds.table["height"].to_pylist(), worlds.table["width"].to_pylist(), strict=True))
    parts = (
        worlds.only(
            [
                row["world_id"]
                for row in worlds.table.select(["world_id", "height", "width"]).to_pylist()
                if (row["height"], row["width"]) == size
            ]
        )
        for size in sorted(sizes)
    )
    return write_webdataset(
        (sample for part in parts for sample in part.frames(depth=depth, shard=(0, 1), cache=cache)), folder
    )


def _write_rerun(worlds: WorldSet, folder: Path, cache: FileCache, depth: bool) -> int:
    """A recording for each world, `<world id>.rrd`."""
    require("rerun", "writing Rerun recordings")
    folder.mkdir()
    for row in worlds.table.select(["world_id", "ply_uri"]).to_pylist():
        world = worlds.only([row["world_id"]])
        frames = world.frames(depth=depth, shard=(0, 1), cache=cache)
        gaussians = Gaussians.load_ply(cache.fetch(worlds.store, row["ply_uri"]))
        write_recording(gaussians, frames, folder / f"{row['world_id']}.rrd", row["world_id"])
    return sum(worlds.table["num_frames"].to_pylist())


_WRITERS: dict[str, Callable[[WorldSet, Path, FileCache, bool], int]] = {
    "lerobot": _write_lerobot,
    "webdataset": _write_webdataset,
    "rerun": _write_rerun,
}
