"""Reads pickled weights without trusting them: the pickle is opened once, by another process,
which answers in JSON.

The other process (`unpickle.py`) sees no environment, no packages and no network, may write
nothing, and knows only the
names of an allow-list. What comes back are names, shapes and byte ranges; they are checked here
against the real files.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from lyra_core.errors import UnsafePickleError, WeightsError
from lyra_core.weights.stored import BITS, Piece, StoredTensor, require_sound

TIMEOUT_S = 1800
ROOT = Path(__file__).resolve().parents[2]
# Appended, not inserted: nothing beside this package may stand before the standard library.
BOOTSTRAP = "import sys; sys.path.append(sys.argv[1]); from lyra_core.weights.unpickle import main; sys.exit(main())"


@dataclass(frozen=True, slots=True, kw_only=True)
class PickledTensor:
    """A tensor of a pickled file with the path of dictionary keys that leads to it."""

    path: tuple[str, ...]
    stored: StoredTensor


@dataclass(frozen=True, slots=True, kw_only=True)
class PickledFile:
    """What a pickled file holds.

    Attributes:
        tensors: its tensors.
        others: paths of what is not a tensor (numbers, texts, foreign pickles), none of which was
            interpreted.
    """

    tensors: tuple[PickledTensor, ...]
    others: tuple[tuple[str, ...], ...]


def list_pickled(path: Path) -> PickledFile:
    """Lists a file of torch.save, or a directory of torch.distributed.checkpoint, in an isolated
    process.

    Raises:
        UnsafePickleError: the pickle asked for a name outside the allow-list; nothing was run.
        WeightsError: the file is missing, truncated, tampered with or of an unknown layout.
    """
    distributed = path.is_dir()
    if not (path / ".metadata").is_file() if distributed else not path.is_file():
        raise WeightsError(f"{path} is neither a file of torch.save nor a directory with a .metadata file")
    answer = _ask({"path": str(path.resolve()), "distributed": distributed}, path)
    _require_sound(answer, path, "weights")
    base = path.resolve() if distributed else path.resolve().parent
    tensors, others = answer.get("tensors"), answer.get("others")
    if not isinstance(tensors, list) or not isinstance(others, list):
        raise WeightsError(f"{path}: the reader process gave no index")
    return PickledFile(
        tensors=tuple(_tensor(entry, base, path) for entry in tensors),
        others=tuple(tuple(str(part) for part in entry["path"]) for entry in others),
    )


def read_pickled_captions(path: Path) -> dict[int, str]:
    """Captions by frame of a pickled dictionary, read in an isolated process; tensors beside them are left out.

    Raises:
        UnsafePickleError: the pickle asked for a name outside the allow-list; nothing was run.
        WeightsError: the file is missing, damaged, or holds something else.
    """
    if not path.is_file():
        raise WeightsError(f"{path} should be a file of captions; there is none")
    answer = _ask({"path": str(path.resolve()), "captions": True}, path)
    _require_sound(answer, path, "captions")
    captions = answer.get("captions")
    if not isinstance(captions, list):
        raise WeightsError(f"{path}: the reader process gave no captions")
    return {int(frame): str(text) for frame, text in captions}


def _require_sound(answer: dict[str, object], path: Path, what: str) -> None:
    if forbidden := answer.get("forbidden"):
        raise UnsafePickleError(
            f"{path} asks for '{forbidden}', which no {what} need: it may run code when opened "
            "the usual way. "
            "Nothing of it was run. Do not use this file; fetch it again from its publisher"
        )
    if broken := answer.get("broken"):
        raise WeightsError(f"{path} cannot be read: {broken}")


def _ask(job: dict[str, object], path: Path) -> dict[str, object]:
    try:
        done = subprocess.run(
            # -I: no environment, no user packages; -S: no site-packages; -B: writes no bytecode
            [sys.executable, "-I", "-S", "-B", "-c", BOOTSTRAP, str(ROOT)],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            env={},
            cwd="/",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise WeightsError(f"{path} could not be read within {TIMEOUT_S} s; it is not a file of weights") from None
    lines = done.stderr.strip().splitlines()
    if done.returncode != 0:
        cause = lines[-1] if lines else f"exit status {done.returncode}"
        raise WeightsError(f"{path} cannot be read: the reader process ended without an answer ({cause})")
    answer = json.loads(done.stdout)
    return answer if isinstance(answer, dict) else {}


def _tensor(entry: dict[str, object], base: Path, path: Path) -> PickledTensor:
    """Checks one line of the index: the process that wrote it has read hostile input."""
    keys, dtype, shape, pieces = (entry.get(name) for name in ("path", "dtype", "shape", "pieces"))
    if not isinstance(keys, list) or not isinstance(pieces, list) or not pieces or dtype not in BITS:
        raise WeightsError(f"{path}: the index of {keys} is malformed")
    name = ".".join(str(key) for key in keys)
    stored = StoredTensor(
        name=name,
        dtype=str(dtype),
        shape=_numbers(shape, name),
        pieces=tuple(_piece(piece, base, name) for piece in pieces),
    )
    require_sound(stored)
    return PickledTensor(path=tuple(str(key) for key in keys), stored=stored)


def _numbers(values: object, name: str) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(isinstance(value, int) for value in values):
        raise WeightsError(f"the index of {name} holds something that is not an integer")
    return tuple(values)


def _piece(piece: dict[str, object], base: Path, name: str) -> Piece:
    file, crc = str(piece.get("file")), piece.get("crc")
    if Path(file).name != file:
        raise WeightsError(f"the index of {name} points outside its directory: {file!r}")
    start, length, offset = _numbers([piece.get(key) for key in ("start", "length", "offset")], name)
    return Piece(
        file=base / file,
        start=start,
        length=length,
        crc=crc if isinstance(crc, int) else None,
        offset=offset,
        strides=_numbers(piece.get("strides"), name),
        sizes=_numbers(piece.get("sizes"), name),
        at=_numbers(piece.get("at"), name),
    )
