"""The manifest of a converted set of weights: what it holds, where it came from, and the digest
that enters world ids.

Light on purpose (no torch, no numpy): planning a batch reads digests only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lyra_core.errors import WeightsError

MANIFEST_NAME = "manifest.json"
FORMAT = "lyra-weights"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """One file of a set."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRecord:
    """One tensor of a set: its safetensors dtype name, shape, file, and the digest of its bytes."""

    dtype: str
    shape: tuple[int, ...]
    file: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a set came from: published repository and revision if known, and the file that was
    converted."""

    path: str
    repo_id: str = ""
    revision: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything known about a converted set.

    Attributes:
        name: the set's name in the registry, or the user's.
        kind: whose key rules were applied.
        license: name of the license, empty if unknown.
        source: where it came from.
        created_by: program and version that wrote it.
        created_at: UTC, ISO 8601.
        parameters: elements of all tensors.
        total_bytes: bytes of all tensors.
        files: by name.
        tensors: by name.
        ignored: keys of the source that were left out on purpose.
        config: of a model of your own, what differs from the preset of its kind and shapes do not all
            tell: widths, heads, layout. Of a set in the form of a library, its other files with their digests.
    """

    name: str
    kind: str
    license: str
    source: Source
    created_by: str
    created_at: str
    parameters: int
    total_bytes: int
    files: Mapping[str, FileRecord]
    tensors: Mapping[str, TensorRecord]
    ignored: tuple[str, ...] = ()
    config: Mapping[str, object] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """sha256 of names, dtypes, shapes and contents of the tensors, and of the config if there is one;
        how they are cut into files does not matter."""
        lines = [
            json.dumps([name, tensor.dtype, list(tensor.shape), tensor.sha256])
            for name, tensor in sorted(self.tensors.items())
        ]
        if self.config:
            lines.append(json.dumps(["config", self.config], sort_keys=True))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def write_manifest(manifest: Manifest, directory: Path) -> Path:
    """Writes the manifest into a directory."""
    path = directory / MANIFEST_NAME
    content = {"format": FORMAT, "version": VERSION, "digest": manifest.digest, **asdict(manifest)}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def read_manifest(directory: str | Path) -> Manifest:
    """Reads and checks the manifest of a directory.

    Raises:
        WeightsError: there is none, it is malformed, or its digest does not fit its content.
    """
    path = Path(directory) / MANIFEST_NAME
    if not path.is_file():
        raise WeightsError(f"{directory} has no {MANIFEST_NAME}: convert the weights with `lyra weights convert` first")
    try:
        content = json.loads(path.read_text("utf-8"))
        if content.pop("format") != FORMAT or content.pop("version") != VERSION:
            raise WeightsError(f"{path} is no manifest of version {VERSION}")
        digest = content.pop("digest")
        if "licence" in content:  # as sets spelt it that were converted before 0.1.0
            content["license"] = content.pop("licence")
        content["source"] = Source(**content["source"])
        content["files"] = {name: FileRecord(**entry) for name, entry in content["files"].items()}
        content["tensors"] = {
            name: TensorRecord(**{**entry, "shape": tuple(entry["shape"])})
            for name, entry in content["tensors"].items()
        }
        content["ignored"] = tuple(content["ignored"])
        manifest = Manifest(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} is malformed: {error}") from error
    if manifest.digest != digest:
        raise WeightsError(f"{path} was changed: its digest is {digest[:12]}, its content gives {manifest.digest[:12]}")
    return manifest


def manifest_digest(directory: str | Path) -> str:
    """The digest of a set, from its manifest, without reading the weights.

    Raises:
        WeightsError: there is no manifest, or it is malformed.
    """
    return read_manifest(directory).digest


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """While a set is written.

    Raises:
        WeightsError: the disk refuses.
    """
    try:
        yield
    except OSError as error:
        raise WeightsError(
            f"{directory} cannot be written: {(error.strerror or str(error)).lower()} at "
            f"{error.filename or directory}; free some space there, or choose another directory"
        ) from error
