"""One batch: settings, recipe, plan, store and workers in one value that the command line, flows and tests share.

with Session.planned(parameters, settings) as session:      # names every world; writes nothing to the output
    session.check_output()                                  # storage, GPUs: what cannot work is told now
    session.open_pool()                                     # optional: workers load from now on
    summary = generate_batch(session)                       # flows/generate.py
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self

from flows.home import open_home, private_file
from flows.parameters import GenerateParameters
from flows.settings import Settings, use_model_path
from flows.worker_plan import WorkerPlan, open_pool, plan_workers, worker_config
from lyra_core.formats.patience import Patience
from lyra_core.formats.store import Store, open_store
from lyra_core.public_uri import public_uri
from lyra_core.seed_digests import SeedDigestCache
from tasks.manifest import read_seeds
from tasks.outcome import Outcome
from tasks.plan import Plan, Request, make_plan
from tasks.recipe import Recipe

if TYPE_CHECKING:
    from tasks.pool_protocol import Pool

log = logging.getLogger(__name__)


def new_run_id() -> str:
    """Sortable by time, unique without coordination."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


@dataclass(slots=True, kw_only=True)
class Session:
    """A planned batch.

    Attributes:
        settings: where and how worlds are made.
        parameters: what was asked for.
        recipe: resolved, its licenses accepted.
        store: the output.
        plan: which worlds remain.
        tell: takes sentences for people while the batch runs, such as storage that fails.
        on_outcome: called with every finished world, from threads.
    """

    settings: Settings
    parameters: GenerateParameters
    recipe: Recipe
    store: Store
    plan: Plan
    tell: Callable[[str], None] = log.warning
    on_outcome: Callable[[Outcome], None] = lambda _outcome: None
    _pool: Pool | None = field(default=None)
    _workers: WorkerPlan | None = field(default=None)

    @classmethod
    def planned(
        cls,
        parameters: GenerateParameters,
        settings: Settings,
        *,
        on_seed: Callable[[int], None] | None = None,
        tell: Callable[[str], None] = log.warning,
    ) -> Self:
        """Resolve the recipe and name every world; starts nothing and writes nothing to the output.

        Args:
            parameters: what is asked for.
            settings: of this process.
            on_seed: called with the number of seeds looked at, for progress.
            tell: takes notices: files a folder holds besides photographs, seeds whose storage did not answer.

        Raises:
            ManifestError: no such seeds. RecipeError, LicenseError, CameraPathError: the recipe cannot be used.
            StoreError: the output or the storage of a source cannot be read. ConfigError: no home to plan in.
        """
        use_model_path(settings)
        recipe, run_id = parameters.resolved_recipe(), parameters.run_id or new_run_id()
        # A camera path that no world could use is refused before seeds are read.
        recipe.requested_cameras(recipe.camera_path, recipe.num_frames)
        home, store = open_home(settings.home_path), open_store(parameters.out)
        path = home / "plans" / f"{run_id}.jsonl"
        request = Request(recipe=recipe, run_id=run_id, retry_rejects=parameters.retry_rejects, limit=parameters.limit)
        digests = SeedDigestCache(private_file(home / "seed-digests.sqlite"))
        try:
            plan = make_plan(read_seeds(parameters.seeds, tell), store, request, digests, path, on_seed)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        if plan.unreached:
            tell(f"seeds whose storage is at fault: {len(plan.unreached):,}, the first: {plan.unreached[0]}")
        return cls(settings=settings, parameters=parameters, recipe=recipe, store=store, plan=plan, tell=tell)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def run_id(self) -> str:
        """Of this batch."""
        return self.plan.run_id

    @property
    def workers(self) -> WorkerPlan:
        """How many workers of which kind, decided once: free memory is less when they have loaded.

        Raises:
            ConfigError: a device this machine does not have, or a cluster without a number of workers.
        """
        if self._workers is None:
            self._workers = plan_workers(self.settings, max(1, self.plan.num_remaining))
        return self._workers

    @property
    def patience(self) -> Patience:
        """How long this process waits for storage that fails."""
        return Patience(self.settings.store_deadline_s, self._say)

    @property
    def public_parameters(self) -> GenerateParameters:
        """The parameters without signatures and passwords, for whoever records them."""
        shown = {"seeds": [public_uri(seed) for seed in self.parameters.seeds], "out": public_uri(self.parameters.out)}
        return self.parameters.model_copy(update=shown)

    def warn_of_secrets(self) -> None:
        """Say that parameters which somebody else recorded, such as a deployment's, hold what is kept nowhere else."""
        if self.public_parameters != self.parameters:
            self.tell(
                "the parameters of this run hold a signature or a password, which Prefect keeps and shows with them; "
                "list signed URLs in a manifest and name that, and give credentials by the environment"
            )

    def check_output(self) -> None:
        """Find out now what could not work later.

        Raises:
            StoreError: the output cannot be written, or does not tell two writers apart. ConfigError: see workers.
        """
        if self.plan.num_remaining:
            _ = self.workers
        self.store.check_writable()
        self.store.require_conditional_create()

    def open_pool(self) -> Pool:
        """The pool of this batch, opened at the first call; workers load their models from then on."""
        if self._pool is None:
            workers = self.workers
            config = worker_config(self.recipe, self.plan, workers, self.settings, self.parameters, self.store)
            self._pool = open_pool(config, self.settings, workers, self.store, self._say)
            self._pool.__enter__()
        return self._pool

    def _say(self, sentence: str) -> None:
        """Tell whoever listens at this moment: a progress display may have come after the pool."""
        self.tell(sentence)

    def close(self) -> None:
        """Free the workers and forget the plan."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
        self.plan.discard()
