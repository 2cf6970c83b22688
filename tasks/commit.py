"""Stage 7: payloads are uploaded whole, and then one row, created if absent, makes the world exist."""

from __future__ import annotations

from catalogs.commit import CommitOutcome, commit, is_committed, read_commit
from lyra_core.formats.store import Store
from lyra_core.layout import upload_prefix
from lyra_core.records import Artifact
from lyra_core.spec import WorldSpec
from tasks.artifacts import LocalArtifact
from tasks.outcome import Outcome, Start
from tasks.record import Dispatch, world_frames, world_record
from tasks.worker_config import WorkerConfig
from tasks.world import MadeWorld, StageClock


def committed_world(store: Store, spec: WorldSpec, run_id: str, start: Start) -> Outcome | None:
    """What to say of a world that is committed already; None where it is not.

    A later attempt finds a world of its own run where the worker died after the commit and before its answer: that
    world was created now. Every other one existed.

    Raises:
        StoreError: the store cannot be read.
    """
    if not is_committed(store, spec.world_id):
        return None
    if start.attempt > 1:
        world = read_commit(store, spec.world_id).world
        if world.run_id == run_id:
            return Outcome(
                spec=spec,
                kind="created",
                accepted=world.accepted,
                num_splats=world.num_splats or 0,
                num_bytes=sum(artifact.bytes for artifact in world.artifacts),
                psnr_db=world.psnr_db,
            )
    return Outcome(spec=spec, kind="exists")


def store_world(
    store: Store,
    config: WorkerConfig,
    made: MadeWorld,
    files: list[LocalArtifact],
    clock: StageClock,
    dispatch: Dispatch,
) -> Outcome:
    """Upload every payload, then commit; may be called again with the same arguments after a StoreError.

    Where another writer was first, its files stay as they are and those of this attempt are removed.

    Raises:
        StoreError: storage is unwritable or full; nothing is visible in the catalog then.
    """
    folder = upload_prefix(made.spec.world_id, dispatch.upload)
    with clock("upload"):
        artifacts = []
        for file in files:
            stored = store.put_file(folder + file.name, file.path)
            artifacts.append(
                Artifact(
                    role=file.role,
                    key=stored.key,
                    media_type=file.media_type,
                    bytes=stored.bytes,
                    sha256=stored.sha256,
                    etag=stored.etag,
                )
            )
    record = world_record(config, made, clock, dispatch).with_artifacts(artifacts, store.root)
    outcome = commit(store, record, world_frames(made))
    if outcome is CommitOutcome.EXISTS:
        for artifact in artifacts:
            store.delete(artifact.key)
        return Outcome(spec=made.spec, kind="exists")
    return Outcome(
        spec=made.spec,
        kind="created",
        accepted=record.accepted,
        num_splats=len(made.gaussians),
        num_bytes=sum(a.bytes for a in artifacts),
        psnr_db=record.psnr_db,
        stage_s=dict(clock.stage_s),
        idle_s=clock.idle_s,
        device_s=clock.device_s,
        thumbnail=made.pictures.thumbnail,
    )
