"""Seeds behind signed URLs and on servers that fail: what is stored of an address, and what the next run does."""

from __future__ import annotations

import functools
import http.server
import threading

import pyarrow.parquet as pq
import pytest

from catalogs.rejects import list_rejects
from lyra_core import seed_source
from lyra_core.formats.patience import Patience
from lyra_core.formats.store import open_store
from lyra_core.seed_digests import SeedDigestCache
from lyra_core.spec import WorldSpec
from tasks.manifest import read_seeds
from tasks.outcome import SOURCE_STAGE, Failure, Outcome
from tasks.plan import Request, make_plan, write_plan_rejects
from tasks.shard import Batch, record_reject
from tasks.worker import Worker
from tasks.worker_config import WorkerConfig


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder to those who sign; 403 to the rest, and 503 to all while the server is told to fail."""

    def log_message(self, *args) -> None:
        """Silence."""

    def do_HEAD(self) -> None:
        """Signed URLs are signed for GET."""
        self.send_error(403)

    def do_GET(self) -> None:
        """See the class."""
        if self.server.failing:
            self.send_error(503)
        elif "Signature=S3CRET" not in self.path:
            self.send_error(403)
        else:
            super().do_GET()


@pytest.fixture
def server(make_seeds, monkeypatch):
    """A web server on the loopback interface with two photographs."""
    monkeypatch.setattr(seed_source, "FIRST_WAIT_S", 0.01)
    handler = functools.partial(_Handler, directory=str(make_seeds("a.png", "b.png")))
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    found.failing = False
    threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
    found.url = f"http://user:S3CRET@127.0.0.1:{found.server_port}"
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture
def plan(tmp_path, fault_recipe, monkeypatch):
    """Plan a manifest of addresses into tmp_path / "out", as a process of its own would."""

    def make(*seeds: str):
        monkeypatch.setattr(seed_source, "_outages", seed_source.Outages())
        (tmp_path / "m.csv").write_text("\n".join(["seed,source_url", *(f"{seed},{seed}" for seed in seeds)]))
        return make_plan(
            read_seeds([str(tmp_path / "m.csv")]),
            open_store(str(tmp_path / "out")),
            Request(recipe=fault_recipe, run_id="run"),
            SeedDigestCache(tmp_path / "digests.sqlite"),
            tmp_path / "plan.jsonl",
        )

    return make


def stored(tmp_path) -> str:
    """All that a catalog and a digest cache hold, as text."""
    rows = [str(pq.read_table(path).to_pylist()) for path in (tmp_path / "out").rglob("*.parquet")]
    return "".join([*rows, (tmp_path / "digests.sqlite").read_bytes().decode("latin-1")])


def test_a_signature_is_read_with_and_never_stored(server, plan, tmp_path, fault_recipe, model_path):
    signed = f"{server.url}/a.png?X-Amz-Signature=S3CRET&X-Amz-Expires=60"
    made = plan(signed, f"{server.url}/b.png?X-Amz-Signature=0LD")
    write_plan_rejects(made, open_store(str(tmp_path / "out")))
    (spec,) = made.specs()
    assert spec.seed_uri == signed
    assert spec.name.startswith("a-")
    assert made.path.stat().st_mode & 0o777 == 0o600
    config = WorkerConfig(
        recipe=fault_recipe, out_url=str(tmp_path / "out"), run_id="run", scratch=str(tmp_path / "scratch")
    )
    worker = Worker(config)
    assert worker.make(spec) is None
    assert worker.finish(spec.world_id).kind == "created"
    worker.close()
    public = f"http://127.0.0.1:{server.server_port}"
    assert f'"seed_uri":"{public}/a.png"' in stored(tmp_path)
    assert f"{public}/b.png: wanted an image file, found no access (HTTP 403)" in stored(tmp_path)
    assert not any(secret in stored(tmp_path) for secret in ("S3CRET", "0LD", "Expires"))


def test_a_seed_signed_again_is_the_same_seed(server, plan, tmp_path):
    write_plan_rejects(plan(f"{server.url}/b.png?X-Amz-Signature=0LD"), open_store(str(tmp_path / "out")))
    again = plan(f"{server.url}/b.png?X-Amz-Signature=0LDER")
    assert (again.new_rejects, again.num_rejected_before) == ([], 1)
    assert plan(f"{server.url}/b.png?X-Amz-Signature=S3CRET").num_remaining == 1


def test_a_server_that_fails_rejects_no_seed_for_good(server, plan, tmp_path):
    seeds = (f"{server.url}/a.png?Signature=S3CRET", f"{server.url}/gone.png?Signature=S3CRET")
    server.failing = True
    made = plan(*seeds)
    assert [r.stage for r in made.new_rejects] == [SOURCE_STAGE, SOURCE_STAGE]
    assert "HTTP 503" in made.unreached[0]
    write_plan_rejects(made, open_store(str(tmp_path / "out")))
    again = plan(*seeds)
    assert (again.new_rejects, again.num_rejected_before, len(again.unreached)) == ([], 2, 2)
    server.failing = False
    made = plan(*seeds)
    assert (made.num_remaining, made.num_rejected_before, made.unreached) == (1, 1, [])


def test_a_worker_that_cannot_reach_a_seed_leaves_it_to_the_next_run(server, plan, tmp_path, fault_recipe, model_path):
    seed = f"{server.url}/a.png?Signature=S3CRET"
    (spec,) = plan(seed).specs()
    config = WorkerConfig(
        recipe=fault_recipe, out_url=str(tmp_path / "out"), run_id="run", scratch=str(tmp_path / "scratch")
    )
    worker = Worker(config)
    server.failing = True
    failure = worker.make(spec)
    worker.close()
    assert isinstance(failure, Failure)
    assert (failure.stage, failure.permanent, failure.error_type) == (SOURCE_STAGE, False, "SourceError")
    assert "S3CRET" not in failure.message
    store = open_store(str(tmp_path / "out"))
    batch = Batch(
        pool=None, store=store, run_id="run", recipe="fault", deaths={}, patience=Patience(), on_outcome=lambda _: None
    )
    record_reject(batch, Outcome(spec=spec, kind="rejected", failure=failure))
    assert "S3CRET" not in str(list_rejects(store))
    server.failing = False
    assert plan(seed).num_remaining == 1


def test_a_name_for_people_holds_no_query():
    spec = WorldSpec(
        world_id="a" * 32, chunk_ids=("a" * 32,), seed_uri="https://h/x/one.jpg?w=3.5&sig=S", seed_sha256="b" * 64,
        ordinal=0, camera_path="dolly-in", num_frames=81,
    )  # fmt: skip
    assert spec.name == "one-aaaaaaaa"
