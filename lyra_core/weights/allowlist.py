"""The allow-list: the only names a pickle of weights may ask for, each answered by an inert
stand-in.

Never the real thing: not even an allowed name can run foreign code. Runs inside the isolated
process of `unpickle.py`.
"""

from __future__ import annotations

import _compat_pickle
import collections
import pickle
from typing import NamedTuple

from lyra_core.errors import UnsafePickleError, WeightsError

DTYPES = {
    "float64": "F64", "double": "F64", "float32": "F32", "float": "F32", "float16": "F16",
    "half": "F16", "bfloat16": "BF16", "int64": "I64", "long": "I64", "int32": "I32", "int": "I32",
    "int16": "I16", "short": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip
STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
    "ByteStorage": "U8", "BoolStorage": "BOOL", "UntypedStorage": "U8",
}  # fmt: skip


class Dtype(NamedTuple):
    """Stands for a torch.dtype, by its safetensors name."""

    name: str


class Storage(NamedTuple):
    """Stands for a torch storage: the record that holds its bytes, not the bytes."""

    key: str
    dtype: str
    numel: int


class Strided(NamedTuple):
    """Stands for a tensor: a strided view of a storage, in elements."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Inert:
    """Stands for an object that is only kept for its attributes."""

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update({str(name): value for name, value in state.items()})
        else:
            self.state = state


class Index(Inert):
    """Stands for torch.distributed.checkpoint.metadata.MetadataIndex; hashable before its state is
    set."""


class Chunk(Inert):
    """Stands for ChunkStorageMetadata."""


class TensorEntry(Inert):
    """Stands for TensorStorageMetadata."""


class BytesEntry(Inert):
    """Stands for BytesStorageMetadata: a foreign pickle inside a checkpoint, which is never
    opened."""


def integers(values: object) -> tuple[int, ...]:
    """The values as a tuple of non-negative integers.

    Raises:
        WeightsError: they are something else.
    """
    if not isinstance(values, list | tuple) or not all(type(value) is int and value >= 0 for value in values):
        raise WeightsError(f"a size, stride or offset should be a list of non-negative integers, found {values!r:.80}")
    return tuple(values)


def _rebuild(storage: object, offset: object, shape: object, strides: object, dtype: str | None) -> Strided:
    if not isinstance(storage, Storage) or type(offset) is not int or offset < 0:
        raise WeightsError("a tensor does not refer to a storage record")
    sizes, steps = integers(shape), integers(strides)
    if len(sizes) != len(steps):
        raise WeightsError("a tensor has unequal numbers of sizes and strides")
    return Strided(storage, dtype or storage.dtype, offset, sizes, steps)


def _rebuild_tensor(storage: object, offset: object, shape: object, strides: object, *rest: object) -> Strided:
    # rest: requires_grad, hooks, and the conjugate and negative bits of lazily evaluated tensors
    if len(rest) > 2 and rest[2]:
        raise WeightsError("a tensor was saved before it was evaluated; save it again resolved")
    return _rebuild(storage, offset, shape, strides, None)


def _rebuild_tensor_v3(
    storage: object,
    offset: object,
    shape: object,
    strides: object,
    _grad: object,
    _hooks: object,
    dtype: object,
    *_: object,
) -> Strided:
    if not isinstance(dtype, Dtype):
        raise WeightsError("a tensor names no known dtype")
    return _rebuild(storage, offset, shape, strides, dtype.name)


def _rebuild_parameter(data: object, *_: object) -> object:
    return data


def _size(values: object = ()) -> tuple[int, ...]:
    return integers(values)


def _dictionary(*_: object) -> dict[object, object]:
    return {}


def _ignored(*arguments: object) -> Inert:
    return Inert(*arguments)


_DCP = "torch.distributed.checkpoint.metadata"
_FILES = "torch.distributed.checkpoint.filesystem"
_OLD = "torch.distributed._shard.sharded_tensor.metadata"

ALLOWED: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_tensor_v3,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("torch.nn.parameter", "Parameter"): _rebuild_parameter,
    ("torch.serialization", "_get_layout"): _ignored,
    ("torch", "device"): _ignored,
    ("torch", "Size"): _size,
    ("pathlib", "PosixPath"): _ignored,
    ("pathlib", "PurePosixPath"): _ignored,
    ("pathlib._local", "PosixPath"): _ignored,
    (_DCP, "Metadata"): Inert,
    (_DCP, "MetadataIndex"): Index,
    (_DCP, "TensorStorageMetadata"): TensorEntry,
    (_DCP, "BytesStorageMetadata"): BytesEntry,
    (_DCP, "ChunkStorageMetadata"): Chunk,
    (_DCP, "TensorProperties"): Inert,
    (_DCP, "StorageMeta"): Inert,
    (_DCP, "_MEM_FORMAT_ENCODING"): _ignored,
    (_FILES, "_StorageInfo"): Inert,
    (_FILES, "_StoragePrefix"): Inert,
    (_OLD, "TensorProperties"): Inert,
    (_OLD, "MEM_FORMAT_ENCODING"): _ignored,
    # What training code leaves beside the weights: random states, arguments, counters.
    **{
        (f"numpy{core}.multiarray", name): _ignored
        for core in (".core", "._core")
        for name in ("_reconstruct", "scalar")
    },
    ("numpy", "ndarray"): _ignored,
    ("numpy", "dtype"): _ignored,
    ("_codecs", "encode"): _ignored,
    ("argparse", "Namespace"): Inert,
    ("builtins", "set"): _ignored,
    ("collections", "defaultdict"): _dictionary,
    ("builtins", "dict"): _dictionary,
    **{("torch", name): Dtype(code) for name, code in DTYPES.items()},
    **{("torch", name): code for name, code in STORAGES.items()},
    ("torch.storage", "UntypedStorage"): "U8",
}


# What a plain pickle of captions holds beside its texts: embeddings, which are tensors within the pickle itself.
BESIDE_CAPTIONS: dict[tuple[str, str], object] = {
    **ALLOWED,
    **{("torch._utils", name): _ignored for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3")},
    ("torch._utils", "_rebuild_parameter"): _ignored,
    ("torch.storage", "_load_from_bytes"): _ignored,
}


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler for which only the names of ALLOWED exist."""

    names = ALLOWED

    def find_class(self, module: str, name: str) -> object:
        """The stand-in of a name.

        Raises:
            UnsafePickleError: the name is not in the allow-list.
        """
        # Protocols 0 to 2 write the names that modules had in Python 2 ("__builtin__").
        module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        if (module, name) not in self.names:
            raise UnsafePickleError(f"{module}.{name}")
        return self.names[module, name]

    def persistent_load(self, reference: object) -> Storage:
        """A storage record named by torch's persistent id ('storage', class, key, location,
        numel).

        Raises:
            WeightsError: the id names no storage of a known class.
        """
        if not isinstance(reference, tuple) or len(reference) < 5 or reference[0] != "storage":
            raise WeightsError("a persistent id does not name a storage")
        dtype, key, numel = reference[1], reference[2], reference[4]
        if dtype not in STORAGES.values() or not isinstance(key, str) or type(numel) is not int or numel < 0:
            raise WeightsError("a persistent id names no known storage class, key or size")
        if len(reference) > 5 and reference[5] is not None:
            raise WeightsError(
                "views of storages (torch < 0.4) are not supported; save the file again with a newer torch"
            )
        return Storage(key, dtype, numel)


class CaptionUnpickler(RestrictedUnpickler):
    """An unpickler of captions: texts come through, tensors beside them become nothing."""

    names = BESIDE_CAPTIONS
