"""Videos of many scenes at once, as the rollout would make them: to watch a model while it learns and to measure it.

Depth of generated frames is the scene's true depth (the oracle form of an evaluation) or what an estimator says of
them; everything else is what `lyra_core.video.rollout` does, chunk by chunk.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.config.rollout import RolloutConfig
from lyra_core.depth import DepthEstimator
from lyra_core.evaluation.estimated_depth import EstimatedDepth
from lyra_core.mini.networks import MiniNetworks
from lyra_core.procedural.chunks import ChunkMaker
from lyra_core.procedural.clips import Clips
from lyra_core.video.chunk_batch import build_inputs
from lyra_core.video.dit.context import PreparedContext
from lyra_core.video.sampler import sample_distilled, sample_euler
from lyra_core.video.schedule import distilled_schedule, euler_schedule


@torch.no_grad()
def generate(
    networks: MiniNetworks,
    maker: ChunkMaker,
    clips: Clips,
    config: RolloutConfig,
    generator: torch.Generator,
    *,
    memory: bool = True,
    estimator: DepthEstimator | None = None,
) -> Float[Tensor, "b t 3 h w"]:
    """Videos in [-1, 1] that begin with the clips' first frames and follow their cameras.

    Args:
        networks: of the video model.
        maker: knows the autoencoder and the layout.
        clips: seeds, depth and cameras; frames after the first are not looked at.
        config: sampler and steps.
        generator: of the noise, on the CPU.
        memory: False forgets everything but the last frames.
        estimator: gives generated frames their depth, and the clips know that of their first frames only
            (estimated_depth.with_seed_depth); None takes the clips' depth for all frames.

    Raises:
        DepthError: the estimator found nothing.
    """
    layout, frames = maker.layout, clips.frames[:, :1].repeat(1, clips.frames.shape[1], 1, 1, 1)
    seed = maker.encode(clips.frames[:, :1])
    latents, previous = seed, seed[:, :, -1:]
    estimated = None if estimator is None else EstimatedDepth(clips, estimator, config)
    for chunk in range((frames.shape[1] - 1) // maker.chunk_frames):
        first = 1 + chunk * maker.chunk_frames
        known = replace(clips, frames=frames, depth_m=clips.depth_m if estimated is None else estimated.depth_m)
        stored = 1 + chunk * maker.chunk_frames // config.memory.stride_frames
        left_out = None if memory else torch.ones(len(frames), stored, dtype=torch.bool, device=frames.device)
        batch = maker.chunk_batch(known, latents, chunk, left_out)
        inputs = build_inputs(batch, maker.vae, layout, config.conditioning)
        context = networks.dit.prepare_context(networks.complete(inputs, clips.captions, batch.last_image))
        shape = (len(frames), latents.shape[1], layout.num_generated, *latents.shape[3:])
        noise = torch.randn(shape, generator=generator).to(frames.device)

        def velocity(x: Tensor, timestep: Tensor, context: PreparedContext = context) -> Tensor:
            return networks.dit(x, timestep, context)

        if config.sampler == "distilled":
            fresh = [torch.randn(shape, generator=generator).to(frames.device) for _ in range(4)]
            sampled = sample_distilled(velocity, noise, distilled_schedule(shift=config.shift), fresh.__getitem__)
        else:
            sampled = sample_euler(velocity, noise, euler_schedule(config.num_steps, config.shift))
        decoded = maker.vae.decode(torch.cat([previous, sampled], dim=2), latents_per_window=layout.num_generated + 1)
        video = decoded[:, :, 1:].float().clamp(-1, 1)
        previous = sampled[:, :, -1:]
        frames[:, first : first + maker.chunk_frames] = video.transpose(1, 2).to(frames)
        if estimated is not None:
            estimated.after_chunk(frames, first + maker.chunk_frames - 1, maker.chunk_frames)
        # one frame before, so that the first group of the chunk is not taken for the first of a video
        again = maker.vae.encode(torch.cat([video[:, :, :1], video], 2), latents_per_window=layout.num_generated)
        latents = torch.cat([latents, again[:, :, 1:].float()], dim=2)
    return frames
