"""What a batch tells people while it runs and when it ends: Prefect artifacts and a summary."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from pydantic import BaseModel

from lyra_core.errors import LyraError
from lyra_core.escape import code_for_markdown, for_markdown, for_shell
from lyra_core.formats.store import open_store
from lyra_core.public_uri import public_uri
from tasks.outcome import Outcome
from tasks.plan import Plan
from tasks.recipe import Recipe

PROGRESS_EVERY_S = 5.0
TABLE_ROWS = 200


class BatchSummary(BaseModel):
    """The end of a batch, as JSON."""

    run_id: str
    out: str
    recipe: str
    seeds: int
    created: int
    existing: int
    duplicates: int
    rejected: int
    not_accepted: int
    snapshot_version: int | None
    seconds: float
    seconds_per_stage: dict[str, float]
    device_idle_share: float | None = None
    example_world_id: str | None = None

    @property
    def has_rejects(self) -> bool:
        """Whether something asked for does not exist."""
        return self.rejected > 0


@dataclass(slots=True, kw_only=True)
class Reporter:
    """Collects outcomes from many threads and publishes them."""

    plan: Plan
    recipe: Recipe
    run_id: str
    out: str
    counts: dict[str, int] = field(default_factory=lambda: {"created": 0, "exists": 0, "rejected": 0})
    not_accepted: int = 0
    stage_s: dict[str, float] = field(default_factory=dict)
    idle_s: float = 0.0
    device_s: float = 0.0
    rows: list[dict[str, str]] = field(default_factory=list)
    reasons: list[tuple[str, str]] = field(default_factory=list)
    _started_s: float = field(default_factory=time.monotonic)
    _published_s: float = 0.0
    _progress: UUID | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, outcome: Outcome) -> None:
        """Count one outcome; called by the shards' threads."""
        with self._lock:
            self.counts[outcome.kind] += 1
            self.not_accepted += outcome.accepted is False
            for stage, seconds in outcome.stage_s.items():
                self.stage_s[stage] = self.stage_s.get(stage, 0.0) + seconds
            if outcome.idle_s is not None:  # a worker's first world waited for nothing, and shows nothing
                self.idle_s += outcome.idle_s
                self.device_s += outcome.device_s
            if outcome.failure is not None and len(self.reasons) < TABLE_ROWS:
                self.reasons.append((public_uri(outcome.spec.seed_uri), outcome.failure.message))
            if len(self.rows) < TABLE_ROWS:
                self.rows.append(_row(outcome))

    @property
    def device_idle_share(self) -> float | None:
        """Share of time for which workers' devices waited between worlds, 0 to 1; None before one made two."""
        total = self.idle_s + self.device_s
        return self.idle_s / total if total else None

    def tick(self) -> None:
        """Publish the progress, every few seconds at most."""
        now = time.monotonic()
        if now - self._published_s < PROGRESS_EVERY_S:
            return
        self._published_s = now
        percent = 100.0 * sum(self.counts.values()) / max(1, self.plan.num_remaining)
        if self._progress is None:
            self._progress = create_progress_artifact(  # type: ignore[assignment]
                progress=percent, key="batch-progress", description=for_markdown(f"worlds of batch {self.run_id}")
            )
        else:
            update_progress_artifact(self._progress, progress=percent)

    def finish(self, snapshot_version: int | None) -> BatchSummary:
        """Publish the final artifacts and return the summary."""
        self._published_s = 0.0
        self.tick()
        summary = BatchSummary(
            run_id=self.run_id,
            out=self.out,
            recipe=self.recipe.name,
            seeds=self.plan.num_seeds,
            created=self.counts["created"],
            existing=self.plan.num_existing + self.counts["exists"],
            duplicates=self.plan.num_duplicates,
            rejected=self.plan.num_rejected + self.counts["rejected"],
            not_accepted=self.not_accepted,
            snapshot_version=snapshot_version,
            seconds=round(time.monotonic() - self._started_s, 2),
            seconds_per_stage={k: round(v, 2) for k, v in self.stage_s.items()},
            device_idle_share=None if self.device_idle_share is None else round(self.device_idle_share, 4),
            example_world_id=next((row["world_id"] for row in self.rows if row["thumbnail"]), None),
        )
        if self.rows:  # Prefect's page reads the cells as Markdown
            create_table_artifact(
                [{k: for_markdown(v) for k, v in row.items() if k != "thumbnail"} for row in self.rows],
                key="batch-worlds",
                description=for_markdown(f"the first {len(self.rows)} worlds of batch {self.run_id}"),
            )
        create_markdown_artifact(
            self._markdown(summary),
            key="batch-summary",
            description=for_markdown(f"summary of batch {self.run_id}"),
        )
        return summary

    def _idle_line(self) -> list[str]:
        share = self.device_idle_share
        return (
            []
            if share is None
            else [f"Between worlds, the networks' devices waited {100 * share:.1f} % of the time.", ""]
        )

    def _markdown(self, summary: BatchSummary) -> str:
        num_worlds = max(1, summary.created)
        lines = [
            f"# Batch {for_markdown(summary.run_id)}",
            "",
            (
                f"Recipe {code_for_markdown(summary.recipe)} into {code_for_markdown(public_uri(summary.out))}, "
                f"catalog snapshot {summary.snapshot_version if summary.snapshot_version is not None else 'unchanged'}."
            ),
            "",
            "| seeds | created | existed | duplicates | rejected | below a quality gate | seconds |",
            "|---|---|---|---|---|---|---|",
            (
                f"| {summary.seeds} | {summary.created} | {summary.existing} | {summary.duplicates} "
                f"| {summary.rejected} | {summary.not_accepted} | {summary.seconds:.1f} |"
            ),
            "",
            *self._idle_line(),
            "## Seconds per stage",
            "",
            "| stage | total | per world |",
            "|---|---|---|",
            *(
                f"| {for_markdown(stage)} | {total:.1f} | {total / num_worlds:.2f} |"
                for stage, total in summary.seconds_per_stage.items()
            ),
        ]
        lines += ["", "## To look at", "", _gallery(self.out)]
        pictured = [row for row in self.rows if row["thumbnail"]]
        if pictured:
            lines += [
                "",
                "## Worlds",
                "",
                "| preview | world | splats | PSNR dB |",
                "|---|---|---|---|",
            ]
            lines += [
                f"| ![{for_markdown(row['world'])}]({row['thumbnail']}) | "
                f"{code_for_markdown(row['world'], in_table=True)} | {row['splats']} | {row['psnr_db']} |"
                for row in pictured
            ]
        rejects = [(r.seed_uri, r.reason) for r in self.plan.new_rejects[:TABLE_ROWS]] + self.reasons
        if rejects:
            lines += ["", "## Rejects", ""]
            lines += [f"* {code_for_markdown(seed)}: {for_markdown(reason)}" for seed, reason in rejects]
        return "\n".join(lines)


def _gallery(out: str) -> str:
    """Where the gallery of the worlds is, or the command that writes it."""
    command = code_for_markdown(f"lyra gallery {for_shell(public_uri(out))}")
    try:
        store = open_store(out)
        index = store.uri("gallery/index.html") if store.exists("gallery/index.html") else None
    except LyraError:  # the batch is done; a summary must not fail over where it is shown
        index = None
    if index is not None:
        return f"Gallery: {code_for_markdown(public_uri(index))}; {command} adds the worlds of this batch."
    return f"{command} writes a gallery of all worlds: thumbnails, filters, 3D views."


def _row(outcome: Outcome) -> dict[str, str]:
    return {
        "thumbnail": outcome.thumbnail,
        "world": outcome.spec.name,
        "world_id": outcome.spec.world_id,
        "status": outcome.kind if outcome.accepted is not False else "below a quality gate",
        "splats": f"{outcome.num_splats:,}",
        "psnr_db": f"{outcome.psnr_db:.2f}" if outcome.psnr_db is not None else "",
        "megabytes": f"{outcome.num_bytes / 1e6:.1f}",
        "seconds": f"{sum(outcome.stage_s.values()):.1f}",
        "reason": outcome.failure.message if outcome.failure else "",
    }
