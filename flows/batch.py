"""What a batch is before anything starts: its run id and its plan. Shared by the flow and the CLI's dry run."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime

from flows.parameters import GenerateParameters
from flows.settings import Settings
from lyra_core.factory import factory_root
from lyra_core.formats.store import Store, open_store
from lyra_core.seed_digests import SeedDigestCache
from tasks.manifest import read_seeds
from tasks.plan import Plan, Request, make_plan
from tasks.recipe import Recipe


def new_run_id() -> str:
    """Sortable by time, unique without coordination."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def prepare_plan(
    parameters: GenerateParameters,
    recipe: Recipe,
    settings: Settings,
    run_id: str,
    on_seed: Callable[[int], None] | None = None,
) -> tuple[Store, Plan]:
    """Check the output and name every world; writes nothing to the output.

    Raises:
        ManifestError: no such seeds. StoreError: the output cannot be read.
    """
    store = open_store(parameters.out)
    plan = make_plan(
        read_seeds(parameters.seeds),
        store,
        Request(
            recipe=recipe,
            run_id=run_id,
            retry_rejects=parameters.retry_rejects,
            limit=parameters.limit,
        ),
        SeedDigestCache(settings.home_path / "seed-digests.sqlite"),
        settings.home_path / "plans" / f"{run_id}.jsonl",
        on_seed,
    )
    return store, plan


def code_commit() -> str:
    """The checkout's git commit, or '' outside one. Recorded, never hashed."""
    root = factory_root()
    if not (root / ".git").exists():
        return ""
    found = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    return found.stdout.strip()
