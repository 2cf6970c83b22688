"""The stages of one world in reading order, all as values: seed, video, Gaussians, geometry, quality, pictures.

begin_world      seed, video, and of the Gaussians what needs the model's networks
complete_world   the rest, on the CPU: a worker on a GPU begins the next world meanwhile
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from lyra_core.gaussians.reconstruct import ReconstructionReport
from lyra_core.provenance import Provenance
from lyra_core.quality import Quality
from lyra_core.spec import WorldSpec
from lyra_core.values import Gaussians, Seed, VideoClip
from lyra_core.world_models.protocol import WorldModel
from tasks.artifacts import Pictures, render_pictures
from tasks.gaussians import Lifted, apply_stage, begin_gaussians, finish_gaussians
from tasks.geometry import WorldGeometry, measure_world
from tasks.quality import measure_quality
from tasks.recipe import Recipe
from tasks.stages import Stage
from tasks.video import generate_video


@dataclass(slots=True)
class StageClock:
    """Seconds per stage of one world, and the stage it is in (for blame).

    Attributes:
        idle_s: how long the worker's device had nothing to do before this world's networks began, if something was
            done on it before.
        device_s: how long this world's networks kept it.
    """

    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    stage_s: dict[str, float] = field(default_factory=dict)
    stage: str = "seed"
    idle_s: float | None = None
    device_s: float = 0.0

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a stage, or one more part of it."""
        self.stage = stage
        start = time.perf_counter()
        yield
        self.stage_s[stage] = self.stage_s.get(stage, 0.0) + time.perf_counter() - start


class DeviceClock:
    """When the device of a worker is busy with a world's networks, and how long it waits between worlds.

    Where networks and the rest of the work share the cores of a CPU, nothing waits, and nothing is noted.
    """

    def __init__(self, *, is_noted: bool) -> None:
        self._is_noted = is_noted
        self._free_since: float | None = None

    @contextmanager
    def busy(self, clock: StageClock) -> Iterator[None]:
        """The part of a world that needs the device; one world at a time."""
        begin = time.perf_counter()
        if self._is_noted and self._free_since is not None:
            clock.idle_s = begin - self._free_since
        try:
            yield
        finally:
            self._free_since = time.perf_counter()
            clock.device_s = self._free_since - begin


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldRequest:
    """A world to be made: what is asked, by which recipe, and the world's own folder for finished chunks."""

    spec: WorldSpec
    recipe: Recipe
    scratch: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunWorld:
    """A world that needs the model's networks no more."""

    spec: WorldSpec
    seed: Seed
    clip: VideoClip
    lifted: Lifted
    scratch: Path
    provenance: Provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeWorld:
    """A world that exists in memory and nowhere else yet."""

    spec: WorldSpec
    seed: Seed
    clip: VideoClip
    gaussians: Gaussians
    report: ReconstructionReport | None
    geometry: WorldGeometry | None
    quality: Quality | None
    pictures: Pictures
    scratch: Path
    provenance: Provenance


def begin_world(
    model: WorldModel,
    seed: Callable[[], Seed],
    request: WorldRequest,
    clock: StageClock,
    device: DeviceClock,
) -> BegunWorld:
    """Run every stage that needs the model's networks.

    Args:
        model: loaded by the worker.
        seed: reads the photograph.
        request: what is asked.
        clock: times the stages.
        device: notes how long the networks are at work.

    Raises:
        LyraError: the seed or a model's input is wrong; clock.stage names the stage.
    """
    spec, scratch = request.spec, request.scratch
    with clock("seed"):
        photograph = seed()
    with device.busy(clock):
        with clock("video"):
            clip = generate_video(model, photograph, spec, request.recipe, scratch)
        with clock("gaussians"):
            lifted = begin_gaussians(model, clip, scratch)
    return BegunWorld(
        spec=spec,
        seed=photograph,
        clip=clip,
        lifted=lifted,
        scratch=scratch,
        # A model of one's own need not say how it computes; then nothing is claimed.
        provenance=getattr(model, "provenance", Provenance()),
    )


def complete_world(
    begun: BegunWorld, recipe: Recipe, clock: StageClock, stages: Mapping[str, Stage] | None = None
) -> MadeWorld:
    """Run the stages that need no network, on the CPU.

    Args:
        begun: what the networks made.
        recipe: how it is made.
        clock: times the stages.
        stages: of one's own, by name, see `tasks.stages`.

    Raises:
        LyraError: nothing can be made of the clip; clock.stage names the stage.
    """
    spec, clip = begun.spec, begun.clip
    with clock("gaussians"):
        gaussians, report = finish_gaussians(begun.lifted)
    for name, stage in (stages or {}).items():
        with clock(name):
            gaussians = apply_stage(name, stage, clip, gaussians)
    geometry = None
    if recipe.geometry is not None:
        with clock("geometry"):
            geometry = measure_world(spec, recipe, clip, gaussians, begun.provenance)
    with clock("quality"):
        quality = measure_quality(clip, gaussians, recipe)
    with clock("pictures"):
        pictures = render_pictures(clip, gaussians, recipe)
    return MadeWorld(
        spec=spec,
        seed=begun.seed,
        clip=clip,
        gaussians=gaussians,
        report=report,
        geometry=geometry,
        quality=quality,
        pictures=pictures,
        scratch=begun.scratch,
        provenance=begun.provenance,
    )
