"""The complete configurations of training runs, as options ask for them; with --debug tiny ones."""

from __future__ import annotations

from dataclasses import replace

from lyra_core.mini.config import MINI_DIT
from lyra_core.mini.depth import TINY_REFINED_DEPTH
from lyra_core.mini.vae import TINY_MINI_VAE
from lyra_core.procedural.clip_maker import MixConfig
from lyra_core.procedural.depth_windows import WindowConfig
from lyra_core.procedural.world_clips import PathPlan
from lyra_core.train_commands.network_options import DepthTrainingOptions, VaeTrainingOptions, VideoTrainingOptions
from lyra_core.train_commands.options import RunOptions
from lyra_core.training.adversarial import AdversarialConfig
from lyra_core.training.depth import DepthTrainingConfig
from lyra_core.training.distill import StudentConfig
from lyra_core.training.frame_critics import CriticsConfig
from lyra_core.training.gan import SharpenConfig
from lyra_core.training.loop_config import LoopConfig
from lyra_core.training.vae import VaeTrainingConfig
from lyra_core.training.video_config import MINI_FLOW, VideoTrainingConfig

DEBUG_DIT = replace(
    MINI_DIT,
    layout="f1k1f4s2f1s1f2k2f1k1_g2",
    text_dim=16,
    image_dim=16,
    time_dim=32,
    dim=48,
    ffn_dim=96,
    num_heads=2,
    num_layers=2,
    squeeze_dim=8,
)
DEBUG_PATHS = PathPlan(num_frames=17, names=("wander", "wander-and-return"), takes=1, max_stride=1)


def timed_loop(options: RunOptions, evaluate_every_s: float, checkpoint_every_s: float = 120.0) -> LoopConfig:
    """A loop of the minutes asked for, with float32 and frequent rows when debugging.

    Args:
        options: of the run.
        evaluate_every_s: seconds between evaluations.
        checkpoint_every_s: seconds between checkpoints.
    """
    if options.debug:
        return LoopConfig(
            max_seconds=60 * options.minutes, warmup_steps=20, log_every=5, evaluate_every_s=evaluate_every_s
        )
    return LoopConfig(
        max_seconds=60 * options.minutes,
        precision="autocast",
        evaluate_every_s=evaluate_every_s,
        checkpoint_every_s=checkpoint_every_s,
    )


def _between_evaluations(options: VaeTrainingOptions | VideoTrainingOptions, otherwise_s: float) -> float:
    """Seconds between evaluations; 0 for one at the end only."""
    if options.evaluate_every is not None:
        return 60 * options.evaluate_every
    return 0.0 if options.debug else otherwise_s


def vae_config(options: VaeTrainingOptions) -> VaeTrainingConfig:
    """The run of the autoencoder."""
    loop = timed_loop(options, _between_evaluations(options, 60.0))
    if options.sharpen:
        loop = replace(loop, learning_rate=3e-4, betas=(0.5, 0.99))
    if options.lr is not None:
        loop = replace(loop, learning_rate=options.lr)
    max_speed = options.max_speed
    if max_speed is None and options.sharpen:
        max_speed = 2  # as fast as the chunks of the video network
    config = VaeTrainingConfig(
        loop=loop,
        seed=options.seed,
        batch=options.batch,
        photographs=options.photographs,
        num_scenes=options.scenes,
        views=options.views,
        is_compiled=not options.no_compile,
        max_speed=max_speed,
    )
    return debug_vae(config) if options.debug else config


def debug_vae(config: VaeTrainingConfig) -> VaeTrainingConfig:
    """The same run in small, for seconds on a CPU."""
    return replace(
        config,
        model=TINY_MINI_VAE,
        is_compiled=False,
        height=32,
        width=56,
        batch=4,
        num_scenes=4,
        num_held_out=3,
        textures_per_kind=2,
        texture_size=64,
        pool_clips=12,
        fresh_clips=2,
        refreshes=1,
        supersample=1,
    )


def sharpen_config(options: VaeTrainingOptions) -> SharpenConfig:
    """How much the critics of a sharpening count."""
    critics = CriticsConfig(
        adversarial=options.gan_weight,
        matching=0.2 * options.gan_weight,
        projected=options.projected,
        perceptual=options.perceptual,
    )
    return SharpenConfig(critics=critics, critic_first=options.gan_warmup, feature_weights=options.feature_weights)


def video_config(options: VideoTrainingOptions) -> VideoTrainingConfig:
    """The run of the video network, or of its student."""
    is_student = options.student or options.adversarial
    loop = replace(
        timed_loop(options, _between_evaluations(options, 180.0)),
        precision="float32" if options.debug else "copy",
        learning_rate=options.lr or (2e-4 if is_student else 1e-3),
        final_rate=0.05,
        betas=(0.9, 0.99) if is_student else (0.9, 0.95),
        weight_decay=0.02,
    )
    config = VideoTrainingConfig(
        loop=loop,
        vae_weights=options.vae,
        mix=MixConfig(i2v=0.25, plain=0.75, augmented=0.0) if options.no_augmentation else MixConfig(),
        seed=options.seed,
        batch=options.batch,
        photographs=options.photographs,
        views=options.views,
        num_scenes=options.scenes,
        is_compiled=not options.no_compile,
        student=StudentConfig() if options.student else None,
        flow=replace(MINI_FLOW, largest_history_level=options.history_level),
    )
    if is_student:
        config = replace(config, augment_from=0)
    if options.adversarial:
        config = adversarial_video(config, options)
    return debug_video(config) if options.debug else config


def adversarial_video(config: VideoTrainingConfig, options: VideoTrainingOptions) -> VideoTrainingConfig:
    """The same run among critics of frames."""
    adversarial = AdversarialConfig(
        feature_weights=options.feature_weights,
        critic_weights=options.critics,
        latents=1 if options.debug else 2,
        critic_first=4 if options.debug else 100,
    )
    return replace(
        config,
        adversarial=adversarial,
        chunks=replace(config.chunks, kept_latents=adversarial.latents),
        # first chunks have the largest holes
        mix=MixConfig(i2v=1 / 3, plain=1 / 3, augmented=1 / 3),
        # gradients of critics have norms of 3 to 40, and would make the student's vanish under the usual limit
        loop=replace(config.loop, clip_norm=20.0),
    )


def debug_video(config: VideoTrainingConfig) -> VideoTrainingConfig:
    """The same run in small, for seconds on a CPU."""
    return replace(
        config,
        vae=TINY_MINI_VAE,
        dit=DEBUG_DIT,
        plan=DEBUG_PATHS,
        chunks=replace(config.chunks, num_chunks=2),
        is_compiled=False,
        height=32,
        width=64,
        batch=4,
        num_scenes=4,
        num_held_out=2,
        textures_per_kind=1,
        texture_size=32,
        pool_rows=40,
        first_rows=4,
        clips_at_once=1,
        augment_from=4,
        supersample=1,
    )


def depth_config(options: DepthTrainingOptions) -> DepthTrainingConfig:
    """The run of the depth and Gaussian network."""
    loop = timed_loop(options, 0.0 if options.debug else 120.0, 70.0)
    loop = replace(loop, learning_rate=options.lr, betas=(0.9, 0.98), clip_norm=5.0)
    if not options.debug:
        loop = replace(loop, warmup_steps=200)
    config = DepthTrainingConfig(
        loop=loop,
        data=WindowConfig(num_scenes=options.scenes, photographs=options.photographs, views=options.views),
        seed=options.seed,
        batch=options.batch,
        splat_from_step=None if options.splats_from < 0 else options.splats_from,
        is_recorded=not options.no_cuda_graph,
        window_every=options.window_every,
        within_s=None if options.within is None else 60 * options.within,
    )
    return debug_depth(config) if options.debug else config


def debug_depth(config: DepthTrainingConfig) -> DepthTrainingConfig:
    """The same run in small, for seconds on a CPU; its few paths are searched anew."""
    data = replace(
        config.data,
        views=None,
        height=32,
        width=56,
        num_scenes=4,
        num_held_out=3,
        textures_per_kind=2,
        texture_size=64,
        supersample=1,
        pool_windows=16,
        fresh_windows=2,
    )
    return replace(config, data=data, model=TINY_REFINED_DEPTH, batch=2, splat_windows=1)
