"""Gaussians as .ply in the layout every splat viewer reads: INRIA 3DGS (Kerbl et al. 2023,
released code).

One `vertex` element of little-endian float32: x y z, nx ny nz (zero), f_dc_0..2, f_rest_*
(channel-major: all of red, then green, then blue), opacity (logit), scale_0..2 (natural
logarithm), rot_0..3 (wxyz). Where the Gaussians tell their parts, a last property `part` follows
(0, 1, 2: lyra_core.values.Part). It is a float like all others, although a byte would do: readers
pass over a property they do not know, but some (gsply 0.4.6) take every row for floats only, and
read nonsense, without an error, where one is a byte.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from lyra_core.errors import FormatError, GaussiansError
from lyra_core.replacing import replacing
from lyra_core.values import Gaussians, Part

# 64k rows keep the interleaved buffer inside the second-level cache: measured fastest of 16k to 1M.
CHUNK_ROWS = 65_536
READ_ROWS = 4_096
# An opacity of exactly 0 or 1 has no finite logit.
OPACITY_EPS = 1e-6
# Rounding may leave an opacity a little outside [0, 1]; more than this is a logit passed by
# mistake.
OPACITY_SLACK = 1e-3
MAX_HEADER_BYTES = 65_536
FULL_COEFFICIENTS = 16  # of degree 3

_REQUIRED = (
    *("x", "y", "z"),
    *("f_dc_0", "f_dc_1", "f_dc_2"),
    "opacity",
    *("scale_0", "scale_1", "scale_2"),
    *("rot_0", "rot_1", "rot_2", "rot_3"),
)
_SCALAR_TYPES = {
    "char": "i1",
    "int8": "i1",
    "uchar": "u1",
    "uint8": "u1",
    "short": "i2",
    "int16": "i2",
    "ushort": "u2",
    "uint16": "u2",
    "int": "i4",
    "int32": "i4",
    "uint": "u4",
    "uint32": "u4",
    "float": "f4",
    "float32": "f4",
    "double": "f8",
    "float64": "f8",
}


def write_ply(gaussians: Gaussians, path: str | Path) -> None:
    """Write Gaussians to a .ply, whole or not at all.

    Opacities are clamped to [1e-6, 1 - 1e-6] before their logit is taken.

    Raises:
        GaussiansError: nothing to write, non-finite values, scales that are not positive, opacities
            outside [0, 1]; the message names the field and counts the Gaussians.
    """
    _require_writable(gaussians)
    fields = {
        name: getattr(gaussians, name).detach().to("cpu", torch.float32).numpy()
        for name in ("means", "quats", "scales", "opacities", "sh")
    }
    num_rest = 3 * (fields["sh"].shape[1] - 1)
    names = _property_names(num_rest) + ([] if gaussians.part is None else ["part"])
    header = "\n".join(
        [
            "ply",
            "format binary_little_endian 1.0",
            f"element vertex {len(gaussians)}",
            *(f"property float {name}" for name in names),
            "end_header\n",
        ]
    )
    part = None if gaussians.part is None else gaussians.part.to("cpu").numpy()
    with replacing(path) as temporary, temporary.open("wb", buffering=0) as file:
        file.write(header.encode("ascii"))
        _write_rows(file, fields, num_rest, part)


def write_full_ply(gaussians: Gaussians, path: str | Path) -> None:
    """Write exactly the 62 properties of degree 3, zeros where the Gaussians have a lower one, without their parts.

    INRIA's viewers and trainers accept no other number.

    Raises:
        GaussiansError: as write_ply.
    """
    sh = torch.nn.functional.pad(gaussians.sh, (0, 0, 0, FULL_COEFFICIENTS - gaussians.sh.shape[1]))
    write_ply(replace(gaussians, sh=sh, part=None), path)


def read_ply(path: str | Path) -> Gaussians:
    """Read Gaussians from a .ply.

    Accepts any property order and type, missing normals or f_rest, extra properties, and big-endian
    or text bodies. Quaternions are normalised; unit ones keep their bits. A property `part` is
    read as the Gaussians' parts if each of its values is one.

    Raises:
        FormatError: not a .ply, truncated, without Gaussians, a required property missing, NaN.
    """
    path = Path(path)
    columns = _read_columns(path)
    missing = [name for name in _REQUIRED if name not in columns]
    if missing:
        raise FormatError(
            f"{path} is a .ply but not of Gaussians: properties {', '.join(missing)} are missing "
            f"(found {', '.join(list(columns)[:12])}); write it with the 3DGS (INRIA) layout"
        )
    count = len(columns["x"])
    if count == 0:
        raise FormatError(f"{path} holds no Gaussians; it needs at least one vertex")
    degree_coefficients = _rest_coefficients(columns, path)
    sh_names = [
        f"f_dc_{channel}" if k == 0 else f"f_rest_{channel * degree_coefficients + k - 1}"
        for k in range(degree_coefficients + 1)
        for channel in range(3)
    ]
    sh = _stack(columns, *sh_names).reshape(count, degree_coefficients + 1, 3)
    stacked = {
        "means": _stack(columns, "x", "y", "z"),
        "quats": _stack(columns, "rot_0", "rot_1", "rot_2", "rot_3"),
        "scales": _stack(columns, "scale_0", "scale_1", "scale_2"),
        "sh": sh,
    }
    for name, values in stacked.items():
        _require_finite(values, name, path)
    logit = torch.from_numpy(_stack(columns, "opacity")[:, 0])
    # Writers that do not clamp store infinite logits for opacities of 0 and 1: those are meant.
    if torch.isnan(logit).any():
        raise FormatError(f"{path}: opacity is NaN for {int(torch.isnan(logit).sum())} Gaussians")
    scales = torch.from_numpy(stacked["scales"]).exp()
    if not torch.isfinite(scales).all():
        raise FormatError(f"{path}: scales overflow; they must be stored as natural logarithms")
    return Gaussians(
        means=torch.from_numpy(stacked["means"]),
        quats=_normalized(torch.from_numpy(stacked["quats"])),
        scales=scales,
        opacities=torch.sigmoid(logit),
        sh=torch.from_numpy(sh),
        part=_parts(columns),
    )


def require_finite(gaussians: Gaussians) -> None:
    """Refuse what no file of Gaussians can hold.

    Raises:
        GaussiansError: none at all, or values that are not finite; the message names the field and counts.
    """
    if len(gaussians) == 0:
        raise GaussiansError("a file of Gaussians needs at least one Gaussian, found none")
    for name in ("means", "quats", "scales", "opacities", "sh"):
        values = getattr(gaussians, name)
        # A finite sum proves every value finite and is much cheaper than a mask: look closer only on doubt.
        if bool(torch.isfinite(values.sum())):
            continue
        bad = ~torch.isfinite(values).reshape(len(gaussians), -1).all(1)
        if bad.any():
            raise GaussiansError(
                f"{name} must be finite; {int(bad.sum())} of {len(gaussians)} Gaussians hold NaN or infinity "
                f"(first: {int(bad.nonzero()[0])}); drop them before writing"
            )


def _parts(columns: dict[str, np.ndarray]) -> Tensor | None:
    """The parts, or None where the file has none: a property of that name may mean something else to others."""
    found = columns.get("part")
    if found is None or not np.isin(found, [float(part) for part in Part]).all():
        return None
    return torch.from_numpy(found.astype(np.uint8))


def _property_names(num_rest: int) -> list[str]:
    return [
        *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"),
        *(f"f_rest_{i}" for i in range(num_rest)),
        "opacity",
        *(f"scale_{i}" for i in range(3)),
        *(f"rot_{i}" for i in range(4)),
    ]


def _require_writable(gaussians: Gaussians) -> None:
    require_finite(gaussians)
    if bool(gaussians.scales.min() <= 0):
        flat = int((gaussians.scales <= 0).any(1).sum())
        raise GaussiansError(
            f"scales must be positive metres (their logarithm is stored); {flat} of "
            f"{len(gaussians)} "
            f"Gaussians hold zero or less; clamp them before writing"
        )
    low, high = (float(value) for value in torch.aminmax(gaussians.opacities))
    if low < -OPACITY_SLACK or high > 1 + OPACITY_SLACK:
        raise GaussiansError(
            f"opacities must lie in [0, 1], found {low:.3g} to {high:.3g}; pass linear opacities, not logits"
        )


def _write_rows(file: BinaryIO, fields: dict[str, np.ndarray], num_rest: int, parts: np.ndarray | None) -> None:
    count = len(fields["means"])
    rest_end = 9 + num_rest
    rows = np.zeros((min(CHUNK_ROWS, count), rest_end + 8 + (parts is not None)), "<f4")
    for start in range(0, count, CHUNK_ROWS):
        part = slice(start, min(start + CHUNK_ROWS, count))
        chunk = rows[: part.stop - start]
        sh = fields["sh"][part]
        chunk[:, 0:3] = fields["means"][part]
        chunk[:, 6:9] = sh[:, 0]
        if num_rest:
            chunk[:, 9:rest_end] = sh[:, 1:].transpose(0, 2, 1).reshape(len(chunk), num_rest)
        # float64: in float32, 1 - 1e-6 is off by 5 % and the logit of the clamp would be too.
        opacity = fields["opacities"][part].astype(np.float64).clip(OPACITY_EPS, 1 - OPACITY_EPS)
        chunk[:, rest_end] = np.log(opacity / (1 - opacity))
        chunk[:, rest_end + 1 : rest_end + 4] = np.log(fields["scales"][part])
        chunk[:, rest_end + 4 : rest_end + 8] = fields["quats"][part]
        if parts is not None:
            chunk[:, rest_end + 8] = parts[part]
        file.write(chunk.data.cast("B"))


def _read_columns(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            head = file.read(MAX_HEADER_BYTES)
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error}") from error
    end = head.find(b"end_header")
    newline = head.find(b"\n", end)
    if not head.startswith(b"ply") or end < 0 or newline < 0:
        raise FormatError(f"{path} is not a .ply: wanted a header from 'ply' to 'end_header', found {head[:16]!r}")
    try:
        lines = [line.split() for line in head[:end].decode("ascii").splitlines()]
        kind = next(words[1] for words in lines if words[:1] == ["format"])
        elements = [i for i, words in enumerate(lines) if words[:1] == ["element"]]
        first = lines[elements[0]]
        stop = elements[1] if len(elements) > 1 else len(lines)
        properties = [w[1:] for w in lines[elements[0] : stop] if w[:1] == ["property"]]
        count = int(first[2])
        if count < 0 or any(len(words) < 2 for words in properties):
            raise ValueError("a negative count or a property without a name")
    except (ValueError, IndexError, StopIteration) as error:
        raise FormatError(f"{path} has a malformed .ply header: {error or 'a line is missing'}") from error
    scalar = all(len(words) == 2 and words[0] in _SCALAR_TYPES for words in properties)
    if first[1] != "vertex" or not scalar or kind == "ascii":
        return _read_with_plyfile(path)
    order = {"binary_little_endian": "<", "binary_big_endian": ">"}.get(kind)
    names = [words[1] for words in properties]
    if order is None or len(set(names)) != len(names) or not names:
        raise FormatError(f"{path} has a malformed .ply header: format {kind!r}, properties {names[:12]}")
    row = np.dtype([(words[1], order + _SCALAR_TYPES[words[0]]) for words in properties])
    held = (path.stat().st_size - newline - 1) // row.itemsize
    if held < count:
        raise FormatError(
            f"{path} is truncated: its header promises {count} vertices of {row.itemsize} bytes, "
            f"the file holds {held}; copy it again"
        )
    table = np.fromfile(path, row, count, offset=newline + 1)
    return {name: table[name] for name in names}


def _read_with_plyfile(path: Path) -> dict[str, np.ndarray]:
    from plyfile import PlyData, PlyParseError

    try:
        elements = PlyData.read(str(path))
        vertex = elements["vertex"]
    except (PlyParseError, KeyError, ValueError, EOFError, OSError) as error:
        raise FormatError(f"{path} is a malformed .ply: {error}") from error
    return {item.name: np.asarray(vertex[item.name]) for item in vertex.properties}


def _rest_coefficients(columns: dict[str, np.ndarray], path: Path) -> int:
    count = sum(name.startswith("f_rest_") for name in columns)
    consecutive = all(f"f_rest_{i}" in columns for i in range(count))
    if count not in (0, 9, 24, 45) or not consecutive:
        raise FormatError(
            f"{path} has {count} f_rest properties; degrees 0 to 3 have 0, 9, 24 or 45, numbered from f_rest_0"
        )
    return count // 3


def _stack(columns: dict[str, np.ndarray], *names: str) -> np.ndarray:
    count = len(columns[names[0]])
    stacked = np.empty((count, len(names)), np.float32)
    try:
        # By blocks of rows: whole strided columns would fetch every cache line of the file once a
        # column.
        for start in range(0, count, READ_ROWS):
            part = slice(start, start + READ_ROWS)
            for i, name in enumerate(names):
                stacked[part, i] = columns[name][part]
    except (TypeError, ValueError) as error:
        raise FormatError(f"property {name} of a .ply of Gaussians must be a number: {error}") from error
    return stacked


def _require_finite(values: np.ndarray, name: str, path: Path) -> None:
    bad = ~np.isfinite(values).reshape(len(values), -1).all(1)
    if bad.any():
        raise FormatError(
            f"{path}: {name} of {int(bad.sum())} of {len(values)} Gaussians are NaN or infinite "
            f"(first: {int(bad.argmax())}); the program that wrote it must drop them"
        )


def _normalized(quats: Tensor) -> Tensor:
    norm = quats.norm(dim=1, keepdim=True)
    identity = quats.new_tensor([1.0, 0.0, 0.0, 0.0])
    unit = torch.where(norm > 0, quats / norm.clamp_min(1e-30), identity)
    return torch.where((norm - 1).abs() < 1e-5, quats, unit)
