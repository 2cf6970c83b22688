"""A step of a pipeline: what is run, on how many GPUs, after what; and its folder, which remembers how far it came.

OUT/STEP/begun.json    what it was begun with
OUT/STEP/full.pt       the checkpoint of a training, to go on from
OUT/STEP/done.json     it is finished: what it was made with, seconds, GPUs, when
OUT/log/STEP.log       everything it said
OUT/earlier/STEP       a former result that a new start replaced
"""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lyra_core.replacing import replacing
from lyra_core.training.checkpoint import FULL_CHECKPOINT, STATE
from lyra_core.training.metrics import METRICS
from lyra_core.weights.ema_weights import WEIGHTS

BEGUN, DONE, SUMMARY = "begun.json", "done.json", "summary.json"
Command = tuple[str, ...]
Identity = dict[str, Any]
TAIL_BYTES = 65_536
_ERROR = re.compile(r"^(?:\[rank\d+\]: ?)?([\w.]*(?:Error|Exception|Interrupt)\b(?::.*)?)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step.

    Attributes:
        name: of its folder and log.
        commands: arguments of Python, run one after the other. {out}, {views} and other places are filled in at the
            start, and an argument with a * becomes the files it matches, as in a shell.
        gpus: how many it uses at most; None for all of the machine, 0 for none. A smaller machine gives what it has.
        least: how many it starts with at least; None for as many as `gpus`.
        minutes: of training, which can be paused and continued; 0 for steps that are no trainings.
        after: steps whose results it needs.
        makes: a file or folder outside its own folder that it leaves, with places as in commands.
        is_kept: whether what it makes is used as it is where it is there already, whoever made it.
    """

    name: str
    commands: tuple[Command, ...]
    gpus: int | None = 0
    least: int | None = None
    minutes: float = 0.0
    after: tuple[str, ...] = ()
    makes: str = ""
    is_kept: bool = False

    @property
    def is_training(self) -> bool:
        """Whether it writes checkpoints and stops when asked to."""
        return self.minutes > 0


class StepFolder:
    """What a step has written below the folder of its pipeline."""

    def __init__(self, step: Step, out: Path) -> None:
        self.step, self.out = step, out
        self.path, self.log = out / step.name, out / "log" / f"{step.name}.log"

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder; empty where there is none that can be read."""
        try:
            document = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return document if isinstance(document, dict) else {}

    def write(self, name: str, document: dict[str, Any]) -> None:
        """Write a JSON file, which appears whole."""
        with replacing(self.path / name) as partial:
            partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    @property
    def ended(self) -> float | None:
        """When it was finished, in seconds since 1970; None where it is not, or its weights are gone."""
        ended_at = self.read(DONE).get("ended")
        is_whole = not self.step.is_training or (self.path / WEIGHTS).is_file()
        return float(ended_at) if isinstance(ended_at, int | float) and is_whole else None

    def is_done(self, identity: Identity) -> bool:
        """Whether it was finished with just these arguments and inputs."""
        return self.ended is not None and _same(self.read(DONE), identity)

    def can_resume(self, identity: Identity) -> bool:
        """Whether there is a checkpoint of just these arguments and inputs."""
        return self.checkpoint.is_file() and self.step.is_training and _same(self.read(BEGUN), identity)

    @property
    def checkpoint(self) -> Path:
        """What a training goes on from."""
        return self.path / FULL_CHECKPOINT

    def begin(self, identity: Identity) -> bool:
        """Make ready for a start; returns whether it goes on from a checkpoint.

        What is there and cannot be continued is moved to OUT/earlier, where it replaces what was moved before.
        """
        resumes = self.can_resume(identity)
        if self.path.exists() and not resumes:
            earlier = self.out / "earlier" / self.step.name
            shutil.rmtree(earlier, ignore_errors=True)
            earlier.parent.mkdir(parents=True, exist_ok=True)
            self.path.rename(earlier)
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / DONE).unlink(missing_ok=True)
        if not resumes:
            self.write(BEGUN, identity)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        return resumes

    def spend(self, seconds: float) -> float:
        """Add seconds to those of earlier calls; returns the sum."""
        begun = self.read(BEGUN)
        total = float(begun.get("seconds", 0.0)) + seconds
        self.write(BEGUN, {**begun, "seconds": round(total, 1)})
        return total

    def progress(self) -> float:
        """Share of the training that is over; 1 for steps that are none."""
        return float(self.read(STATE).get("progress", 0.0)) if self.step.is_training else 1.0

    def missing(self) -> list[str]:
        """Files that a finished training leaves and that are not there."""
        expected = (WEIGHTS, SUMMARY) if self.step.is_training else ()
        return [name for name in expected if not (self.path / name).is_file()]

    def measures(self, most: int = 4) -> dict[str, float]:
        """The last measures of a training: those of its last evaluation, or its loss."""
        try:
            lines = (self.path / METRICS).read_text(encoding="utf-8").splitlines()
            rows = [json.loads(line) for line in lines[-40:]]
        except (OSError, ValueError):
            return {}
        measured = [row for row in rows if "loss" not in row]
        row = measured[-1] if measured else {"loss": rows[-1]["loss"]} if rows else {}
        shown = [(k, v) for k, v in row.items() if k not in ("step", "elapsed_s") and math.isfinite(v)]
        return dict(shown[:most])


def _same(marker: dict[str, Any], identity: Identity) -> bool:
    """Whether a marker is of this identity, as it looks after its way through JSON."""
    expected = json.loads(json.dumps(identity))
    return {key: marker.get(key) for key in expected} == expected


def last_line(log: Path, start: int = 0) -> str:
    """The last line that a process wrote, from byte `start` on."""
    lines = _lines(log, start)
    return lines[-1] if lines else "nothing was said"


def telling_line(log: Path, start: int = 0) -> str:
    """The line that says why a process ended: its last exception, else its last line.

    torchrun adds a report of its own, which says only that a process ended; the reason stands above it.
    """
    lines = _lines(log, start)
    cut = next((i for i, line in enumerate(lines) if re.match(r"^E\d{4} .*torch/distributed/elastic", line)), None)
    own = [line for line in lines[:cut] if not re.match(r"^[WI]\d{4} ", line)]
    errors = [match[1] for line in own if (match := _ERROR.match(line))]
    if errors:
        return errors[-1]
    told = own or lines
    return told[-1] if told else "nothing was said"


def _lines(log: Path, start: int) -> list[str]:
    """Lines of the end of a log that say something."""
    if not log.is_file():
        return []
    with log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - TAIL_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    # bars of progress write over their line
    lines = (line.rpartition("\r")[2].rstrip() for line in text.replace("\r\n", "\n").split("\n"))
    return [line for line in lines if line.strip(" =-─")]
