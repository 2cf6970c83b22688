"""A rollout in a process of its own that waits, to be killed, when the second chunk is about to be stored.

python killed_rollout.py WEIGHTS FOLDER MARKER
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

import cosmos_scene as scene
import torch

from lyra_core.config.cosmos import CAMERA
from lyra_core.cosmos.checkpoint import read_checkpoint
from lyra_core.cosmos.components import load_components
from lyra_core.cosmos.pipeline import build_sampler
from lyra_core.cosmos.rollout import CosmosRollout


class Waiting(scene.SlopeDepth):
    """Looks at the photograph and the first chunk, and then waits."""

    def estimate(self, *arguments):
        if len(self.calls) == 2:
            Path(sys.argv[3]).touch()
            time.sleep(600)
        return super().estimate(*arguments)


torch.set_num_threads(1)
options = replace(CAMERA, chunk_frames=4, num_steps=1, transformer_dtype="float32", vae_dtype="float32")
checkpoint = read_checkpoint(Path(sys.argv[1]) / "cosmos3-nano")
sampler = build_sampler(load_components(checkpoint, options, "cpu"), checkpoint, options)
rollout = CosmosRollout(sampler, Waiting(), options)
rollout.run(scene.photograph(), scene.path(9), ["a wall"], scene.ids(2), sys.argv[2])
