"""Choices of one training run of the mini video network."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lyra_core.config.rollout import RolloutConfig
from lyra_core.errors import ConfigError
from lyra_core.mini.config import MINI, MINI_DIT
from lyra_core.mini.vae import MINI_VAE, MiniVAEConfig
from lyra_core.procedural.chunks import ChunkConfig
from lyra_core.procedural.clip_maker import MixConfig
from lyra_core.procedural.world_clips import LONG_PATHS, PathPlan
from lyra_core.training.adversarial import AdversarialConfig
from lyra_core.training.distill import StudentConfig
from lyra_core.training.flow import FlowConfig
from lyra_core.training.loop_config import LoopConfig
from lyra_core.video.dit.config import DiTConfig

MINI_FLOW = FlowConfig(shift=3.0, weighting="even", hole_weight=2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoTrainingConfig:
    """One training run of the mini video network.

    Attributes:
        loop: length and speed.
        vae_weights: EMA weights of the autoencoder, its latents' statistics in them.
        vae: its widths.
        dit: widths of the network.
        rollout: how conditions are made and how samples are drawn.
        chunks: how chunks are cut from clips.
        flow: noise levels and what is hidden.
        mix: kinds of samples.
        seed: of weights and data.
        height: rows of frames.
        width: columns.
        batch: samples a step.
        photographs: folder of photographs.
        views: file of camera paths; None searches for them.
        plan: camera paths, where they are searched.
        num_scenes: procedural scenes to learn from.
        num_held_out: clips to measure on.
        textures_per_kind: procedural textures of each kind.
        texture_size: texels of a side.
        pool_rows: samples kept on the device; 0 makes every batch anew (a resumed run is then the same bit for bit).
        first_rows: samples made before the first step.
        clips_at_once: clips rendered at once.
        steps_per_refill: steps between fresh samples.
        augment_from: step from which self-augmented histories are made: before, the network predicts nothing.
        supersample: rays along each side of a pixel.
        is_compiled: compile the blocks of the network.
        student: how a few-step student learns from the weights the run starts from; None trains the network itself.
        adversarial: how such a student learns from critics of frames instead; at most one of the two.
    """

    loop: LoopConfig
    vae_weights: Path | None = None
    vae: MiniVAEConfig = field(default_factory=lambda: MINI_VAE)
    dit: DiTConfig = field(default_factory=lambda: MINI_DIT)
    rollout: RolloutConfig = field(default_factory=lambda: MINI)
    chunks: ChunkConfig = field(default_factory=ChunkConfig)
    flow: FlowConfig = field(default_factory=lambda: MINI_FLOW)
    mix: MixConfig = field(default_factory=MixConfig)
    seed: int = 0
    height: int = 128
    width: int = 224
    batch: int = 32
    photographs: Path | None = None
    views: Path | None = None
    plan: PathPlan = LONG_PATHS
    num_scenes: int = 640
    num_held_out: int = 12
    textures_per_kind: int = 16
    texture_size: int = 256
    pool_rows: int = 6000
    first_rows: int = 600
    clips_at_once: int = 6
    steps_per_refill: int = 8
    augment_from: int = 300
    supersample: int = 2
    is_compiled: bool = False
    student: StudentConfig | None = None
    adversarial: AdversarialConfig | None = None

    def __post_init__(self) -> None:
        if self.student is not None and self.adversarial is not None:
            raise ConfigError("a student learns by `student` or by `adversarial`, found both")
        kept = 0 if self.adversarial is None else self.adversarial.latents
        if self.chunks.kept_latents != kept:
            raise ConfigError(f"samples should keep the frames of {kept} latents, found {self.chunks.kept_latents}")
        if min(self.batch, self.clips_at_once, self.steps_per_refill) < 1:
            raise ConfigError(
                f"batch, clips_at_once and steps_per_refill are at least 1, found {self.batch}, "
                f"{self.clips_at_once} and {self.steps_per_refill}"
            )
