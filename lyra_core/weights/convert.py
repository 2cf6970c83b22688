"""Turns released weights of any format into safetensors shards with a manifest; can be stopped and
run again.

Shards are written into `DST.partial`, one tensor in memory at a time, and renamed into place when
all are complete. A
second run with the same source and plan keeps finished shards.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lyra_core.errors import WeightsError
from lyra_core.version import VERSION
from lyra_core.weights import component_folder
from lyra_core.weights.adapter import Weights, open_weights
from lyra_core.weights.describe import describe, is_described
from lyra_core.weights.fetch import fetched_revision
from lyra_core.weights.keys import RULES, require_match
from lyra_core.weights.manifest import (
    FileRecord,
    Manifest,
    Source,
    TensorRecord,
    write_manifest,
    writing,
)
from lyra_core.weights.registry import weight_set
from lyra_core.weights.shards import INDEX_NAME, count_parameters, plan_shards, write_safetensors
from lyra_core.weights.stored import StoredTensor, verify_crc

SHARD_BYTES = 4_000_000_000
PROGRESS_NAME = "progress.json"

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What the manifest says about a set besides its tensors; `config` as in Manifest."""

    name: str
    license: str = ""
    repo_id: str = ""
    revision: str = ""
    config: Mapping[str, object] = field(default_factory=dict)


def convert(
    src: Path,
    dst: Path,
    kind: str,
    *,
    labels: Labels | None = None,
    expected: Mapping[str, tuple[int, ...]] | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> Manifest:
    """Converts a released file or directory into a directory of safetensors with a manifest.

    Args:
        src: a file of torch.save, a distributed checkpoint, or safetensors.
        dst: the directory to make; it must not exist yet.
        kind: whose key rules the source follows.
        labels: name, license and origin for the manifest.
        expected: shapes by name that the source must match exactly; None takes it as it is.
        shard_bytes: largest size of a shard, without its header.
        progress: told how far it is.

    Raises:
        UnsafePickleError: a pickle asked for a name outside the allow-list.
        StateDictError: keys or shapes differ from `expected`.
        WeightsError: the source is damaged, or dst is in use or cannot be written.
    """
    src, dst = Path(src), Path(dst)
    if dst.exists():
        raise WeightsError(f"{dst} exists already; remove it, or check it with `lyra weights verify {dst}`")
    weights = open_weights(src, kind)
    if expected is not None:
        require_match(weights.shapes, expected, str(src))
    shards = plan_shards(weights.stored.values(), shard_bytes)
    partial = dst.with_name(dst.name + ".partial")
    names = _shard_names(len(shards))
    with writing(dst):
        work = _Work(
            partial,
            _plan_digest(weights, shards),
            sum(t.nbytes for t in weights.stored.values()),
            progress,
        )
        for name, shard in zip(names, shards, strict=True):
            work.write(name, shard)
        shards_by_name = dict(zip(names, shards, strict=True))
        manifest = _manifest(weights, shards_by_name, work, kind, labels or Labels(name=dst.name))
        if len(names) > 1:
            _write_index(partial, manifest)
        write_manifest(manifest, partial)
        (partial / PROGRESS_NAME).unlink()
        partial.rename(dst)
    return manifest


def convert_set(
    src: Path,
    dst: Path,
    name: str,
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> Manifest:
    """Converts a set of the registry: its naming rules, license and origin; keys and shapes must
    fit its model.

    Args:
        src: the fetched file or directory.
        dst: the directory to make.
        name: a set of the registry.
        shard_bytes: largest size of a shard, without its header.
        progress: told how far it is.

    Raises:
        WeightsError: as `convert`; also for sets that need no conversion.
    """
    item = weight_set(name)
    if item.kind == component_folder.KIND:
        return component_folder.adopt(src, dst, item, progress=progress)
    if item.kind not in RULES:
        raise WeightsError(f"{name} needs no conversion: it is {item.by_hand or 'used as it is'}")
    labels = Labels(
        name=name,
        license=item.license,
        repo_id=item.repo_id,
        revision=fetched_revision(Path(src).resolve(), name),
    )
    expected = describe(name).shapes if is_described(name) else None
    return convert(
        src,
        dst,
        item.kind,
        labels=labels,
        expected=expected,
        shard_bytes=shard_bytes,
        progress=progress,
    )


def read_config(path: Path) -> dict[str, object]:
    """The sizes of a model of one's own, from a JSON file, for Labels.config.

    Raises:
        WeightsError: it cannot be read, or holds no JSON object.
    """
    try:
        config = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} should hold the model's sizes as a JSON object: {error}") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path} should hold the model's sizes as a JSON object, found {type(config).__name__}")
    return config


class _Work:
    """The half-finished directory of a conversion, and what is already in it."""

    def __init__(self, directory: Path, plan: str, total_bytes: int, progress: Progress | None) -> None:
        self.directory, self.progress, self.total_bytes, self.done_bytes = (
            directory,
            progress,
            total_bytes,
            0,
        )
        self.finished: dict[str, dict[str, object]] = {}
        state = directory / PROGRESS_NAME
        if state.is_file():
            try:
                content = json.loads(state.read_text("utf-8"))
            except ValueError:
                content = {}  # the run before was stopped while it wrote this file
            if content.get("plan") == plan:
                self.finished = content["finished"]
        if directory.exists() and not self.finished:
            shutil.rmtree(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self.plan = plan

    def write(self, name: str, shard: list[StoredTensor]) -> None:
        path, size = self.directory / name, sum(tensor.nbytes for tensor in shard)
        if name in self.finished and path.is_file() and path.stat().st_size == self.finished[name]["size_bytes"]:
            self._advance(size)
            return
        for tensor in shard:
            verify_crc(tensor)
        writing = path.with_suffix(".writing")
        sha256, digests = write_safetensors(writing, shard, progress=self._advance)
        writing.rename(path)
        self.finished[name] = {
            "sha256": sha256,
            "size_bytes": path.stat().st_size,
            "tensors": digests,
        }
        state = self.directory / PROGRESS_NAME
        fresh = state.with_suffix(".writing")
        fresh.write_text(json.dumps({"plan": self.plan, "finished": self.finished}), "utf-8")
        fresh.rename(state)

    def _advance(self, count: int) -> None:
        self.done_bytes += count
        if self.progress:
            self.progress(self.done_bytes, self.total_bytes)


def _shard_names(count: int) -> list[str]:
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def _plan_digest(weights: Weights, shards: list[list[StoredTensor]]) -> str:
    """Identifies source and plan: the same digest means that finished shards can be kept."""
    files = sorted({piece.file for tensor in weights.stored.values() for piece in tensor.pieces})
    states = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    plan = [[(t.name, t.dtype, t.shape) for t in shard] for shard in shards]
    return hashlib.sha256(json.dumps([states, plan]).encode()).hexdigest()


def _manifest(
    weights: Weights, shards: dict[str, list[StoredTensor]], work: _Work, kind: str, labels: Labels
) -> Manifest:
    tensors = {
        tensor.name: TensorRecord(
            dtype=tensor.dtype,
            shape=tensor.shape,
            file=name,
            sha256=str(work.finished[name]["tensors"][tensor.name]),  # type: ignore[index]
        )
        for name, shard in shards.items()
        for tensor in shard
    }
    return Manifest(
        name=labels.name,
        kind=kind,
        license=labels.license,
        source=Source(path=weights.path.name, repo_id=labels.repo_id, revision=labels.revision),
        created_by=f"lyra-worlds {VERSION}",
        created_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        parameters=count_parameters(weights.stored.values()),
        total_bytes=work.total_bytes,
        files={
            name: FileRecord(sha256=str(entry["sha256"]), size_bytes=int(str(entry["size_bytes"])))
            for name, entry in work.finished.items()
            if name in shards
        },
        tensors=tensors,
        ignored=weights.ignored,
        config=labels.config,
    )


def _write_index(directory: Path, manifest: Manifest) -> None:
    content = {
        "metadata": {"total_size": manifest.total_bytes},
        "weight_map": {name: tensor.file for name, tensor in manifest.tensors.items()},
    }
    (directory / INDEX_NAME).write_text(json.dumps(content, indent=1) + "\n", "utf-8")
