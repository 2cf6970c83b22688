"""A worker holds the models and makes worlds one at a time: a plain class, run in process or as a Ray actor.

    expect(spec): seed                                                  (a thread, before the next make)
    make(spec):   seed -> video -> Gaussians                            (the models' device)
    finish(id):   fusion -> geometry -> quality -> pictures             (a thread, overlapping the next make)
                  -> encode -> upload -> commit

On a CPU the next make would only take the cores away from what is being finished: there make goes on to the pictures,
and what overlaps is encoding and upload. Both ways give the same bytes.

Neither raises because of a world: a Failure value says whether retrying can help. Storage that fails while a made world
is stored is waited for here, so that the world need not be made again.
"""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numba
import torch
from jaxtyping import UInt8
from torch import Tensor

from lyra_core.errors import LyraError, OutOfMemoryError, SourceError, StoreError, TornObjectError, WorkerError
from lyra_core.formats.patience import Patience, is_worth_waiting
from lyra_core.formats.store import open_store
from lyra_core.public_uri import without_secrets
from lyra_core.records import WorldRecord
from lyra_core.spec import WorldSpec
from lyra_core.values import Seed
from lyra_core.world_models.load import load_model
from tasks.artifacts import Contents, LocalArtifact, encode, find_formats
from tasks.commit import committed_world, store_world
from tasks.outcome import FIRST_START, SOURCE_STAGE, Failure, Outcome, Start, Waiting
from tasks.record import Dispatch, world_record
from tasks.scratch import ScratchFolders, kept_chunks
from tasks.seed import read_seed
from tasks.stages import find_stages
from tasks.weights import require_planned
from tasks.worker_config import WorkerConfig
from tasks.world import (
    BegunWorld,
    DeviceClock,
    MadeWorld,
    StageClock,
    WorldRequest,
    begin_world,
    complete_world,
)

# Errors that say nothing about the seed: storage, memory, the machine. Every other LyraError is the seed's own.
TRANSIENT = (StoreError, OutOfMemoryError, WorkerError)
# Stages whose storage has been waited for already when an error leaves them.
STORING = ("load", "encode", "upload")
DISK_FAILURES = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE)
FINISH_POLL_S = 2.0

T = TypeVar("T")


class Worker:
    """Makes worlds with one recipe; the constructor loads the models."""

    def __init__(self, config: WorkerConfig) -> None:
        limit_threads(config.num_threads)
        self.config = replace(config, weights_digests=require_planned(config.recipe, config.weights_digests))
        self.id = f"{socket.gethostname()}-{os.getpid()}"
        self.store = open_store(config.out_url)
        self._leaving = threading.Event()
        self.patience = Patience(config.store_deadline_s, stop=self._leaving)
        # Credentials and mounts differ between machines: better told now than after the first world.
        self.patience.run(self.store.check_writable)
        # Before the models: a name that cannot be imported is told before minutes of loading.
        self.stages, self.formats = find_stages(config.recipe), find_formats(config.recipe)
        several = {"num_devices": config.num_devices} if config.num_devices > 1 else {}
        self.model = load_model(config.recipe.model, device=config.device, **several, **config.recipe.model_options())
        self.scratch = ScratchFolders(config.scratch, self.store)
        self._finisher = ThreadPoolExecutor(
            1, thread_name_prefix="finish", initializer=limit_threads, initargs=(config.num_threads,)
        )
        self._finishing: dict[str, Future[Outcome | Failure]] = {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read")
        self._expected: dict[str, Future[Seed]] = {}
        self._device = DeviceClock(is_noted=config.overlaps or config.device.startswith("cuda"))

    def expect(self, spec: WorldSpec) -> None:
        """Read the photograph of a world that is likely to be next; whatever fails is left to its make."""
        if spec.world_id not in self._expected:
            self._expected = {spec.world_id: self._reader.submit(read_seed, spec, self.config.recipe)}

    def make(self, spec: WorldSpec, start: Start = FIRST_START) -> Failure | None:
        """Run the stages that need the models; None means the rest was handed to the finishing thread."""
        self._wait_for_room()
        limit_threads(self.config.num_threads)  # an actor's calls come on threads of their own
        clock = StageClock(stage="store")

        def make() -> BegunWorld | MadeWorld | Outcome:
            if (known := committed_world(self.store, spec, self.config.run_id, start)) is not None:
                return known
            request = WorldRequest(spec=spec, recipe=self.config.recipe, scratch=self.scratch.open(spec))
            begun = begin_world(self.model, lambda: self._seed(spec), request, clock, self._device)
            return begun if self.config.overlaps else self._completed(begun, clock)

        made = self._attempted(make, spec, clock)
        if isinstance(made, Failure):
            return made
        dispatch = Dispatch(start=start, worker_id=self.id)

        def finish() -> Outcome:
            if isinstance(made, Outcome):
                return made
            whole = self._completed(made, clock) if isinstance(made, BegunWorld) else made
            return self._encode_and_store(whole, clock, dispatch)

        self._finishing[spec.world_id] = self._finisher.submit(self._attempted, finish, spec, clock)
        return None

    def finish(self, world_id: str) -> Outcome | Failure | Waiting:
        """Wait until a made world is encoded, uploaded and committed; Waiting means: storage fails, ask again."""
        finishing = self._finishing[world_id]
        while True:
            try:
                result = finishing.result(timeout=FINISH_POLL_S)
            except TimeoutError:
                reason = self.patience.waiting
                if reason is not None:
                    return Waiting(reason=reason)
            else:
                del self._finishing[world_id]
                return result

    def _attempted(self, work: Callable[[], T], spec: WorldSpec, clock: StageClock) -> T | Failure:
        """Some of a world's work; finished chunks that no later attempt can use are removed."""

        def without_torn_chunks() -> T:
            try:
                return work()
            except TornObjectError:
                self.scratch.remove(spec.world_id)  # damaged chunks: the next attempt begins anew
                raise

        result = guarded(without_torn_chunks, clock)
        if isinstance(result, Failure) and result.permanent and not result.blames_store:
            self.scratch.remove(spec.world_id)
        return result

    def _completed(self, begun: BegunWorld, clock: StageClock) -> MadeWorld:
        return complete_world(begun, self.config.recipe, clock, self.stages)

    def _seed(self, spec: WorldSpec) -> Seed:
        """The photograph, read already where that worked."""
        expected = self._expected.pop(spec.world_id, None)
        if expected is not None and expected.exception() is None:
            return expected.result()
        return read_seed(spec, self.config.recipe)

    def _wait_for_room(self) -> None:
        """Keep at most one world in memory beside the one that is made next."""
        while len(unfinished := [future for future in list(self._finishing.values()) if not future.done()]) > 1:
            wait(unfinished, return_when=FIRST_COMPLETED)

    def canary(self) -> Failure | None:
        """Make a built-in picture's world and throw it away: does this worker work at all?"""
        limit_threads(self.config.num_threads)
        recipe = self.config.recipe
        clock = StageClock(stage="canary")

        def make() -> None:
            clip = self.model.generate(
                canary_image(recipe.width, recipe.height),
                "dolly-in",
                num_frames=1 + recipe.chunk_frames,
                seed=0,
                prompts=["a picture of nothing in particular"],
                width=recipe.width,
                height=recipe.height,
            )
            self.model.reconstruct(clip)

        return guarded(make, clock)

    def give_up(self) -> None:
        """Wait for storage no longer; worlds that are not stored yet fail at its next error."""
        self._leaving.set()

    def close(self) -> None:
        """Let the finishing thread end."""
        self._reader.shutdown(wait=True, cancel_futures=True)
        self._finisher.shutdown(wait=True, cancel_futures=True)

    def _encode_and_store(self, made: MadeWorld, clock: StageClock, dispatch: Dispatch) -> Outcome:
        with tempfile.TemporaryDirectory(prefix="lyra-world-") as folder:
            with clock("encode"):
                files = self.patience.run(
                    lambda: self._encoded(made, Path(folder), world_record(self.config, made, clock, dispatch))
                )
            clock.stage = "upload"
            outcome = self.patience.run(lambda: store_world(self.store, self.config, made, files, clock, dispatch))
        self.scratch.remove(made.spec.world_id)
        return outcome

    def _encoded(self, made: MadeWorld, folder: Path, record: WorldRecord) -> list[LocalArtifact]:
        """The files of a world in a local folder.

        Raises:
            StoreError: the local disk failed, which says nothing about the world.
        """
        try:
            contents = Contents(
                clip=made.clip,
                gaussians=made.gaussians,
                pictures=made.pictures,
                recipe=self.config.recipe,
                geometry=made.geometry,
                record=record,
            )
            files = encode(contents, self.formats, folder)
        except OSError as error:
            if error.errno not in DISK_FAILURES:
                raise
            raise StoreError(
                f"{self.id}: cannot write the world's files to {folder}: {error.strerror}; free space there, or start "
                f"workers with another TMPDIR"
            ) from error
        return files + kept_chunks(made.scratch) if "chunks" in self.config.recipe.artifacts else files


def guarded(work: Callable[[], T], clock: StageClock) -> T | Failure:
    """Run a world's work and turn whatever it raises into a Failure."""
    try:
        return work()
    except LyraError as error:
        store_error = error if isinstance(error, StoreError) and not isinstance(error, SourceError) else None
        is_final = store_error is not None and (clock.stage in STORING or not is_worth_waiting(store_error))
        return Failure(
            permanent=is_final or not isinstance(error, TRANSIENT),
            blames_store=store_error is not None,
            stage=SOURCE_STAGE if isinstance(error, SourceError) else clock.stage,
            error_type=type(error).__name__,
            message=without_secrets(str(error)),
        )
    except Exception as error:  # noqa: BLE001  a bug in a model must cost one world, not the worker; the trace is kept
        return Failure(
            permanent=False,
            stage=clock.stage,
            error_type=type(error).__name__,
            message=without_secrets(f"{clock.stage} failed with {type(error).__name__}: {error}"),
            traceback=without_secrets(traceback.format_exc(limit=20)),
        )


def canary_image(width: int, height: int) -> UInt8[Tensor, "h w 3"]:
    """A smooth picture with a horizon and a few shapes, the same on every machine."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    ripple = 0.5 + 0.5 * torch.sin(40 * columns * (0.2 + rows))
    picture = torch.stack([rows, 0.5 + 0.5 * ripple * rows, 1 - rows], dim=-1)
    return (picture * 255).to(torch.uint8)


def guarded_load(load: Callable[[], T]) -> T | Failure:
    """Load models and turn whatever that raises into a Failure that blames no seed."""
    return guarded(load, StageClock(stage="load"))


def limit_threads(num_threads: int) -> None:
    """Keep the workers of one machine out of each other's way; the limits hold for the calling thread only."""
    torch.set_num_threads(num_threads)
    most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # numba sets it at run time
    numba.set_num_threads(min(num_threads, most))
