"""lyra train vae, lyra train video, lyra train depth: the networks of the mini model."""

from __future__ import annotations

from lyra_core.train_commands.network_options import DepthTrainingOptions, VaeTrainingOptions, VideoTrainingOptions


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
