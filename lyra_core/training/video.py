"""Trains the mini video network by rectified flow on chunks of procedural worlds and photographs.

    result = train_video(VideoTrainingConfig(...), TrainingRun(out_dir=Path("run"), device="cuda"))

The autoencoder is frozen. Left behind: `weights.safetensors` (averaged, bf16), `metrics.jsonl`, `curve.png`,
`samples.png` (truth above, generated below: held-out worlds, then held-out photographs).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lyra_core.config.rollout import RolloutConfig
from lyra_core.errors import ConfigError
from lyra_core.evaluation.generate import generate
from lyra_core.evaluation.measures import masked_psnr_db, mean_of, seen_by_seed, sharpness_ratio
from lyra_core.image_features import ImageFeatures
from lyra_core.mini.networks import MiniNetworks, build_mini_networks
from lyra_core.mini.vae import MiniVAE, build_mini_vae
from lyra_core.procedural.atlas import build_atlas
from lyra_core.procedural.chunks import ChunkMaker
from lyra_core.procedural.clip_maker import ClipMaker, photo_library
from lyra_core.procedural.clips import Clips
from lyra_core.procedural.world_clips import WorldLibrary, load_views
from lyra_core.training.adversarial import (
    AdversarialBatch,
    AdversarialConfig,
    StudentAndCritics,
    adversarial_batch,
    adversarial_losses,
)
from lyra_core.training.chunk_pool import ChunkPool
from lyra_core.training.cuda_graph import CudaGraphStep
from lyra_core.training.distill import (
    StudentAndCritic,
    StudentBatch,
    StudentConfig,
    critic_losses,
    student_batch,
    student_losses,
)
from lyra_core.training.flow import (
    FlowBatch,
    flow_batch,
    flow_loss,
    flow_losses,
)
from lyra_core.training.loop import step_generator, train
from lyra_core.training.loop_config import LoopResult
from lyra_core.training.placement import placed
from lyra_core.training.run import TrainingRun
from lyra_core.training.samples import Samples
from lyra_core.training.vae import load_grown
from lyra_core.training.video_config import VideoTrainingConfig
from lyra_core.weights.ema_weights import WEIGHTS, load_weights, save_weights

SAMPLES = "samples.png"
CRITICS = "critics.safetensors"


def frozen_vae(config: VideoTrainingConfig, device: torch.device) -> MiniVAE:
    """The autoencoder, its weights fixed; bf16 on a GPU.

    Raises:
        WeightsError: weights that cannot be read or belong to another autoencoder.
    """
    with torch.random.fork_rng(devices=[]):
        # without weights (a test) the first weights follow from the seed
        torch.random.default_generator.manual_seed(config.seed)
        vae = build_mini_vae(config.vae)
    if config.vae_weights is not None:
        load_grown(vae, config.vae_weights)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return placed(vae.eval().requires_grad_(requires_grad=False), device, dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Data:
    """What a run learns from; what it is measured on by name (in the first process only)."""

    pool: ChunkPool
    maker: ChunkMaker
    measured: dict[str, Clips]


def clip_maker(
    config: VideoTrainingConfig, split: str, device: torch.device, num_frames: int, workers: Executor | None = None
) -> ClipMaker:
    """Clips of a split, in bf16 on a GPU."""
    is_train = split == "train"
    atlas = build_atlas(
        split,
        per_kind=config.textures_per_kind if is_train else max(2, config.textures_per_kind // 4),
        size=config.texture_size,
        photographs=config.photographs,
        workers=workers,
    ).to(device)
    worlds = WorldLibrary(
        range(config.num_scenes if is_train else max(64, config.num_held_out)),
        split,
        atlas,
        size=(config.height, config.width),
        plan=config.plan,
        views=None if config.views is None else load_views(config.views, split),
    )
    return ClipMaker(
        worlds,
        photo_library(config.photographs, split, device),
        config.mix,
        num_frames=num_frames,
        supersample=config.supersample,
        dtype=torch.bfloat16 if device.type == "cuda" else torch.float32,
    )


def _prepare(config: VideoTrainingConfig, run: TrainingRun) -> _Data:
    device, replicas, workers = torch.device(run.device), run.replicas, run.workers
    maker = ChunkMaker(frozen_vae(config, device), config.dit.history_layout, config.rollout, config.chunks)
    clips = clip_maker(config, "train", device, maker.num_frames, workers)
    pool = ChunkPool(clips, maker, config.pool_rows, config.clips_at_once)
    measured: dict[str, Clips] = {}
    if replicas.is_first:
        held_out = clip_maker(config, "heldout", device, maker.num_frames, workers)
        generator = torch.Generator().manual_seed(7)
        measured["worlds"] = held_out.places(config.num_held_out, generator)
        if held_out.photos is not None:
            measured["photos"] = held_out.photographs(6, generator)
    generator = step_generator(replicas.seed(config.seed + 1), 0)
    while config.pool_rows and sum(pool.filled.values()) < config.first_rows:
        pool.add(pool.make(None, generator))
    return _Data(pool=pool, maker=maker, measured=measured)


def _warm_up(networks: MiniNetworks, config: VideoTrainingConfig, device: torch.device) -> None:
    """One step on noise, so that compiling runs beside the preparation of the data."""
    from lyra_core.training.flow import random_inputs

    generator = torch.Generator(device).manual_seed(0)
    rows, columns = config.height // 8, config.width // 8
    inputs = random_inputs(config.dit, config.batch, rows, columns, generator, text_tokens=96)
    shape = (config.batch, config.dit.latent_channels, config.dit.history_layout.num_generated, rows, columns)
    latents = torch.randn(shape, device=device, generator=generator)
    timestep = torch.full((config.batch,), 500.0, device=device)
    context = networks.dit.prepare_context(inputs)
    networks.dit(latents, timestep, context).square().mean().backward()
    networks.zero_grad(set_to_none=True)


class _Learner:
    """Losses of the flow's steps."""

    def __init__(self, config: VideoTrainingConfig, samples: Samples, seed: int) -> None:
        self.config, self.samples, self.seed = config, samples, seed
        self.recorded: CudaGraphStep[FlowBatch] | None = None

    def __call__(self, networks: MiniNetworks, step: int) -> dict[str, Tensor]:
        config = self.config
        rows = self.samples.draw(networks, step)
        noise = step_generator(self.seed + 1, step, rows.target.device)
        if not config.is_compiled:
            return flow_loss(networks, rows, config.flow, config.rollout, noise)
        batch = flow_batch(rows, config.dit.history_layout, config.flow, config.rollout, noise)
        if self.recorded is None:
            networks.dit.compile_blocks()
            self.samples.settle()
            self.recorded = CudaGraphStep(partial(flow_losses, networks), list(networks.parameters()), batch)
        return self.recorded(batch)


class _AdversarialLearner:
    """Losses of a student among critics; the first steps only teach the critics."""

    def __init__(
        self,
        config: VideoTrainingConfig,
        adversarial: AdversarialConfig,
        vae: MiniVAE,
        features: ImageFeatures | None,
        samples: Samples,
        seed: int,
    ) -> None:
        self.config, self.adversarial, self.samples, self.seed = config, adversarial, samples, seed
        self.vae, self.features = vae, features
        self.recorded: dict[bool, CudaGraphStep[AdversarialBatch]] = {}

    def __call__(self, both: StudentAndCritics, step: int) -> dict[str, Tensor]:
        config, is_judged = self.config, step >= self.adversarial.critic_first
        rows = self.samples.draw(both.student, step)
        there = step_generator(self.seed + 1, step, rows.target.device)
        batch = adversarial_batch(rows, config.dit.history_layout, self.adversarial, config.flow, config.rollout, there)
        compute = partial(adversarial_losses, both, self.vae, self.features, self.adversarial, is_judged=is_judged)
        if not config.is_compiled:
            return compute(batch)
        if not self.recorded:
            both.student.dit.compile_blocks()
        if is_judged not in self.recorded:
            self.recorded.clear()  # the two are not needed at the same time
            self.samples.settle()
            self.recorded[is_judged] = CudaGraphStep(compute, list(both.parameters()), batch)
        return self.recorded[is_judged](batch)


class _StudentLearner:
    """Losses of a distillation's steps: the critic's, and in every few steps the student's too."""

    def __init__(
        self, config: VideoTrainingConfig, student: StudentConfig, teacher: MiniNetworks, samples: Samples, seed: int
    ) -> None:
        self.config, self.student, self.teacher, self.samples, self.seed = config, student, teacher, samples, seed
        self.recorded: dict[bool, CudaGraphStep[StudentBatch]] = {}

    def __call__(self, both: StudentAndCritic, step: int) -> dict[str, Tensor]:
        config, is_full = self.config, (step + 1) % self.student.critic_steps == 0
        rows = self.samples.draw(both.student, step)
        noise = step_generator(self.seed + 1, step, rows.target.device)
        batch = student_batch(rows, config.dit.history_layout, self.student, config.flow, config.rollout, noise)
        compute = partial(student_losses, both, self.teacher) if is_full else partial(critic_losses, both)
        if not config.is_compiled:
            return compute(batch)
        if not self.recorded:
            for networks in (both.student, both.critic, self.teacher):
                networks.dit.compile_blocks()
        if is_full not in self.recorded:
            moved = both if is_full else both.critic
            self.samples.settle()
            self.recorded[is_full] = CudaGraphStep(compute, list(moved.parameters()), batch)
        return self.recorded[is_full](batch)


def train_video(config: VideoTrainingConfig, run: TrainingRun) -> LoopResult:
    """Train the mini video network.

    Args:
        config: hyper-parameters.
        run: folder, devices, weights to begin with; a student begins with its teacher's.

    Returns:
        The averaged weights and all metrics.

    Raises:
        SeedError: photographs that cannot be read.
        TrainingError: the training diverged.
        WeightsError: weights that cannot be read.
        ConfigError: a student without its teacher's weights.
    """
    device = torch.device(run.device)
    networks = build_mini_networks(config.dit, config.seed, device)
    if run.start_from is not None:
        load_weights(networks, run.start_from, "video")
    elif config.student is not None or config.adversarial is not None:
        raise ConfigError("a student starts from its teacher's weights: give start_from")
    with ThreadPoolExecutor(1) as beside:
        preparation = beside.submit(_prepare, config, run)
        if config.is_compiled:
            _compile(config, device)
        data = preparation.result()
    is_student = config.student is not None or config.adversarial is not None
    rollout = replace(config.rollout, sampler="distilled" if is_student else "euler")

    def evaluate(module: nn.Module) -> dict[str, float | int]:
        return measure(_network_of(module), data.maker, data.measured, rollout)

    samples = Samples(config, data.pool, run.replicas.seed(config.seed), device)
    model, learner = _learning(config, networks, samples, data.maker)
    try:
        result = train(model, learner, config.loop, run, evaluate)
    finally:
        samples.close()
    model.load_state_dict(result.ema)
    trained = _network_of(model)
    result.ema = trained.state_dict()
    if run.replicas.is_first:
        save_weights(result.ema, run.out_dir / WEIGHTS)  # of a student without its critic
        if isinstance(model, StudentAndCritics):
            save_weights(model.critics.state_dict(), run.out_dir / CRITICS)
        save_samples(trained.eval(), data.maker, data.measured, rollout, run.out_dir / SAMPLES)
    return result


def _compile(config: VideoTrainingConfig, device: torch.device) -> None:
    """Compile the network's code; the loop trains a bf16 copy of the same code, which so finds it compiled."""
    networks = build_mini_networks(config.dit, config.seed, device).to(torch.bfloat16)
    networks.dit.compile_blocks()
    _warm_up(networks, config, device)


def _learning(
    config: VideoTrainingConfig, networks: MiniNetworks, samples: Samples, maker: ChunkMaker
) -> tuple[nn.Module, Callable[[Any, int], dict[str, Tensor]]]:
    """What the loop trains, and the losses of its steps."""
    seed = samples.seed
    dtype = torch.bfloat16 if config.loop.precision == "copy" else torch.float32
    if config.adversarial is not None:
        features = config.adversarial.features(next(networks.parameters()).device, dtype)
        both = StudentAndCritics(networks, config.adversarial, None if features is None else features.widths, seed)
        vae = cast("MiniVAE", maker.vae)
        return both, _AdversarialLearner(config, config.adversarial, vae, features, samples, seed)
    if config.student is None:
        return networks, _Learner(config, samples, seed)
    teacher = copy.deepcopy(networks).to(dtype).eval().requires_grad_(requires_grad=False)
    return StudentAndCritic(networks), _StudentLearner(config, config.student, teacher, samples, seed)


def _network_of(module: nn.Module) -> MiniNetworks:
    """What makes videos, of what is trained."""
    networks = module.student if isinstance(module, StudentAndCritic | StudentAndCritics) else module
    return cast("MiniNetworks", networks)


@torch.no_grad()
def measure(
    networks: MiniNetworks, maker: ChunkMaker, measured: dict[str, Clips], config: RolloutConfig
) -> dict[str, float | int]:
    """Decibels and sharpness after each chunk, where the seed saw the scene and where it did not."""
    row: dict[str, float | int] = {}
    for name, clips in measured.items():
        videos = _generate(networks, maker, clips, config)
        frames = list(range(maker.chunk_frames, clips.frames.shape[1], maker.chunk_frames))
        seen = seen_by_seed(clips, frames)
        for index, frame in enumerate(frames):
            generated, truth = (videos[:, frame].float() + 1) / 2, (clips.frames[:, frame].float() + 1) / 2
            row[f"{name}_seen_{frame}"] = mean_of(masked_psnr_db(generated, truth, seen[:, index]))
            row[f"{name}_new_{frame}"] = mean_of(masked_psnr_db(generated, truth, ~seen[:, index]))
            row[f"{name}_sharp_{frame}"] = mean_of(sharpness_ratio(generated, truth, ~seen[:, index]))
    return row


def _generate(networks: MiniNetworks, maker: ChunkMaker, clips: Clips, config: RolloutConfig) -> Tensor:
    if clips.frames.is_cuda:
        networks = copy.deepcopy(networks).to(torch.bfloat16)
    with torch.compiler.set_stance("force_eager"):
        return generate(networks, maker, clips, config, torch.Generator().manual_seed(5))


@torch.no_grad()
def save_samples(
    networks: MiniNetworks, maker: ChunkMaker, measured: dict[str, Clips], config: RolloutConfig, path: Path
) -> None:
    """Pictures: of some clips, the seed and the last frame of each half chunk, truth above and generated below."""
    from PIL import Image

    strips = []
    for clips in measured.values():
        videos = _generate(networks, maker, clips, config)
        frames = list(range(0, clips.frames.shape[1], max(1, maker.chunk_frames // 2)))
        for truth, generated in list(zip(clips.frames, videos, strict=True))[:6]:
            strips += [torch.cat(list(video[frames].float()), dim=2) for video in (truth, generated)]
    sheet = (torch.cat(strips, dim=1).clamp(-1, 1) + 1) * 127.5
    Image.fromarray(sheet.round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()).save(path)
