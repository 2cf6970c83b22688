"""A batch as one value: planned without a trace in the output, one pool, everything freed at its end."""

from __future__ import annotations

import pytest

from catalogs.commit import committed_ids
from flows.cli.batch_output import nothing_to_do, tell_rejects
from flows.parameters import GenerateParameters
from flows.session import Session
from flows.settings import Settings
from lyra_core.errors import StoreError
from tasks.plan import write_plan_rejects

FAULT = ["model=fault_model:load", "artifacts=ply", "quality_views=0", "width=64", "height=48"]


@pytest.fixture
def session(tmp_path, make_seeds, monkeypatch):
    """A planned batch of two seeds around the model of tests/models, in this process."""
    from pathlib import Path

    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "models"))
    parameters = GenerateParameters(
        seeds=[str(make_seeds("a.png", "b.png"))], out=str(tmp_path / "out"), recipe="parallax", assignments=FAULT
    )
    with Session.planned(parameters, Settings(executor="inline", home=tmp_path / "home")) as planned:
        yield planned


def test_planning_leaves_the_output_alone(session, tmp_path):
    assert session.plan.num_remaining == 2
    assert not (tmp_path / "out").exists()


def test_there_is_one_pool_and_it_ends_with_the_session(session):
    pool = session.open_pool()
    assert session.open_pool() is pool
    kinds = [pool.submit(spec).result(timeout=60).kind for spec in session.plan.specs()]
    assert kinds == ["created", "created"]
    assert len(committed_ids(session.store)) == 2
    session.close()
    assert pool._closing.is_set()
    assert not session.plan.path.exists()


def test_an_output_that_cannot_be_written_is_told_by_the_check(session, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StoreError, match="remove it or choose another output"):
        session.check_output()


def test_what_is_recorded_holds_no_signature(session):
    signed = session.parameters.model_copy(update={"seeds": ["https://k:s@host/a.jpg?X-Amz-Signature=S3CRET"]})
    session.parameters = signed
    assert "S3CRET" not in session.public_parameters.model_dump_json()
    assert "k:s@" not in session.public_parameters.model_dump_json()


def test_a_deployment_whose_parameters_hold_a_signature_is_warned(session):
    told = []
    session.tell = told.append
    session.warn_of_secrets()
    assert told == []
    session.parameters = session.parameters.model_copy(update={"seeds": ["https://host/a.jpg?X-Amz-Signature=S3CRET"]})
    session.warn_of_secrets()
    assert "list signed URLs in a manifest" in told[0]
    assert "S3CRET" not in told[0]


def test_the_second_run_tells_rejects_from_storage_at_fault(session, tmp_path, capsys):
    seeds = [str(tmp_path / "gone.png"), "gs://bucket/a.png"]
    parameters = session.parameters.model_copy(update={"seeds": seeds})
    with Session.planned(parameters, session.settings) as first:
        tell_rejects(first.plan)
        write_plan_rejects(first.plan, first.store)
    with Session.planned(parameters, session.settings) as second:
        assert nothing_to_do(second, as_json=False) == 3
    shown, told = capsys.readouterr()
    assert [line.partition(": ")[0] for line in told.splitlines() if line.startswith("rejected")] == ["rejected"] * 2
    assert "1 seeds are rejected; mend them, or try them again with --retry-rejects; the reasons:" in shown
    assert '"SELECT seed_uri, reason FROM rejects"' in shown
    assert "1 seeds lie on storage that is at fault; the same command asks for them again" in shown


def test_notices_reach_whoever_listens_now(session):
    pool = session.open_pool()
    told = []
    session.tell = told.append
    pool._ledger.waits("503", 0.0)
    session.patience._on_wait("again")
    assert len(told) == 2
