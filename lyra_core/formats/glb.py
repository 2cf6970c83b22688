"""The container of binary glTF 2.0 files (Khronos specification 2.0, section 4.4): arrays and a JSON document."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from lyra_core.replacing import replacing

ARRAY_BUFFER, ELEMENT_BUFFER = 34962, 34963
_COMPONENTS = {"float32": 5126, "uint32": 5125, "uint8": 5121}
_TYPES = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}


class GlbWriter:
    """Arrays of a glTF file, each with a view and an accessor of its own; written with the document that names them."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._views: list[dict[str, object]] = []
        self._accessors: list[dict[str, object]] = []
        self._length = 0

    def add(
        self,
        array: Shaped[np.ndarray, ...],
        target: int = ARRAY_BUFFER,
        *,
        is_normalized: bool = False,
        has_bounds: bool = False,
    ) -> int:
        """Take in an array; returns its accessor.

        Args:
            array: float32, uint32 or uint8; one row an element, or flat for scalars.
            target: what the buffer view is for.
            is_normalized: integers stand for 0 to 1.
            has_bounds: the accessor tells least and greatest values, as those of POSITION must.
        """
        data = np.ascontiguousarray(array).tobytes()
        accessor: dict[str, object] = {"bufferView": len(self._views), "componentType": _COMPONENTS[array.dtype.name]}
        if is_normalized:
            accessor["normalized"] = True
        accessor |= {"count": len(array), "type": _TYPES[1 if array.ndim == 1 else array.shape[1]]}
        if has_bounds:
            accessor |= {"min": array.min(0).tolist(), "max": array.max(0).tolist()}
        view: dict[str, object] = {"buffer": 0, "byteOffset": self._length, "byteLength": len(data), "target": target}
        padding = -len(data) % 4
        self._blocks += [data, b"\0" * padding]
        self._views.append(view)
        self._accessors.append(accessor)
        self._length += len(data) + padding
        return len(self._accessors) - 1

    def write(self, document: dict[str, object], file: str | Path) -> None:
        """Write the document with the arrays, whole or not at all.

        Args:
            document: glTF without `asset.version`, accessors, views and buffers.
            file: usually ends with .glb.
        """
        asset = {"version": "2.0", "generator": "lyra-worlds"}
        given = document.get("asset")
        whole = {
            "asset": asset | given if isinstance(given, dict) else asset,
            **{name: value for name, value in document.items() if name != "asset"},
            "accessors": self._accessors,
            "bufferViews": self._views,
            "buffers": [{"byteLength": self._length}],
        }
        header = json.dumps(whole, separators=(",", ":"), allow_nan=False).encode()
        header += b" " * (-len(header) % 4)
        with replacing(file) as temporary, temporary.open("wb") as out:
            out.write(struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(header) + 8 + self._length))
            out.write(struct.pack("<I4s", len(header), b"JSON") + header)
            out.write(struct.pack("<I4s", self._length, b"BIN\0"))
            out.writelines(self._blocks)
