"""Batches of the video network from a pool that is refilled beside training, with the network's own help."""

from __future__ import annotations

import torch
from torch import Tensor

from lyra_core.mini.networks import MiniNetworks, build_mini_networks
from lyra_core.procedural.chunks import ChunkRows
from lyra_core.training.chunk_pool import ChunkPool, Predict
from lyra_core.training.flow import one_step_prediction
from lyra_core.training.loop import step_generator
from lyra_core.training.prefetch import Prefetch
from lyra_core.training.video_config import VideoTrainingConfig


class Samples:
    """Batches by step; what a step gets follows from the seed, the step and the weights at the last refill."""

    def __init__(self, config: VideoTrainingConfig, pool: ChunkPool, seed: int, device: torch.device) -> None:
        self.config, self.pool, self.seed, self.device = config, pool, seed, device
        self.beside: Prefetch[dict[str, ChunkRows]] = Prefetch(device)
        self.stand_in: MiniNetworks | None = None

    def draw(self, networks: MiniNetworks, step: int) -> ChunkRows:
        """A batch.

        Args:
            networks: make the histories of self-augmented samples.
            step: of the run.
        """
        config, pool = self.config, self.pool
        generator = step_generator(self.seed, step)
        if not config.pool_rows:
            return pool.draw(config.batch, self._helper(networks, step), generator)
        if step % config.steps_per_refill == 0:
            pool.add(self.beside.take() or {})
            predict, own = self._helper(networks, step), step_generator(self.seed + 2, step)
            self.beside.start(lambda: pool.make(predict, own))
        return pool.draw(config.batch, None, generator)

    def settle(self) -> None:
        """Wait until nothing runs beside; to record a step."""
        self.beside.settle()

    def close(self) -> None:
        """End what runs beside."""
        self.beside.close()

    def _helper(self, networks: MiniNetworks, step: int) -> Predict | None:
        """The network as it is now, in a copy that training does not move."""
        config = self.config
        if step < config.augment_from or not config.mix.augmented:
            return None
        stand_in = self.stand_in
        if stand_in is None:
            stand_in = build_mini_networks(config.dit, config.seed, self.device)
            stand_in = stand_in.to(next(networks.parameters()).dtype).requires_grad_(requires_grad=False)
            self.stand_in = stand_in
        with torch.no_grad():
            torch._foreach_copy_(list(stand_in.parameters()), list(networks.parameters()))
        noise = step_generator(self.seed + 3, step, self.device)

        def predict(rows: ChunkRows) -> Tensor:
            return one_step_prediction(stand_in, rows, config.flow, config.rollout, noise)

        return predict
