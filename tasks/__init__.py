"""The stages of one world, the worker that runs them and the pool that dispatches them."""
