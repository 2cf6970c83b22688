"""The stages of one world in reading order, all as values: seed, video, Gaussians, geometry, quality, pictures."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
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
from tasks.gaussians import apply_stage, lift_to_gaussians
from tasks.geometry import WorldGeometry, measure_world
from tasks.quality import measure_quality
from tasks.recipe import Recipe
from tasks.seed import read_seed
from tasks.stages import Stage
from tasks.video import generate_video


@dataclass(slots=True)
class StageClock:
    """Seconds per stage of one world, and the stage it is in (for blame)."""

    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    stage_s: dict[str, float] = field(default_factory=dict)
    stage: str = "seed"

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a stage."""
        self.stage = stage
        start = time.perf_counter()
        yield
        self.stage_s[stage] = time.perf_counter() - start


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


def make_world(
    model: WorldModel,
    spec: WorldSpec,
    recipe: Recipe,
    clock: StageClock,
    scratch: Path,
    stages: Mapping[str, Stage] | None = None,
) -> MadeWorld:
    """Run every stage that needs the models.

    Args:
        model: loaded by the worker.
        spec: what is asked.
        recipe: how it is made.
        clock: times the stages.
        scratch: the world's own folder for finished chunks.
        stages: of one's own, by name, see `tasks.stages`.

    Raises:
        LyraError: the seed or a model's input is wrong; clock.stage names the stage.
    """
    with clock("seed"):
        seed = read_seed(spec, recipe)
    with clock("video"):
        clip = generate_video(model, seed, spec, recipe, scratch)
    with clock("gaussians"):
        gaussians, report = lift_to_gaussians(model, clip, scratch)
    for name, stage in (stages or {}).items():
        with clock(name):
            gaussians = apply_stage(name, stage, clip, gaussians)
    # A model of one's own need not say how it computes; then nothing is claimed.
    provenance = getattr(model, "provenance", Provenance())
    geometry = None
    if recipe.geometry is not None:
        with clock("geometry"):
            geometry = measure_world(spec, recipe, clip, gaussians, provenance)
    with clock("quality"):
        quality = measure_quality(clip, gaussians, recipe)
    with clock("pictures"):
        pictures = render_pictures(clip, gaussians, recipe)
    return MadeWorld(
        spec=spec,
        seed=seed,
        clip=clip,
        gaussians=gaussians,
        report=report,
        geometry=geometry,
        quality=quality,
        pictures=pictures,
        scratch=scratch,
        provenance=provenance,
    )
