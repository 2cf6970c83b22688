"""Checks a converted set of weights against its manifest, from structure to every byte."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lyra_core.errors import WeightsError
from lyra_core.weights.manifest import Manifest, read_manifest
from lyra_core.weights.shards import list_safetensors

READ_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A set that is as its manifest says."""

    manifest: Manifest
    files: int
    bytes_read: int


def verify(directory: Path, *, progress: Callable[[int, int], None] | None = None) -> Verified:
    """Compares files, tensors and checksums with the manifest; stops at the first file that
    differs.

    Args:
        directory: a converted set.
        progress: told the bytes read and the bytes in all.

    Raises:
        WeightsError: names the first bad file and what is wrong with it.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    for name, record in manifest.files.items():
        if not _is_inside(name) or not (directory / name).is_file():
            raise WeightsError(f"{directory}: file {name} of the manifest is missing; convert the weights again")
        size = (directory / name).stat().st_size
        if size != record.size_bytes:
            raise WeightsError(
                f"{directory / name} is damaged: it should have {record.size_bytes} bytes, it has {size}"
            )
    files = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*.safetensors"))
    strays = [name for name in files if name not in manifest.files]
    if strays:
        raise WeightsError(f"{directory} holds files its manifest does not know: {', '.join(strays)}; remove them")
    total, done = sum(record.size_bytes for record in manifest.files.values()), 0
    for name, record in manifest.files.items():
        if name.endswith(".safetensors"):
            _require_structure(directory, name, manifest)
        whole = hashlib.sha256()
        with (directory / name).open("rb") as file:
            while data := file.read(READ_BYTES):
                whole.update(data)
                done += len(data)
                if progress:
                    progress(done, total)
        if whole.hexdigest() != record.sha256:
            raise WeightsError(
                f"{directory / name} is damaged or was changed: its sha256 is "
                f"{whole.hexdigest()}, the manifest says "
                f"{record.sha256}; convert the weights again"
            )
    return Verified(manifest=manifest, files=len(manifest.files), bytes_read=done)


def _is_inside(name: str) -> bool:
    """Whether a file of a manifest lies in the set's folder."""
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts


def _require_structure(directory: Path, file: str, manifest: Manifest) -> None:
    path = directory / file
    found = {tensor.name: (tensor.dtype, tensor.shape) for tensor in list_safetensors(path)}
    component = f"{Path(file).parent.as_posix()}/"  # part of the names of sets that have components
    wanted = {
        name.removeprefix(component): (tensor.dtype, tensor.shape)
        for name, tensor in manifest.tensors.items()
        if tensor.file == file
    }
    different = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    if different:
        raise WeightsError(
            f"{path} and its manifest disagree on {len(different)} tensors, e.g. {', '.join(different[:4])}"
        )
