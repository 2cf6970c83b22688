"""A user's desk for benchmarks/daily_inputs.py: folders, photographs, the lyra command, and what it said."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
TINY = ("--recipe", "parallax", "--set", "width=96", "--set", "height=64", "--set", "flythrough_frames=2")
INLINE = (*TINY, "--set", "quality_views=0", "--ray", "off")
_COUNTS = {"made": r"would be made +([\d,]+)", "rejects": r"rejected +([\d,]+)", "existing": r"exist already +([\d,]+)"}


@dataclass(frozen=True)
class Told:
    """One command: its exit code and everything it wrote."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err

    def count(self, what: str) -> int:
        """A number of a dry run's report; 0 where it made none."""
        found = re.search(_COUNTS[what], self.out)
        return int(found[1].replace(",", "")) if found else 0

    @property
    def sentence(self) -> str:
        """The first sentence about something that was wrong or noticed; else the last line."""
        lines = [line.strip() for line in (self.err + "\n" + self.out).splitlines() if line.strip()]
        told = [line for line in lines if re.match(r"(error|would be rejected|rejected|rejected \S+): ", line)] or [
            line for line in lines if line in self.err and not re.match(r"starting workers|done ", line)
        ]
        return (told or lines[-1:] or [""])[0].removeprefix("would be ").removeprefix("rejected: ")


@dataclass(slots=True, kw_only=True)
class Finding:
    """A line of the table; `faults` is empty where everything promised was kept."""

    group: str
    case: str
    code: int | None = None
    made: int = 0
    rejects: int = 0
    told: str = ""
    faults: list[str] = field(default_factory=list)

    def require(self, holds: object, otherwise: str) -> None:
        """A promise, and what is written down where it is broken."""
        if not holds:
            self.faults.append(otherwise)

    def listen(self, told: Told, code: int | None = None) -> Told:
        """Take a command's outcome into this line."""
        self.code = told.code
        self.told = self.told or told.sentence
        self.require("Traceback" not in told.text, "a traceback")
        self.require("\x1b]" not in told.text, "an escape sequence of the data reached the screen")
        if code is not None:
            self.require(told.code == code, f"exit code {told.code} instead of {code}: {told.text[-300:]!r}")
        return told


@dataclass(slots=True)
class Desk:
    """Where cases are built and the command is run; one home, and with it one Prefect server, for all of them."""

    root: Path
    environment: dict[str, str]

    def folder(self, name: str) -> Path:
        path = self.root / re.sub(r"\W+", "-", name).strip("-")[:60]
        path.mkdir(parents=True)
        return path

    def lyra(self, *arguments: object, cwd: Path | None = None, timeout: float = 240, **environment: str) -> Told:
        """The command as a user types it; 124 where it did not end in time."""
        command = [sys.executable, "-c", "from lyra_core._launch import main; main()", *map(str, arguments)]
        try:
            done = subprocess.run(
                command,
                cwd=cwd or self.root,
                env={**self.environment, **environment},
                capture_output=True,
                check=False,
                timeout=timeout,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired as late:
            return Told(124, _text(late.stdout), _text(late.stderr))
        return Told(done.returncode, _text(done.stdout), _text(done.stderr))

    def rows(self, out: object, sql: str) -> list[dict]:
        """What the catalog says."""
        told = self.lyra("query", out, sql, "--json")
        return json.loads(told.out) if told.code == 0 else []


def _text(data: bytes | str | None) -> str:
    return data.decode(errors="replace") if isinstance(data, bytes) else data or ""


def picture(seed: int = 0, width: int = 160, height: int = 100) -> Image.Image:
    """A synthetic photograph: sky, ground, discs; another one for every seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    pixels = np.stack([120 + 90 * x, 150 + 60 * y, 210 - 150 * y], -1)
    for _ in range(12):
        cx, cy, radius = rng.uniform(0, 1), rng.uniform(0.2, 0.7), rng.uniform(0.02, 0.15)
        pixels[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = rng.uniform(20, 235, 3)
    return Image.fromarray((pixels + rng.normal(0, 4, pixels.shape)).clip(0, 255).astype("uint8"))


def jpeg(seed: int = 0, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture(seed).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def put(folder: Path, *names: str) -> None:
    """Photographs under these names, all different."""
    for index, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(index + 1))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


Build = Callable[[Path], Sequence[object]]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A case that planning decides: what is built, what is asked for, and what must be said.

    Attributes:
        build: fills the folder and returns what follows `lyra run`.
        made: worlds that would be made.
        rejects: seeds that would be rejected, each with one sentence.
        says: a pattern of what must be told.
        code: of the dry run.
    """

    group: str
    case: str
    build: Build
    made: int = 0
    rejects: int = 0
    says: str = ""
    code: int = 0

    def run(self, desk: Desk) -> Finding:
        finding = Finding(group=self.group, case=self.case)
        folder = desk.folder(f"{self.group} {self.case}")
        arguments = self.build(folder)
        told = finding.listen(
            desk.lyra("run", *arguments, "--out", folder / "worlds", "--dry-run", cwd=folder, timeout=60), self.code
        )
        finding.made, finding.rejects = told.count("made"), told.count("rejects")
        finding.require(finding.made == self.made, f"{finding.made} planned instead of {self.made}")
        finding.require(finding.rejects == self.rejects, f"{finding.rejects} rejects instead of {self.rejects}")
        sentences = told.out.count("would be rejected: ")
        finding.require(sentences == min(10, self.rejects), f"{sentences} sentences for {self.rejects} rejects")
        finding.require(re.search(self.says, told.text, re.DOTALL), f"nothing told like {self.says!r}")
        finding.require(len(told.text) < 8000, f"{len(told.text)} characters were printed")
        finding.require(not (folder / "worlds").exists(), "a dry run wrote")
        return finding


def environment_of(home: Path) -> dict[str, str]:
    """This process's, with a home of its own and nothing that points elsewhere."""
    foreign = ("AWS_", "LYRA_", "PREFECT_", "RAY_", "http", "HTTP", "no_proxy", "NO_PROXY")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    return {**kept, "LYRA_HOME": str(home), "COLUMNS": "160"}
