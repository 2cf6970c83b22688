"""What a batch is before anything starts: its run id and its plan. Shared by the flow and the CLI's dry run."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime

from flows.home import open_home, private_file
from flows.parameters import GenerateParameters
from flows.settings import Settings
from lyra_core._launch import factory_root
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
    tell: Callable[[str], None] | None = None,
) -> tuple[Store, Plan]:
    """Check the output and name every world; writes nothing to the output.

    `tell` takes one-line notices: files a folder holds besides photographs, seeds whose storage did not answer.

    Raises:
        ManifestError: no such seeds. StoreError: the output or the storage of a source cannot be read. ConfigError: no
            home to plan in.
    """
    home = open_home(settings.home_path)
    store = open_store(parameters.out)
    plan_path = home / "plans" / f"{run_id}.jsonl"
    counts = plan_path.with_suffix(".json")
    try:
        plan = make_plan(
            read_seeds(parameters.seeds, tell),
            store,
            Request(
                recipe=recipe,
                run_id=run_id,
                retry_rejects=parameters.retry_rejects,
                limit=parameters.limit,
            ),
            SeedDigestCache(private_file(home / "seed-digests.sqlite")),
            plan_path,
            on_seed,
        )
    except BaseException:
        plan_path.unlink(missing_ok=True)
        counts.unlink(missing_ok=True)
        raise
    if plan.unreached and tell is not None:
        tell(f"seeds whose storage is at fault: {len(plan.unreached):,}, the first: {plan.unreached[0]}")
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
