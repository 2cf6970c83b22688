"""Decides what to make: the id of every requested world, and which of them exist, are rejected or remain.

Planning starts nothing. It streams: a plan of 100,000 rows is a file of JSON lines on local disk, not a list in memory.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from catalogs.commit import committed_ids
from catalogs.rejects import is_of_row, list_rejects, reject
from lyra_core.errors import CameraPathError, LyraError, ManifestError, PromptError, SourceError
from lyra_core.formats.store import Store
from lyra_core.geometry.camera_files import is_camera_file
from lyra_core.geometry.requests import cameras_digest
from lyra_core.identity import ALGORITHM_VERSION, chain_start, chunk_ids
from lyra_core.public_uri import public_uri, without_secrets
from lyra_core.records import RejectRecord
from lyra_core.seed_digests import SeedDigestCache
from lyra_core.spec import WorldSpec
from lyra_core.video.caption_list import captions_of_chunks
from tasks.manifest import BadRow, ManifestRow
from tasks.outcome import SOURCE_STAGE
from tasks.recipe import Recipe
from tasks.weights import weights_digests

DIGEST_THREADS = 8
DIGEST_BATCH = 512


@dataclass(slots=True, kw_only=True)
class Plan:
    """The outcome of planning; the worlds that remain are lines of `path`.

    Attributes:
        path: JSON lines; they hold addresses with their signatures, so its owner alone may read the file.
        run_id: of the batch.
        weights_digests: of the weights that the ids were made with.
        unreached: reasons of seeds whose storage was at fault; the next planning asks for them again.
    """

    path: Path
    run_id: str
    weights_digests: tuple[str, ...] = ()
    num_seeds: int = 0
    num_remaining: int = 0
    num_existing: int = 0
    num_duplicates: int = 0
    num_rejected_before: int = 0
    new_rejects: list[RejectRecord] = field(default_factory=list)
    unreached: list[str] = field(default_factory=list)

    def specs(self) -> Iterator[WorldSpec]:
        """The worlds that remain, in manifest order, streamed."""
        with self.path.open(encoding="utf-8") as lines:
            for line in lines:
                yield WorldSpec.from_json(line)

    def discard(self) -> None:
        """Remove the plan's files once the batch is over."""
        self.path.unlink(missing_ok=True)

    @property
    def num_rejected(self) -> int:
        """Seeds known not to become worlds, from before and from this planning."""
        return self.num_rejected_before + len(self.new_rejects)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Everything planning needs to know besides the seeds."""

    recipe: Recipe
    run_id: str
    retry_rejects: bool = False
    limit: int | None = None


def make_plan(
    rows: Iterable[ManifestRow | BadRow],
    store: Store,
    request: Request,
    digests: SeedDigestCache,
    plan_path: Path,
    on_seed: Callable[[int], None] | None = None,
) -> Plan:
    """Name every world and keep those that remain.

    Args:
        rows: from tasks.manifest.read_seeds.
        store: the output; what it has committed or rejected is skipped (rejects not if request.retry_rejects).
        request: recipe, run id and limits.
        digests: cache of seed digests by URI, size and modification.
        plan_path: JSON-lines file to write.
        on_seed: called with the number of seeds looked at, for progress.

    Raises:
        ManifestError: from the rows. StoreError: the output cannot be read.
    """
    namer = WorldNamer(request.recipe)
    plan = Plan(path=plan_path, run_id=request.run_id, weights_digests=namer.weights_digests)
    done = committed_ids(store)
    rejected_ids, rejected_before = _known_rejects(store) if not request.retry_rejects else (set(), set())
    seen: set[str] = set()
    plan_path.parent.mkdir(parents=True, exist_ok=True)
    limited = itertools.islice(rows, request.limit) if request.limit is not None else iter(rows)
    with (
        _private(plan_path) as out,
        ThreadPoolExecutor(DIGEST_THREADS) as threads,
    ):
        while batch := list(itertools.islice(limited, DIGEST_BATCH)):
            for row, digest in zip(batch, _digest_all(batch, digests, threads), strict=True):
                plan.num_seeds += 1
                if isinstance(digest, LyraError):
                    _count_reject(plan, _reject(row, request, digest), rejected_before)
                    continue
                assert isinstance(row, ManifestRow)  # noqa: S101  a bad row has no digest
                try:
                    specs = namer.name(row, digest)
                except (CameraPathError, PromptError) as error:
                    _count_reject(plan, _reject(row, request, error, digest), rejected_before)
                    continue
                for spec in specs:
                    if spec.world_id in seen:
                        plan.num_duplicates += 1
                    elif spec.world_id in done:
                        plan.num_existing += 1
                    elif spec.world_id in rejected_ids:
                        plan.num_rejected_before += 1
                    else:
                        out.write(spec.to_json() + "\n")
                        plan.num_remaining += 1
                    seen.add(spec.world_id)
            if on_seed:
                on_seed(plan.num_seeds)
    return plan


def _private(path: Path) -> IO[str]:
    """A new text file that nobody but its owner may read."""
    path.unlink(missing_ok=True)
    return open(path, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600))


def write_plan_rejects(plan: Plan, store: Store) -> None:
    """Record the seeds that planning refused; separate from planning so that a dry run writes nothing."""
    for record in plan.new_rejects:
        reject(store, record)


class WorldNamer:
    """Chains the ids of a seed's worlds (docs/architecture.md): one link from what is made, one a chunk."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._fields = recipe.hashed_fields()
        self.weights_digests = weights_digests(recipe)
        self._cameras: dict[tuple[str, int], Sequence[bytes | str] | CameraPathError] = {}

    def name(self, row: ManifestRow, seed_sha256: str) -> list[WorldSpec]:
        """One spec a variant."""
        num_frames = row.frames or self.recipe.num_frames
        camera_path = absolute_file(row.camera_path or self.recipe.camera_path)
        cameras = self._requested(camera_path, num_frames)
        cameras_sha256 = cameras_digest(cameras)
        caption = row.prompt if row.prompt is not None else self.recipe.prompt
        captions = captions_of_chunks(caption, len(cameras), self.recipe.chunk_frames)
        distinct = captions if len(set(captions)) > 1 else captions[:1]
        given = {name: getattr(row, name) for name in ("hfov_deg", "camera_height_m", "center_distance_m")}
        fields = {**self._fields, **{name: value for name, value in given.items() if value is not None}}
        specs = []
        for variant in range(row.variants or self.recipe.variants):
            start = chain_start(seed_sha256, fields, self.weights_digests, ALGORITHM_VERSION, variant)
            links = chunk_ids(start, cameras, captions)
            specs.append(
                WorldSpec(
                    world_id=links[-1],
                    chunk_ids=links,
                    seed_uri=row.seed_uri,
                    seed_sha256=seed_sha256,
                    ordinal=row.ordinal,
                    camera_path=camera_path,
                    num_frames=num_frames,
                    prompts=distinct if any(captions) else (),
                    variant=variant,
                    cameras_sha256=cameras_sha256,
                    **given,
                    seed_license=row.license,
                    seed_source_url=row.source_url,
                    seed_attribution=row.attribution,
                )
            )
        return specs

    def _requested(self, camera_path: str, num_frames: int) -> Sequence[bytes | str]:
        key = (camera_path, num_frames)
        if key not in self._cameras:
            try:
                self._cameras[key] = self.recipe.requested_cameras(camera_path, num_frames)
            except CameraPathError as error:  # one reading of a bad file, however many rows name it
                self._cameras[key] = error
        cameras = self._cameras[key]
        if isinstance(cameras, CameraPathError):
            raise cameras
        return cameras


def absolute_file(camera_path: str) -> str:
    """A camera file by its absolute path, because workers run in other folders; a preset as it is."""
    return os.path.abspath(os.path.expanduser(camera_path)) if is_camera_file(camera_path) else camera_path  # noqa: PTH100, PTH111  pathlib raises where there is no home


def _digest_all(
    rows: Sequence[ManifestRow | BadRow], digests: SeedDigestCache, threads: ThreadPoolExecutor
) -> Iterator[str | LyraError]:
    """A digest or the reason there is none, one for each row."""
    seed_digests = iter(digests.digest_files([row.seed_uri for row in rows if isinstance(row, ManifestRow)], threads))
    for row in rows:
        if isinstance(row, BadRow):
            yield SourceError(row.reason) if row.is_unreached else ManifestError(row.reason)
        else:
            yield next(seed_digests)


def _reject(row: ManifestRow | BadRow, request: Request, error: LyraError, digest: str | None = None) -> RejectRecord:
    place = row.place if isinstance(row, ManifestRow) else ""
    return RejectRecord(
        run_id=request.run_id,
        recipe=request.recipe.name,
        seed_uri=public_uri(row.seed_uri),
        seed_sha256=digest,
        ordinal=row.ordinal,
        stage=_stage(error, digest),
        error_type=type(error).__name__,
        reason=without_secrets(f"{place}: {error}" if place else str(error)),
    )


def _stage(error: LyraError, digest: str | None) -> str:
    if isinstance(error, SourceError):
        return SOURCE_STAGE
    return "manifest" if isinstance(error, ManifestError) else "seed" if digest is None else "plan"


def _known_rejects(store: Store) -> tuple[set[str], set[object]]:
    """World ids that were rejected, and what tells rejects without a world apart."""
    rejects = list_rejects(store, open_only=True)
    ids = {r.world_id for r in rejects if r.world_id and r.stage != SOURCE_STAGE}
    return ids, {_fault(r) for r in rejects if r.seed_uri and not r.world_id}


def _fault(record: RejectRecord) -> object:
    """A seed that cannot be used, or a row that names it wrongly: several rows may name one seed."""
    return (record.seed_uri, record.reason) if is_of_row(record) else record.seed_uri


def _count_reject(plan: Plan, record: RejectRecord, known: set[object]) -> None:
    if record.stage == SOURCE_STAGE:
        plan.unreached.append(record.reason)
    if _fault(record) in known:
        plan.num_rejected_before += 1
    else:
        plan.new_rejects.append(record)
