"""lyra train mini: all steps of the mini model over the GPUs of one machine."""

from __future__ import annotations

from lyra_core.train_commands.mini_options import MiniOptions


def train(options: MiniOptions) -> int:
    """Run the steps; returns the exit status."""
    from lyra_core.train_commands.mini_plan import plan_pipeline
    from lyra_core.train_commands.process import log
    from lyra_core.training.pipeline.scheduler import Pipeline
    from lyra_core.training.pipeline.signals import stopping

    steps, config = plan_pipeline(options)
    pipeline = Pipeline(steps, options.out, config, log.info)
    with stopping(pipeline):
        return pipeline.run()
