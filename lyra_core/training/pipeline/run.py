"""One try of a step: its commands as processes one after the other, with a log, and an end that leaves none behind."""

from __future__ import annotations

import datetime as dt
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_core.extras import require

if TYPE_CHECKING:
    import psutil

TRAINING = ("-m", "lyra_core.training")
GRACE_S = 10.0


def launched(command: Sequence[str], processes: int) -> list[str]:
    """A Python command line; training commands of several processes go through torchrun."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    is_spread = processes > 1 and tuple(command[:2]) == TRAINING
    return [sys.executable, *(several if is_spread else ()), *command]


def filled(command: Sequence[str], places: Mapping[str, str]) -> list[str]:
    """Arguments with their places filled in; one with a * becomes the files that match it, in order, if any do.

    `--option=PATTERN` becomes the option once for each file.
    """
    arguments: list[str] = []
    for argument in command:
        text = argument
        for name, place in places.items():
            text = text.replace("{" + name + "}", place)
        option, equals, pattern = text.rpartition("=") if text.startswith("--") else ("", "", text)
        # code and plain words are no patterns of files
        matches = sorted(glob(pattern)) if "*" in pattern and os.path.isabs(pattern) else []  # noqa: PTH117, PTH207
        arguments += [f"{option}{equals}{match}" for match in matches] or [text]
    return arguments


class Run:
    """Runs commands one after the other and knows how they ended.

    Args:
        commands: arguments of Python with places to be filled in.
        places: what to fill in, by name.
        gpus: names of the GPUs that the processes see.
        processes: how many train together.
        folder: to run in.
        log: receives all that they say, after what it holds.
        environment: of the processes.
    """

    def __init__(
        self,
        commands: Sequence[Sequence[str]],
        places: Mapping[str, str],
        *,
        gpus: Sequence[str],
        processes: int = 1,
        folder: Path,
        log: Path,
        environment: Mapping[str, str],
    ) -> None:
        require("psutil", "running the commands of a training")  # before there are processes to end
        self._left, self._places = list(commands), places
        self.gpus, self._processes, self._folder, self.log = tuple(gpus), processes, folder, log
        # a step without GPUs sees none: it would take memory of one that another step measures or fills
        self._environment = {**environment, "CUDA_VISIBLE_DEVICES": ",".join(gpus)}
        self.begun = time.monotonic()
        self.start = log.stat().st_size if log.is_file() else 0
        """Byte of the log at which this try begins."""
        self._process: subprocess.Popen[bytes] | None = None
        self._family: list[psutil.Process] = []
        """Those that were asked to end."""
        self._next()

    def _next(self) -> None:
        command = launched(filled(self._left.pop(0), self._places), self._processes)
        with self.log.open("ab") as file:
            now = dt.datetime.now().astimezone().isoformat(timespec="seconds")
            file.write(f"== {now} GPUs {','.join(self.gpus) or 'none'}: {shlex.join(command)}\n".encode())
            file.flush()
            # a session of its own: a Ctrl-C in the terminal reaches the pipeline alone, which ends its steps in order
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env=dict(self._environment),
                start_new_session=True,
            )

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self.begun

    def poll(self) -> int | None:
        """Exit status of the first command that failed, 0 after the last one, None while something runs."""
        if self._process is None:
            return 0
        status = self._process.poll()
        if status is None or status != 0 or not self._left:
            return status
        self._next()
        return None

    def ask(self) -> None:
        """Ask the processes to end, once, and start no further command."""
        self._left.clear()
        if self._process is not None and self._process.poll() is None and not self._family:
            # torchrun gives its processes sessions of their own, so the group alone would miss them
            self._family = _family(self._process.pid)
            with _gone():
                os.killpg(self._process.pid, signal.SIGTERM)

    def end(self, grace_s: float = GRACE_S) -> None:
        """Ask the processes to end, and end those that do not within `grace_s` seconds."""
        if self._process is None:
            return
        self.ask()
        import psutil

        _, alive = psutil.wait_procs(self._family, timeout=grace_s)
        for process in alive:
            with _gone():
                process.kill()
        self._process.wait()
        with _gone():  # processes that prepare scenes wait for ever where their parent was killed
            os.killpg(self._process.pid, signal.SIGKILL)


def _family(pid: int) -> list[psutil.Process]:
    import psutil

    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@contextmanager
def _gone() -> Iterator[None]:
    """Whoever has ended meanwhile needs no signal."""
    import psutil

    try:
        yield
    except (ProcessLookupError, psutil.NoSuchProcess):
        return
