"""Seeds that gave no world, and what happened on the way: both survive the death of whoever drove the batch."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from catalogs.commit import CommitOutcome, committed_ids
from catalogs.current import Current, read_current, worlds_of
from lyra_core.errors import CatalogError
from lyra_core.formats.store import Store
from lyra_core.layout import ATTEMPTS, REJECTS, attempts_prefix, reject_key
from lyra_core.records import RejectRecord, arrow_schema, utc_now

if TYPE_CHECKING:
    import pyarrow as pa

_THREADS = 16
_ATTEMPT = re.compile(rf"{ATTEMPTS}[0-9a-f]{{2}}/([0-9a-f]{{32}})/(\d+)\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One thing that happened to a world before it was committed or rejected ("death", "timeout", "error", ...)."""

    world_id: str
    number: int
    run_id: str
    worker: str
    event: str
    at: datetime


def reject(store: Store, record: RejectRecord) -> CommitOutcome:
    """Record that a manifest row gave no world; one row per run and ordinal.

    Raises:
        CatalogError: a run id or ordinal that cannot be part of a key.
        StoreError: the store refused or filled up.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(reject_table([record]), sink, use_dictionary=False, write_statistics=False)
    created = store.create(reject_key(record.run_id, record.ordinal, record.variant), sink.getvalue().to_pybytes())
    return CommitOutcome.CREATED if created else CommitOutcome.EXISTS


def list_rejects(
    store: Store, *, open_only: bool = True, run_id: str | None = None, current: Current | None = None
) -> list[RejectRecord]:
    """Rejects by run and ordinal.

    With `open_only`, the last reject of each seed whose world has not been committed since: a reject with a world id
    is closed by the commit of that id; one of a seed that could not be read, or whose file was replaced since, by a
    later commit of the same seed URI, recipe and variant; one of a manifest's row by such a commit of another run,
    since another row of its own may name the same seed.

    Args:
        store: where the catalog lies.
        open_only: leave out what a commit has superseded, and all but the last reject of a seed (or of a row).
        run_id: rejects of this run only.
        current: the catalog as of now, if the caller has read it already.

    Raises:
        CatalogError: a reject cannot be read.
    """
    keys = [info.key for info in store.list(f"{REJECTS}{run_id}/" if run_id else REJECTS)]
    with ThreadPoolExecutor(_THREADS) as pool:
        records = list(pool.map(lambda key: _read_reject(store, key), sorted(keys)))
    return _still_open(store, records, current) if open_only and records else records


def reject_table(records: list[RejectRecord]) -> pa.Table:
    """Rejects as the `rejects` table."""
    import pyarrow as pa

    return pa.Table.from_pylist([r.to_row() for r in records], schema=arrow_schema(RejectRecord))


def record_attempt(store: Store, world_id: str, run_id: str, worker: str, event: str) -> int:
    """Remember something that happened to a world; returns its number, from 1.

    Raises:
        StoreError: the store refused or filled up.
    """
    prefix = attempts_prefix(world_id)
    taken = [_number(info.key) for info in store.list(prefix)]
    number = max(taken, default=0) + 1
    content = {"run_id": run_id, "worker": worker, "event": event, "at": utc_now().isoformat()}
    # The token tells a lost race from a reply that was lost after our own object was stored.
    data = json.dumps({**content, "token": uuid.uuid4().hex}).encode()
    while not store.create(f"{prefix}{number}.json", data):
        if store.read_bytes(f"{prefix}{number}.json") == data:
            break
        number += 1
    return number


def attempts(store: Store, world_id: str) -> list[Attempt]:
    """What happened to a world so far, in order."""
    return list(_read_attempts(store, attempts_prefix(world_id)))


def all_attempts(store: Store) -> dict[str, list[Attempt]]:
    """What happened to every world that has attempts on record."""
    attempts: dict[str, list[Attempt]] = {}
    for attempt in _read_attempts(store, ATTEMPTS):
        attempts.setdefault(attempt.world_id, []).append(attempt)
    return attempts


def _read_attempts(store: Store, prefix: str) -> Iterator[Attempt]:
    keys = sorted((info.key for info in store.list(prefix)), key=lambda key: (key[:-12], _number(key)))
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from sorted(
            pool.map(lambda key: _read_attempt(store, key), keys),
            key=lambda a: (a.world_id, a.number),
        )


def _read_attempt(store: Store, key: str) -> Attempt:
    try:
        content = json.loads(store.read_bytes(key))
        return Attempt(
            world_id=key.split("/")[-2],
            number=_number(key),
            run_id=content["run_id"],
            worker=content["worker"],
            event=content["event"],
            at=datetime.fromisoformat(content["at"]),
        )
    except (ValueError, KeyError) as error:
        raise CatalogError(f"the attempt {store.uri(key)} cannot be read: {error}") from error


def _number(key: str) -> int:
    match = _ATTEMPT.fullmatch(key)
    if match is None:
        raise CatalogError(f"{key} is no attempt (wanted {ATTEMPTS}<id[:2]>/<id>/<n>.json)")
    return int(match[2])


def _read_reject(store: Store, key: str) -> RejectRecord:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(pa.BufferReader(store.read_bytes(key))).read(use_threads=False)
        return RejectRecord.from_row(table.to_pylist()[0])
    except (pa.ArrowException, IndexError) as error:
        raise CatalogError(f"the reject {store.uri(key)} cannot be read: {error}") from error


def _still_open(store: Store, records: list[RejectRecord], current: Current | None) -> list[RejectRecord]:
    """Those of the rejects that no commit has superseded, the last one of each world or seed."""
    committed = committed_ids(store)
    pending = [r for r in records if r.world_id not in committed]
    if pending:
        finished = _finished_seeds(store, current or read_current(store))
        pending = [r for r in pending if not _is_made_good(r, finished.get(_seed(r)))]
    last: dict[object, RejectRecord] = {}
    for record in sorted(pending, key=lambda r: (r.created_at is not None, r.created_at or 0)):
        last[record.world_id or (*_seed(record), record.reason if is_of_row(record) else None)] = record
    return sorted(last.values(), key=lambda r: (r.run_id, r.ordinal))


def is_of_row(record: RejectRecord) -> bool:
    """Whether a row of a manifest is at fault, not the seed it names: its reason names the line."""
    return record.world_id is None and record.stage in ("manifest", "plan")


def _seed(record: RejectRecord) -> tuple[object, ...]:
    return (record.seed_uri, record.recipe, record.variant)


def _is_made_good(record: RejectRecord, finished: _Finished | None) -> bool:
    """Whether another file under the same name has become a world since."""
    if finished is None or not _is_later(finished.created_at, record.created_at):
        return False
    if is_of_row(record) and finished.run_id == record.run_id:
        return False
    return record.world_id is None or finished.seed_sha256 != record.seed_sha256


@dataclass(frozen=True, slots=True)
class _Finished:
    created_at: datetime | None
    seed_sha256: str | None
    run_id: str | None


def _finished_seeds(store: Store, current: Current) -> dict[tuple[object, ...], _Finished]:
    """What was last committed for each seed URI, recipe and variant."""
    columns = ["seed_uri", "recipe", "variant", "created_at", "seed_sha256", "run_id"]
    finished: dict[tuple[object, ...], _Finished] = {}
    for row in worlds_of(store, current, columns).to_pylist():
        seed = (row["seed_uri"], row["recipe"], row["variant"])
        if seed not in finished or _is_later(row["created_at"], finished[seed].created_at):
            finished[seed] = _Finished(row["created_at"], row["seed_sha256"], row["run_id"])
    return finished


def _is_later(time: datetime | None, than: datetime | None) -> bool:
    return time is not None and (than is None or time > than)
