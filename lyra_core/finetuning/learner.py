"""Losses of fine-tuning: samples of custom clips under the rectified-flow objective."""

from __future__ import annotations

from torch import Tensor

from lyra_core.finetuning.clip_samples import ClipSamples
from lyra_core.finetuning.released_networks import ReleasedNetworks
from lyra_core.procedural.chunks import ChunkRows
from lyra_core.training.flow import FlowConfig, flow_loss, one_step_prediction
from lyra_core.training.loop import step_generator


class Learner:
    """Losses of steps."""

    def __init__(self, samples: ClipSamples, flow: FlowConfig, seed: int) -> None:
        self.samples, self.flow, self.seed = samples, flow, seed

    def __call__(self, networks: ReleasedNetworks, step: int) -> dict[str, Tensor]:
        """Losses of a step by name."""
        rollout = self.samples.maker.rollout
        noise = step_generator(self.seed + 1, step, self.samples.device)

        def predict(rows: ChunkRows) -> Tensor:
            return one_step_prediction(networks, rows, self.flow, rollout, noise)

        rows = self.samples.rows(step, predict)
        return flow_loss(networks, rows, self.flow, rollout, noise)
