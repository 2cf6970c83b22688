"""Runs the steps of a pipeline over the GPUs of one machine, each as soon as its inputs and enough GPUs are there.

    status = Pipeline(mini_steps(...), Path("runs/mini"), PipelineConfig(gpus=("0", "1")), print).run()

A step that fails is tried once more, from its last checkpoint where it has one; then the pipeline goes on with what
does not depend on it. Run again, it skips what is finished with the same arguments and inputs and goes on with what was
paused.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lyra_core.errors import ConfigError
from lyra_core.training.pipeline.artifact_sync import sync_artifacts
from lyra_core.training.pipeline.run import Run
from lyra_core.training.pipeline.step import DONE, Command, Identity, Step, StepFolder, last_line, telling_line

State = Literal["waiting", "running", "finished", "was finished", "paused", "failed", "ended", "not started"]
FINISHED: frozenset[State] = frozenset({"finished", "was finished"})
TRIES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineConfig:
    """How a pipeline uses its machine and its time.

    Attributes:
        gpus: names of the GPUs, as CUDA_VISIBLE_DEVICES has them.
        is_spread: whether a training on several of them is a process for each; on a CPU it is one process.
        places: what stands in commands for {name}.
        digests: of places whose content counts (weights to begin with): other content is other arguments.
        environment: of all processes; None for that of this one.
        folder: to run commands in.
        pause_after_s: seconds after which all is paused and this call ends; None runs to the end.
        reserve_s: seconds of them that a training needs when it was asked to stop: to measure and to write pictures.
        least_s: a step that would have less time than this is not started.
        sync_to: folder that receives what each step leaves, at its end.
        part_bytes: larger files arrive there in parts of this size.
        chosen: names of steps to run; None for all. What they need of others must be there already.
        report_every_s: seconds between reports of what runs.
        poll_s: seconds between looks at the processes.
    """

    gpus: tuple[str, ...]
    is_spread: bool = True
    places: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] | None = None
    folder: Path = Path()
    pause_after_s: float | None = None
    reserve_s: float = 90.0
    least_s: float = 60.0
    sync_to: Path | None = None
    part_bytes: int = 15 * 2**20
    chosen: tuple[str, ...] | None = None
    report_every_s: float = 60.0
    poll_s: float = 0.2


@dataclass(slots=True)
class _Standing:
    """How a step stands."""

    step: Step
    folder: StepFolder
    state: State = "waiting"
    tries: int = 0
    run: Run | None = None
    gpus: int = 0
    seconds: float = 0.0
    why: str = ""


class Pipeline:
    """The steps of one call.

    Args:
        steps: in order: where several could start, the first ones do.
        out: their folders and logs.
        config: of machine and time.
        report: receives a line of text now and then.

    Raises:
        ConfigError: steps that need unknown ones or each other, or a choice that cannot be run.
    """

    def __init__(self, steps: Iterable[Step], out: Path, config: PipelineConfig, report: Callable[[str], None]) -> None:
        self.out, self.config, self.say = out.resolve(), config, report
        self.places = {"out": str(self.out), **config.places}
        self.standings = {step.name: _Standing(step, StepFolder(step, self.out)) for step in steps}
        self._free = list(config.gpus)
        self._begun = time.monotonic()
        self._signal: int | None = None
        self._check()

    def _check(self) -> None:
        if not self._free:
            raise ConfigError("a pipeline needs at least one GPU, or with --device cpu one place for a process")
        known: set[str] = set()
        for name, standing in self.standings.items():
            if not set(standing.step.after) <= known:
                raise ConfigError(f"step {name} needs {sorted(set(standing.step.after) - known)}, not defined before")
            known.add(name)
        chosen = set(self.config.chosen) if self.config.chosen is not None else known
        if not chosen <= known:
            raise ConfigError(f"steps are {sorted(known)}, found {sorted(chosen - known)}")
        for name, standing in self.standings.items():
            if name not in chosen and self._is_there(standing):
                self._skip(standing)
            elif name not in chosen:
                standing.state = "not started"
                asking = sorted(n for n in chosen if name in self.standings[n].step.after)
                if asking:
                    raise ConfigError(
                        f"steps {asking} need {name}, which is not finished in {self.out}; add it to --only"
                    )

    def _is_there(self, standing: _Standing) -> bool:
        return standing.folder.ended is not None or self._keeps(standing.step)

    def _keeps(self, step: Step) -> bool:
        return step.is_kept and Path(self._fill(step.makes)).exists()

    def _fill(self, text: str) -> str:
        for name, place in self.places.items():
            text = text.replace("{" + name + "}", place)
        return text

    def stop(self, number: int) -> None:
        """Let `run` end all processes and return; for handlers of signals."""
        self._signal = number

    def run(self) -> int:
        """Run all steps.

        Returns:
            0 where all that was asked is finished or paused, 1 where a step failed, 128 + N after signal N.

        Raises:
            ConfigError: another pipeline runs in the same folder.
            OSError: files that cannot be written.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        with _alone(self.out):
            try:
                self._loop()
            finally:
                for standing in self._running():
                    if standing.run is not None:
                        standing.run.ask()  # all of them first: each may take a while
                for standing in self._running():
                    has_checkpoint = standing.folder.checkpoint.is_file()
                    why = "the time was up" if self._signal is None else f"signal {self._signal}"
                    self._end(standing, "paused" if has_checkpoint else "ended", why)
        return self._conclude()

    def _loop(self) -> None:
        reported = time.monotonic()
        while self._signal is None:
            self._start_ready()
            if not self._running():
                return
            for standing in self._running():
                self._look_at(standing)
            left = self._left()
            if left is not None and left <= 0:
                return
            if time.monotonic() - reported >= self.config.report_every_s:
                self._report_running()
                reported = time.monotonic()
            time.sleep(self.config.poll_s)

    def _running(self) -> list[_Standing]:
        return [standing for standing in self.standings.values() if standing.run is not None]

    def _left(self) -> float | None:
        """Seconds left to this call; None where it may take as long as it takes."""
        if self.config.pause_after_s is None:
            return None
        return self.config.pause_after_s - (time.monotonic() - self._begun)

    def _is_ready(self, step: Step) -> bool:
        return all(self.standings[name].state in FINISHED for name in step.after)

    def _start_ready(self) -> None:
        """Start what can start, in order: first each with the least it needs, then the rest of the GPUs are shared."""
        starting: list[tuple[_Standing, list[str]]] = []
        for standing in self.standings.values():
            if standing.state != "waiting" or not self._is_ready(standing.step):
                continue
            if self._is_finished(standing):
                continue
            if not self._has_time(standing.step):
                self._give_up(standing, "too little time was left")
                continue
            least = self._count(standing.step)[0]
            if least <= len(self._free):
                starting.append((standing, self._take(least)))
        for standing, gpus in starting:
            most = self._count(standing.step)[1]
            gpus.extend(self._take(min(most - len(gpus), max(0, len(self._free) - self._claimed()))))
        for standing, gpus in starting:
            self._start(standing, gpus)

    def _is_finished(self, standing: _Standing) -> bool:
        """Whether there is nothing to do; notes it."""
        if standing.tries or not (self._keeps(standing.step) or standing.folder.is_done(self._identity(standing.step))):
            return False
        self._skip(standing)
        self.say(f"step {standing.step.name} was finished before: skipped")
        return True

    @staticmethod
    def _skip(standing: _Standing) -> None:
        done = standing.folder.read(DONE)
        standing.state = "was finished"
        standing.seconds, standing.gpus = float(done.get("seconds", 0.0)), int(done.get("gpus", 0))

    def _has_time(self, step: Step) -> bool:
        left = self._left()
        return left is None or left - (self.config.reserve_s if step.is_training else 0.0) >= self.config.least_s

    def _count(self, step: Step) -> tuple[int, int]:
        """GPUs of a step on this machine, at least and at most."""
        total = len(self.config.gpus)
        most = total if step.gpus is None else min(step.gpus, total)
        return (most if step.least is None else min(step.least, most), most)

    def _claimed(self) -> int:
        """GPUs to be left for steps that wait for nothing but a step without GPUs, which will soon be over."""
        claimed = 0
        for standing in self.standings.values():
            missing = [self.standings[n] for n in standing.step.after if self.standings[n].state not in FINISHED]
            if standing.state == "waiting" and missing and all(self._is_soon_over(one) for one in missing):
                claimed += self._count(standing.step)[0]
        return claimed

    def _is_soon_over(self, standing: _Standing) -> bool:
        can_run = standing.state in ("waiting", "running") and self._is_ready(standing.step)
        return can_run and self._count(standing.step)[1] == 0

    def _take(self, count: int) -> list[str]:
        taken, self._free = self._free[:count], self._free[count:]
        return taken

    def _identity(self, step: Step) -> Identity:
        """What a step is made with: arguments as written, content of places, and when each input was finished."""
        commands = [list(command) for command in step.commands]
        digests = {
            name: digest
            for name, digest in self.config.digests.items()
            if any("{" + name + "}" in argument for command in commands for argument in command)
        }
        inputs = {name: self.standings[name].folder.ended for name in step.after}
        return {"commands": commands, "minutes": step.minutes, "digests": digests, "inputs": inputs}

    def _start(self, standing: _Standing, gpus: list[str]) -> None:
        step, folder = standing.step, standing.folder
        resumes = folder.begin(self._identity(step))
        environment = os.environ if self.config.environment is None else self.config.environment
        standing.run = Run(
            self._commands(standing, resumes=resumes),
            self.places,
            gpus=gpus,
            processes=len(gpus) if self.config.is_spread else 1,
            folder=self.config.folder,
            log=folder.log,
            environment=environment,
        )
        standing.state, standing.gpus = "running", len(gpus)
        standing.tries += 1
        where = f"on GPUs {','.join(gpus)}" if gpus else "without a GPU"
        how = f", from its checkpoint at {folder.progress():.0%}" if resumes else ""
        again = f", try {standing.tries} of {TRIES}" if standing.tries > 1 else ""
        self.say(f"step {step.name} starts {where}{how}{again}")

    def _commands(self, standing: _Standing, *, resumes: bool) -> Sequence[Command]:
        """Commands with what only the scheduler knows."""
        step, folder = standing.step, standing.folder
        if not step.is_training:
            return step.commands
        more = ["--minutes", f"{step.minutes:g}", "--out", str(folder.path)]
        if resumes:
            more += ["--resume", str(folder.checkpoint)]
        left = self._left()
        if left is not None:
            # a time, not a length: nobody knows how long the start-up will take
            more += ["--pause-at", f"{time.time() + left - self.config.reserve_s:.1f}"]
        return [*step.commands[:-1], (*step.commands[-1], *more)]

    def _look_at(self, standing: _Standing) -> None:
        """See whether a step has ended, and how."""
        run, folder = standing.run, standing.folder
        if run is None or (status := run.poll()) is None:
            return
        missing = folder.missing()
        if status == 0 and not missing and folder.progress() >= 1:
            self._end(standing, "finished")
        elif status == 0 and folder.progress() < 1 and folder.checkpoint.is_file() and self._left() is not None:
            self._end(standing, "paused", f"at {folder.progress():.0%}")
        else:
            why = telling_line(folder.log, run.start)
            if status == 0:
                why = f"it ended without {', '.join(missing)}" if missing else "it ended before its time"
            self._fail(standing, f"exit status {status}, see {folder.log}, which ends with: {why}")

    def _fail(self, standing: _Standing, why: str) -> None:
        self._end(standing, "failed", why)
        if standing.tries < TRIES:
            # it waits its turn again, in order, for as many GPUs as it needs
            standing.state = "waiting"

    def _give_up(self, standing: _Standing, why: str) -> None:
        """A step that will not run (again) in this call."""
        if standing.tries:
            standing.state = "failed"
        else:
            standing.state, standing.why = "not started", why

    def _end(self, standing: _Standing, state: State, why: str = "") -> None:
        """Free the GPUs, note what was done and copy it to where it outlives the machine."""
        step, folder, run = standing.step, standing.folder, standing.run
        if run is None:
            return
        run.end()
        self._free = [gpu for gpu in self.config.gpus if gpu in {*self._free, *run.gpus}]
        standing.seconds = folder.spend(run.seconds)
        standing.state, standing.why, standing.run = state, why, None
        if state == "finished":
            done = {"seconds": round(standing.seconds, 1), "gpus": standing.gpus, "ended": time.time()}
            folder.write(DONE, {**self._identity(step), **done})
        self.say(f"step {step.name} {state} after {run.seconds:.0f} s{': ' + why if why else ''}")
        self._sync(standing)

    def _sync(self, standing: _Standing) -> None:
        target, step, folder = self.config.sync_to, standing.step, standing.folder
        if target is None:
            return
        sources = {folder.path: step.name, folder.log: f"log/{folder.log.name}"}
        if step.makes:
            product = Path(self._fill(step.makes))
            sources[product] = product.name
        try:
            for source, name in sources.items():
                if source.exists():
                    sync_artifacts(source, target / name, self.config.part_bytes)
        except OSError as error:
            # what was trained is still in its folder, and the other steps are not at fault
            self.say(f"step {step.name} could not be copied to {target}: {error}")

    def _report_running(self) -> None:
        lines = [f"{(time.monotonic() - self._begun) / 60:.1f} minutes; {len(self._free)} GPUs are free"]
        for standing in self._running():
            run = standing.run
            if run is not None:
                said = last_line(standing.folder.log, run.start)
                lines.append(f"  {standing.step.name:<16} {run.seconds:6.0f} s  {said[:140]}")
        self.say("\n".join(lines))

    def _conclude(self) -> int:
        """Say how all ended."""
        for standing in self.standings.values():
            if standing.state == "waiting":
                self._give_up(standing, self._hindrance(standing))
        lines = ["step             seconds GPUs state"]
        for name, standing in self.standings.items():
            measures = standing.folder.measures() if standing.state in {*FINISHED, "paused"} else {}
            why = "" if standing.state == "failed" else standing.why  # told at length below
            told = " ".join(f"{key} {value:.4g}" for key, value in measures.items()) or why
            lines.append(f"{name:<16} {standing.seconds:7.0f} {standing.gpus:4} {standing.state:<12} {told}".rstrip())
        self.say("\n".join(lines))
        failed = [standing for standing in self.standings.values() if standing.state == "failed"]
        for standing in failed:
            self.say(f"step {standing.step.name} failed in {standing.tries} of {TRIES} tries: {standing.why}")
        if self._signal is not None:
            return 128 + self._signal
        if failed:
            return 1
        chosen = self.config.chosen or tuple(self.standings)
        if any(self.standings[name].state not in FINISHED for name in chosen):
            self.say("the time is up: the same command goes on from here")
        return 0

    def _hindrance(self, standing: _Standing) -> str:
        missing = [name for name in standing.step.after if self.standings[name].state not in FINISHED]
        return f"waits for {', '.join(missing)}" if missing else "too few GPUs were free in time"


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the folder: two pipelines in it would train the same steps over each other.

    Raises:
        ConfigError: another one holds it.
    """
    with (out / "pipeline.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"another pipeline runs in {out}; wait for it or choose another folder") from error
        yield
