"""Sets in the form of a library: a folder of components that is used as it was published, with a manifest beside it.

    <set>/manifest.json
    <set>/transformer/config.json, diffusion_pytorch_model-00001-of-00007.safetensors, ...
    <set>/vae/...   <set>/text_tokenizer/...   <set>/scheduler/...

The manifest names each tensor `component/name`; the digests of all other files (sizes, tokenizer, schedule, license)
stand in its `config`, and are so part of the set's digest.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from lyra_core.errors import WeightsError
from lyra_core.identity import digest_file
from lyra_core.version import VERSION
from lyra_core.weights.fetch import fetched_revision
from lyra_core.weights.manifest import FileRecord, Manifest, Source, TensorRecord, write_manifest, writing
from lyra_core.weights.registry import WeightSet
from lyra_core.weights.shards import list_safetensors
from lyra_core.weights.stored import StoredTensor, read_bits

KIND = "component folder"
INDEX_ENDING = ".safetensors.index.json"

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""


def adopt(src: Path, dst: Path, item: WeightSet, *, progress: Progress | None = None) -> Manifest:
    """Puts a published folder into its place, the files of the set only, and writes its manifest.

    Files are linked where source and place are on one file system, else copied.

    Args:
        src: the folder, as the repository has it.
        dst: the folder to make.
        item: its entry in the registry; `entry` and `files` name what must be there.
        progress: told how far it is.

    Raises:
        WeightsError: dst is in use or cannot be written, a file is missing, or one is damaged.
    """
    src, dst = Path(src), Path(dst)
    if dst.exists():
        raise WeightsError(f"{dst} exists already; remove it, or check it with `lyra weights verify {dst}`")
    names = sorted(_wanted(src, item))
    missing = [part for part in item.components if not any(Path(name).parts[0] == part for name in names)]
    missing += sorted(set(_shards(src, names)) - set(names))
    if missing:
        raise WeightsError(
            f"{src} should be the folder of {item.repo_id} with {', '.join(item.components)}, missing: "
            f"{', '.join(missing)}; fetch it with `lyra weights fetch {item.name} {src}`"
        )
    with writing(dst):
        return _adopted(src, dst, item, names, progress)


def _adopted(src: Path, dst: Path, item: WeightSet, names: Sequence[str], progress: Progress | None) -> Manifest:
    partial = dst.with_name(dst.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    total = sum((src / name).stat().st_size for name in names)
    done = 0
    files: dict[str, FileRecord] = {}
    tensors: dict[str, TensorRecord] = {}
    others: dict[str, object] = {}
    stored: list[StoredTensor] = []
    for name in names:
        _place(src / name, partial / name)
        record = FileRecord(sha256=digest_file(partial / name), size_bytes=(partial / name).stat().st_size)
        files[name] = record
        if name.endswith(".safetensors"):
            found = list_safetensors(partial / name)
            stored += found
            tensors |= dict(_tensor_record(name, tensor) for tensor in found)
        else:
            others[name] = record.sha256
        done += record.size_bytes
        if progress:
            progress(done, total)
    manifest = Manifest(
        name=item.name,
        kind=KIND,
        license=item.license,
        source=Source(path=src.name, repo_id=item.repo_id, revision=fetched_revision(src.resolve(), item.name)),
        created_by=f"lyra-worlds {VERSION}",
        created_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        parameters=sum(math.prod(tensor.shape) for tensor in stored),
        total_bytes=sum(tensor.nbytes for tensor in stored),
        files=files,
        tensors=tensors,
        config={"files": others},
    )
    write_manifest(manifest, partial)
    partial.rename(dst)
    return manifest


def _wanted(src: Path, item: WeightSet) -> Iterator[str]:
    """The set's files that are there, relative, with forward slashes."""
    for path in src.rglob("*") if src.is_dir() else ():
        name = path.relative_to(src).as_posix()
        if path.is_file() and any(fnmatchcase(name, pattern) for pattern in item.files):
            yield name


def _shards(src: Path, names: Sequence[str]) -> Iterator[str]:
    """Files that the indexes among them name."""
    for name in names:
        if not name.endswith(INDEX_ENDING):
            continue
        try:
            places = set(json.loads((src / name).read_text("utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsError(f"{src / name} should be an index of safetensors files; fetch it again") from error
        yield from (f"{Path(name).parent.as_posix()}/{place}" for place in places)


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    real = source.resolve()  # a cache of the hub holds links
    try:
        os.link(real, target)
    except OSError:
        shutil.copyfile(real, target)


def _tensor_record(file: str, tensor: StoredTensor) -> tuple[str, TensorRecord]:
    bits = hashlib.sha256(read_bits(tensor).reshape(-1).view("u1").data).hexdigest()
    name = f"{Path(file).parent.as_posix()}/{tensor.name}"
    return name, TensorRecord(dtype=tensor.dtype, shape=tensor.shape, file=file, sha256=bits)
