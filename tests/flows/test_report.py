"""The summary people read in the Prefect UI, and the counts behind it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flows.recipes import find_recipe
from flows.report import TABLE_ROWS, Reporter
from lyra_core.records import RejectRecord
from lyra_core.spec import WorldSpec
from tasks.outcome import Failure, Outcome
from tasks.plan import Plan

SPEC = WorldSpec(
    world_id="a" * 32, chunk_ids=("a" * 32,), seed_uri="photos/one.jpg", seed_sha256="b" * 64, ordinal=0,
    camera_path="orbit-left", num_frames=81,
)  # fmt: skip
MADE = Outcome(
    spec=SPEC, kind="created", accepted=True, num_splats=1234, num_bytes=2_000_000, psnr_db=27.5,
    stage_s={"video": 2.0, "encode": 1.0}, thumbnail="data:image/jpeg;base64,AAAA",
)  # fmt: skip
FAILURE = Failure(permanent=True, stage="seed", error_type="SeedError", message="wanted an image, found a poem")


@pytest.fixture
def published(monkeypatch) -> dict:
    """What would go to Prefect's server."""
    kept: dict = {}
    monkeypatch.setattr("flows.report.create_markdown_artifact", lambda text, key, **_: kept.update({key: text}))
    monkeypatch.setattr("flows.report.create_table_artifact", lambda rows, key, **_: kept.update({key: rows}))
    monkeypatch.setattr(
        "flows.report.create_progress_artifact", lambda progress, key, **_: kept.update({key: progress})
    )
    return kept


def reporter(**counts: int) -> Reporter:
    plan = Plan(path=Path("plan.jsonl"), run_id="run")
    for name, value in counts.items():
        setattr(plan, name, value)
    return Reporter(plan=plan, recipe=find_recipe("parallax"), run_id="run-1", out="./worlds")


def test_counts_pictures_and_rejects_are_in_the_summary(published):
    report = reporter(num_seeds=4, num_remaining=3, num_existing=1)
    report.plan.new_rejects.append(
        RejectRecord(run_id="run-1", ordinal=3, stage="seed", reason="it is empty", seed_uri="photos/empty.jpg")
    )
    report.add(MADE)
    report.add(replace(MADE, accepted=False, thumbnail=""))
    report.add(Outcome(spec=SPEC, kind="rejected", failure=FAILURE))
    summary = report.finish(snapshot_version=7)
    assert (summary.seeds, summary.created, summary.existing, summary.rejected) == (4, 2, 1, 2)
    assert (summary.not_accepted, summary.snapshot_version, summary.has_rejects) == (1, 7, True)
    assert summary.seconds_per_stage == {"video": 4.0, "encode": 2.0}
    assert summary.example_world_id == "a" * 32
    text = published["batch-summary"]
    assert text.count("data:image/jpeg;base64,") == 1
    assert "| 4 | 2 | 1 | 0 | 2 | 1 |" in text
    assert "`photos/empty.jpg`: it is empty" in text
    assert "`photos/one.jpg`: wanted an image, found a poem" in text
    assert "thumbnail" not in published["batch-worlds"][0]
    assert published["batch-progress"] == 100.0


def test_the_gallery_is_named_where_there_is_one(published, tmp_path):
    report = reporter(num_seeds=1, num_remaining=1)
    report.out = str(tmp_path)
    report.finish(snapshot_version=1)
    assert f"`lyra gallery {tmp_path}` writes a gallery" in published["batch-summary"]
    (tmp_path / "gallery").mkdir()
    (tmp_path / "gallery" / "index.html").write_text("")
    report.finish(snapshot_version=1)
    assert f"Gallery: `{tmp_path}/gallery/index.html`; `lyra gallery {tmp_path}` adds" in published["batch-summary"]


def test_a_large_batch_keeps_a_bounded_table(published):
    report = reporter(num_seeds=3 * TABLE_ROWS, num_remaining=3 * TABLE_ROWS)
    for _ in range(3 * TABLE_ROWS):
        report.add(MADE)
    assert report.finish(snapshot_version=None).created == 3 * TABLE_ROWS
    assert len(published["batch-worlds"]) == TABLE_ROWS


HOSTILE = "a|b `c` ``d``\n\n# <img src=x onerror=alert(1)> [link](http://x) ![p](http://x) \x1b[31m **no**"


def test_what_people_named_is_no_markup(published):
    """Names, stages and reasons through the renderer of the page: text, and one row each."""
    from markdown_it import MarkdownIt

    spec = replace(SPEC, seed_uri=f"photos/{HOSTILE}.jpg")
    report = reporter(num_seeds=2, num_remaining=2)
    report.out, report.run_id = HOSTILE, HOSTILE
    report.plan.new_rejects.append(
        RejectRecord(run_id="run-1", ordinal=3, stage="seed", reason=HOSTILE, seed_uri=HOSTILE)
    )
    report.add(replace(MADE, spec=spec, stage_s={HOSTILE: 1.0}))
    report.add(Outcome(spec=spec, kind="rejected", failure=replace(FAILURE, message=HOSTILE)))
    report.finish(snapshot_version=1)
    render = MarkdownIt("commonmark", {"html": True}).enable("table").render
    page = render(published["batch-summary"])
    assert page.count("<img") == 1, "the preview"
    assert page.count("<tr>") == 6, "three tables of a head and a row"
    assert page.count("<li>") == 2, "two rejects"
    assert page.count("<h1>") + page.count("<h2>") == 5
    for row in published["batch-worlds"]:
        page += "".join(render(cell) for cell in row.values())
    for element in ('<img src="x', "<img src=x", "<a ", "<strong>", "\x1b"):
        assert element not in page


def test_the_idle_share_is_of_worlds_that_followed_another(published):
    report = reporter(num_seeds=3, num_remaining=3)
    report.add(replace(MADE, device_s=50.0))  # a worker's first: it waited for nothing and shows nothing
    assert report.device_idle_share is None
    report.add(replace(MADE, idle_s=1.0, device_s=39.0))
    report.add(replace(MADE, idle_s=3.0, device_s=37.0))
    assert report.finish(snapshot_version=None).device_idle_share == 0.05
    assert "waited 5.0 % of the time" in published["batch-summary"]


def test_a_batch_on_cpus_claims_no_idle_share(published):
    report = reporter(num_seeds=1, num_remaining=1)
    report.add(MADE)
    assert report.finish(snapshot_version=None).device_idle_share is None
    assert "waited" not in published["batch-summary"]
