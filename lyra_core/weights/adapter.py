"""The one door for weights: opens a file of any released format, gives its tensors the names of
our modules, loads them.

    weights = open_weights(Path("checkpoints/vae/vae.pth"), "wan-vae")
    with torch.device("meta"):
        module = Vae(...)
    load_into(module, weights, dtype=DtypePolicy(dtype=torch.bfloat16))

Formats: safetensors (one file, or shards with an index), files of `torch.save`, directories of
`torch.distributed.checkpoint`. Pickles are opened by an isolated process (`pickles.py`); tensors
are read when asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_core.errors import StateDictError, WeightsError
from lyra_core.weights.keys import RULES, WRAPPERS, map_keys, require_match, section
from lyra_core.weights.pickles import PickledTensor, list_pickled
from lyra_core.weights.shards import list_safetensors, list_sharded
from lyra_core.weights.stored import StoredTensor, read_tensor

if TYPE_CHECKING:
    import torch


class Weights(Mapping[str, "torch.Tensor"]):
    """The tensors of a file under the names of our modules, read when asked for.

    Attributes:
        path: the file or directory.
        stored: where each tensor lies.
        ignored: keys of the file that are left out on purpose.
    """

    __slots__ = ("ignored", "path", "stored")

    def __init__(self, path: Path, stored: Mapping[str, StoredTensor], ignored: tuple[str, ...]) -> None:
        self.path, self.stored, self.ignored = path, dict(stored), ignored

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self.stored:
            raise KeyError(name)
        return read_tensor(self.stored[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor."""
        return {name: tensor.shape for name, tensor in self.stored.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class DtypePolicy:
    """Which dtype a module's floating-point tensors get.

    Attributes:
        dtype: the dtype, or None to keep what the file has.
        float32: patterns of names that stay, or become, float32.
    """

    dtype: torch.dtype | None = None
    float32: tuple[str, ...] = ()

    def apply(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor in its dtype; 8-bit numbers mean nothing without their scales and stay as they are."""
        if not tensor.is_floating_point() or tensor.dtype.itemsize == 1:
            return tensor
        if any(fnmatchcase(name, pattern) for pattern in self.float32):
            return tensor.float()
        return tensor if self.dtype is None else tensor.to(self.dtype)


AS_STORED = DtypePolicy()


def open_weights(path: Path, kind: str = "tensors") -> Weights:
    """Opens a released or converted file or directory.

    Args:
        path: the file; or a directory of shards, of a converted set, or of a distributed
            checkpoint.
        kind: whose naming the file follows, a key of `lyra_core.weights.keys.RULES`.

    Raises:
        UnsafePickleError: a pickle asked for a name outside the allow-list.
        StateDictError: the file holds what is not a tensor, or a name twice.
        WeightsError: missing, truncated, damaged, or of an unknown format.
    """
    if kind not in RULES:
        raise WeightsError(f"weights of kind {kind!r} are unknown; known are {', '.join(RULES)}")
    path = Path(path)
    listed, others, skipped = _list(path)
    keys = map_keys([*(tensor.name for tensor in listed), *others], RULES[kind])
    if strangers := [key for key in others if key in keys.names]:
        raise StateDictError(f"{path} holds values that are no tensors:\n{section('unexpected', strangers)}")
    stored = {keys.names[t.name]: replace(t, name=keys.names[t.name]) for t in listed if t.name in keys.names}
    if not stored:
        raise WeightsError(f"{path} holds no tensors of kind {kind!r}")
    return Weights(path, stored, (*keys.ignored, *skipped))


def _list(path: Path) -> tuple[list[StoredTensor], list[str], list[str]]:
    """Tensors, other values, and parts beside the state dict that are skipped whole."""
    if path.is_dir():
        return _list_directory(path)
    if not path.is_file():
        raise WeightsError(f"{path} does not exist; `lyra weights fetch` or docs/weights.md says where to get it")
    if path.suffix == ".safetensors":
        return list(list_safetensors(path)), [], []
    if path.name.endswith(".safetensors.index.json"):
        return list(list_sharded(path)), [], []
    return _unwrap(path)


def _list_directory(path: Path) -> tuple[list[StoredTensor], list[str], list[str]]:
    # The released Lyra 2 checkpoint lies one level down, in model/model.
    for directory in (path, path / "model"):
        if (directory / ".metadata").is_file():
            listing = list_pickled(directory)
            return (
                [t.stored for t in listing.tensors],
                [".".join(other) for other in listing.others],
                [],
            )
    indices = sorted(path.glob("*.safetensors.index.json"))
    singles = sorted(path.glob("*.safetensors"))
    if len(indices) == 1:
        return list(list_sharded(indices[0])), [], []
    if not indices and len(singles) == 1:
        return list(list_safetensors(singles[0])), [], []
    raise WeightsError(
        f"{path} should hold one .safetensors file, one *.safetensors.index.json with its shards, "
        "or a distributed "
        f"checkpoint (.metadata); found {len(singles)} .safetensors and {len(indices)} indices"
    )


def _unwrap(path: Path) -> tuple[list[StoredTensor], list[str], list[str]]:
    """The state dict of a file of torch.save, which may be wrapped in one or more dictionaries."""
    listing = list_pickled(path)
    tensors, others = list(listing.tensors), list(listing.others)
    skipped: list[str] = []
    depth = 0
    # State dicts are flat: a dictionary under the name "model" or the like is a wrapper, and what
    # lies beside it
    # (optimizer, counters) is none of ours.
    while wrapper := next((n for n in WRAPPERS if any(_is_within(t.path, depth, n) for t in tensors)), None):
        skipped += sorted({t.path[depth] for t in tensors} - {wrapper})
        tensors = [tensor for tensor in tensors if _is_within(tensor.path, depth, wrapper)]
        others = [other for other in others if _is_within(other, depth, wrapper)]
        depth += 1
    named = [replace(tensor.stored, name=_name(tensor, depth)) for tensor in tensors]
    return named, [".".join(other[depth:]) for other in others], skipped


def _is_within(path: tuple[str, ...], depth: int, wrapper: str) -> bool:
    return len(path) > depth + 1 and path[depth] == wrapper


def _name(tensor: PickledTensor, depth: int) -> str:
    return ".".join(tensor.path[depth:])


def load_into(
    module: torch.nn.Module,
    tensors: Mapping[str, torch.Tensor],
    *,
    dtype: DtypePolicy = AS_STORED,
    device: str | torch.device = "cpu",
    origin: str = "",
) -> None:
    """Gives a module, usually built on the meta device, its weights; nothing is loaded unless
    everything fits.

    Args:
        module: takes the tensors by assignment, without a copy where dtype and device allow.
        tensors: by the module's own names; `Weights` or a plain dictionary.
        dtype: the dtype of floating-point tensors.
        device: where the tensors go.
        origin: names the tensors in messages.

    Raises:
        StateDictError: missing, unexpected or wrong-shape keys, or a part of the module that no
            key fills.
    """
    origin = origin or str(getattr(tensors, "path", type(module).__name__))
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = (
        tensors.shapes
        if isinstance(tensors, Weights)
        else {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    )
    require_match(found, wanted, origin)
    module.load_state_dict(
        {name: dtype.apply(name, tensors[name]).to(device) for name in wanted},
        strict=True,
        assign=True,
    )
    empty = [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if tensor.is_meta]
    if empty:
        raise StateDictError(
            f"{origin} fills every key, yet parts of the module have no content (non-persistent "
            "buffers built on the "
            f"meta device):\n{section('without content', empty)}"
        )
