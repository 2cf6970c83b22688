"""lyra train vae, video, depth and super-resolution: the networks of the mini model."""

from __future__ import annotations

from lyra_core.train_commands.network_options import (
    DepthTrainingOptions,
    SuperResolutionOptions,
    VaeTrainingOptions,
    VideoTrainingOptions,
)


def vae(options: VaeTrainingOptions) -> None:
    """Train the autoencoder, or sharpen its decoder, and write what it cost to summary.json."""
    from lyra_core.train_commands.configs import sharpen_config, vae_config
    from lyra_core.train_commands.process import training_run, write_summary
    from lyra_core.training.gan import sharpen_vae
    from lyra_core.training.vae import train_vae

    config = vae_config(options)
    with training_run(options) as run:
        if options.sharpen:
            result = sharpen_vae(config, sharpen_config(options), run)
        else:
            result = train_vae(config, run)
    write_summary(options, run, result, samples_per_step=config.batch)


def video(options: VideoTrainingOptions) -> None:
    """Train the video network or its student, and write what it cost to summary.json."""
    from lyra_core.train_commands.configs import video_config
    from lyra_core.train_commands.process import training_run, write_summary
    from lyra_core.training.video import train_video

    config = video_config(options)
    with training_run(options) as run:
        result = train_video(config, run)
    write_summary(options, run, result, samples_per_step=config.batch)


def depth(options: DepthTrainingOptions) -> None:
    """Train the depth and Gaussian network, and write what it cost to summary.json."""
    from lyra_core.train_commands.configs import depth_config
    from lyra_core.train_commands.process import training_run, write_summary
    from lyra_core.training.depth import train_depth

    config = depth_config(options)
    with training_run(options) as run:
        result = train_depth(config, run)
    write_summary(options, run, result, samples_per_step=config.batch * config.shown)


def super_resolution(options: SuperResolutionOptions) -> None:
    """Make samples, train the super-resolution on them, and write what it cost to summary.json."""
    import time

    from lyra_core.train_commands.configs import detail_source_config, super_resolution_config
    from lyra_core.train_commands.process import training_run, write_summary
    from lyra_core.training.detail_source import DetailSource, held_out_sets
    from lyra_core.training.super_resolution import HeldOut, train_super_resolution

    config = super_resolution_config(options)
    with training_run(options) as run:
        source = DetailSource(detail_source_config(options, is_held_out=False), "train", run.device, run.workers)
        held = DetailSource(detail_source_config(options, is_held_out=True), "heldout", run.device, run.workers)
        sets = held_out_sets(held, options.held_out)
        until = time.time() + 60 * options.fill_minutes
        pool = source.fill(options.samples, options.seed, until=until, report=run.say)
        result = train_super_resolution(config, pool, HeldOut(sets=sets), run)
    write_summary(options, run, result, samples_per_step=config.batch)
