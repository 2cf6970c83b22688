"""One of each thing that docs/extending.md says can be added from outside: model, recipe, stage, format, store."""

from __future__ import annotations

import json
import os
from pathlib import Path

import fsspec
from fault_model import FaultModel
from fsspec.implementations.local import LocalFileSystem

from lyra_core.errors import ReconstructionError
from lyra_core.values import Gaussians, VideoClip
from tasks.artifacts import Contents, Format
from tasks.recipe import Recipe


def load(device: str = "cpu", **_: object) -> FaultModel:
    """The factory of a model: two Gaussians two metres away."""
    return FaultModel()


def keep_right(clip: VideoClip, gaussians: Gaussians) -> Gaussians:
    """A stage: the Gaussians right of the first camera."""
    return gaussians[gaussians.means[:, 0] > float(clip.cameras.centers_m[0, 0])]


def keep_none(clip: VideoClip, gaussians: Gaussians) -> Gaussians:
    return gaussians[gaussians.means[:, 0] > 1e6]


def refuse(clip: VideoClip, gaussians: Gaussians) -> Gaussians:
    raise ReconstructionError("wanted a world that may be shown, found another")


def quality(clip: VideoClip, gaussians: Gaussians) -> Gaussians:
    """A stage whose name is taken."""
    return gaussians


def _write_means(world: Contents, path: Path) -> None:
    path.write_text(json.dumps(world.gaussians.means.tolist()))


def _write_pages(world: Contents, path: Path) -> None:
    path.mkdir()
    for frame in range(2):
        (path / f"{frame}.txt").write_text(str(world.clip.cameras.centers_m[frame].tolist()))


MEANS = Format(role="means", name="means.json", media_type="application/json", write=_write_means)
PAGES = Format(role="page", name="pages", media_type="text/plain", write=_write_pages)
SECOND_PLY = Format(role="second", name="gaussians.ply", media_type="model/ply", write=_write_means)


def recipe() -> Recipe:
    """All of them in one recipe."""
    return Recipe(
        name="extended",
        description="for tests",
        model="extension:load",
        width=64,
        height=48,
        quality_views=0,
        stages=("extension:keep_right",),
        artifacts=("ply", "extension:MEANS", "extension:PAGES"),
    )


NO_RECIPE = dict


class VaultFileSystem(LocalFileSystem):
    """A store: vault://bucket/path is a folder below $VAULT_ROOT, and `create` fails where something is."""

    protocol = "vault"

    def __init__(self, **options):
        super().__init__(auto_mkdir=True, **options)

    @classmethod
    def _strip_protocol(cls, path):
        inside = str(path).removeprefix("vault://")
        return inside if inside.startswith("/") else f"{os.environ['VAULT_ROOT']}/{inside}".rstrip("/")

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        target = Path(self._strip_protocol(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb" if mode == "create" else "wb") as file:
            file.write(value)


class CarelessFileSystem(VaultFileSystem):
    """One that overwrites, whatever it is asked."""

    protocol = "careless"

    @classmethod
    def _strip_protocol(cls, path):
        return VaultFileSystem._strip_protocol(str(path).removeprefix("careless://"))

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        super().pipe_file(path, value)


fsspec.register_implementation("vault", VaultFileSystem, clobber=True)
fsspec.register_implementation("careless", CarelessFileSystem, clobber=True)
