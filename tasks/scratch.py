"""Where the chunks of unfinished worlds survive a killed worker: a folder per world on the worker's own disk.

    <scratch>/<world id>/video/...        seed depth and chunks of the video (lyra_core.video.chunk_store)
    <scratch>/<world id>/gaussians/...    lifted chunks (lyra_core.gaussians.chunk_store)

A worker that meets a world again goes on from its folder; a committed or rejected world's folder is removed. A recipe
that keeps chunks (`artifacts` with "chunks") stores those of the video beside the world, and a longer path that begins
with the same chunks starts from them, on whichever machine it runs.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from catalogs.commit import is_committed, read_commit
from lyra_core.errors import StoreError
from lyra_core.formats.store import Store
from lyra_core.spec import WorldSpec
from lyra_core.video.chunk_store import LIST_NAME
from tasks.artifacts import LocalArtifact

VIDEO = "video"
STORED = "chunks"
# A folder nobody came back to: its batch was given up.
STALE_S = 14 * 24 * 3600


class ScratchFolders:
    """The scratch folders of one worker."""

    def __init__(self, root: str | Path, store: Store) -> None:
        """`store` is where kept chunks of finished worlds lie."""
        self.root = Path(root).expanduser()
        self._store = store
        self._remove_stale()

    def open(self, spec: WorldSpec) -> Path:
        """The folder of a world: as it was left, or with the kept chunks of a shorter world, or empty.

        Raises:
            StoreError: the disk or the store cannot be used.
        """
        folder = self.root / spec.world_id
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"scratch folder {folder} cannot be made: {error}; choose another with LYRA_SCRATCH"
            ) from error
        if not (folder / VIDEO / LIST_NAME).exists():
            self._fetch_kept(spec, folder / VIDEO)
        return folder

    def remove(self, world_id: str) -> None:
        """Forget a world's folder; one that cannot be removed is left for later."""
        shutil.rmtree(self.root / world_id, ignore_errors=True)

    def _fetch_kept(self, spec: WorldSpec, target: Path) -> None:
        """Chunks of the longest finished world that this one continues: a world's id is the id of its last chunk."""
        for link in reversed(spec.chunk_ids[:-1]):
            if not is_committed(self._store, link):
                continue
            kept = [a.key for a in read_commit(self._store, link).world.artifacts if a.role == STORED]
            if not kept:
                continue
            target.mkdir(parents=True, exist_ok=True)
            for key in sorted(kept, key=_is_list):  # last: the list is what makes chunks count
                self._store.get_file(key, target / key.rpartition("/")[2])
            return

    def _remove_stale(self) -> None:
        if not self.root.is_dir():
            return
        for folder in self.root.iterdir():
            if folder.is_dir() and folder.stat().st_mtime < time.time() - STALE_S:
                shutil.rmtree(folder, ignore_errors=True)


def kept_chunks(scratch: Path) -> list[LocalArtifact]:
    """The chunks of a finished video, to be stored beside the world; none of models that make no chunks."""
    return [
        LocalArtifact(role=STORED, path=path, name=f"{STORED}/{path.name}", media_type=_media_type(path))
        for path in sorted((scratch / VIDEO).glob("[!.]*"))
    ]


def _is_list(key: str) -> bool:
    return key.endswith(f"/{LIST_NAME}")


def _media_type(path: Path) -> str:
    return "application/json" if path.suffix == ".json" else "application/octet-stream"
