"""The stages of one world, the worker that runs them and the pool that dispatches them."""

from lyra_core.extras import require

for _package in ("pydantic", "prefect"):
    require(_package, "the factory", extra="factory")
