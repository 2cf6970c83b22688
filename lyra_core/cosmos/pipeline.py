"""One window of frames from Cosmos 3, through the pipelines of diffusers: nothing of the sampling is written here.

    camera   `Cosmos3OmniPipeline` with actions; subclassed to tie more than one latent to known frames, and to keep the
             noise, which the library's own call does not return
    depth    `Cosmos3OmniBlocks` (transfer) with a depth video
    image    `Cosmos3OmniPipeline`, or `Cosmos3DistilledBlocks` for a few-step student

Pictures enter as PIL images of exactly the canvas: eight-bit arrays would be taken for values up to 255, and another
size would be padded or stretched.

Legend: p known frames, t frames of the window, n latents, c channels, h w pixels, y x latent cells.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from lyra_core.canvases import tier_of
from lyra_core.config.cosmos import CosmosOptions
from lyra_core.cosmos.checkpoint import Checkpoint
from lyra_core.cosmos.components import Components
from lyra_core.errors import FrameError
from lyra_core.extras import require

DOMAIN = "camera_pose"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the memory shows of a window.

    Attributes:
        frames: with holes filled. [t h w 3]
        cells: latent cells that are covered throughout, and may be replaced. [n y x]
    """

    frames: UInt8[Tensor, "t h w 3"]
    cells: Bool[Tensor, "n y x"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameWindow:
    """What is asked of one window.

    Attributes:
        known: its first frames, sRGB: 1, or 1 + 4 for each more latent that is tied. [p h w 3]
        num_frames: known and new ones; 1 + 4 k.
        caption: in the form that the mode wants.
        seed: of the noise.
        actions: one a frame step, for "camera". [t-1 9]
        control: a depth video, near bright, for "depth". [t h w]
        memory: what to put into the latents, or None.
    """

    known: UInt8[Tensor, "p h w 3"]
    num_frames: int
    caption: str
    seed: int
    actions: Float[Tensor, "s 9"] | None = None
    control: UInt8[Tensor, "t h w"] | None = None
    memory: Known | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """A finished window.

    Attributes:
        frames: sRGB; the known ones are the autoencoder's copies. [t h w 3]
        latents: [c n y x] float32
    """

    frames: UInt8[Tensor, "t h w 3"]
    latents: Float[Tensor, "c n y x"]


Sampler = Callable[[FrameWindow], Generated]


def build_sampler(components: Components, checkpoint: Checkpoint, options: CosmosOptions) -> Sampler:
    """What generates windows in the mode of the choices. It holds the schedule's state: one thread at a time."""
    require("diffusers", "the model cosmos3")
    import diffusers

    if options.mode == "camera":
        pipeline = camera_pipeline()(**components.named, enable_safety_checker=False)
        pipeline.set_progress_bar_config(disable=True)
        return functools.partial(_sample_camera, pipeline, options)
    if options.mode == "image" and not checkpoint.is_distilled:
        pipeline = diffusers.Cosmos3OmniPipeline(**components.named, enable_safety_checker=False)
        pipeline.set_progress_bar_config(disable=True)
        return functools.partial(_sample_image, pipeline, options)
    blocks = diffusers.Cosmos3DistilledBlocks() if checkpoint.is_distilled else diffusers.Cosmos3OmniBlocks()
    _silence(blocks)
    modular = blocks.init_pipeline()
    modular.update_components(**components.named)
    modular.disable_safety_checker()
    if not checkpoint.is_distilled:
        return functools.partial(_sample_depth, modular, options)
    modular.update_components(distilled_sigmas=list(checkpoint.levels))
    return functools.partial(_sample_student, modular, options)


def _silence(blocks: Any) -> None:
    """No progress bars: the library's own switch reaches the outermost blocks only."""
    for block in blocks.sub_blocks.values():
        if hasattr(block, "set_progress_bar_config"):
            block.set_progress_bar_config(disable=True)
        if hasattr(block, "sub_blocks"):
            _silence(block)


@functools.cache
def camera_pipeline() -> Any:
    """The class of the library's pipeline that ties several latents to known frames.

    A camera run of the library ties one. With `tied` = 1 this is its call, bit for bit.
    """
    require("diffusers", "the model cosmos3")
    from diffusers import Cosmos3OmniPipeline

    class CameraPipeline(Cosmos3OmniPipeline):  # type: ignore[misc, unused-ignore]
        """Attributes: tied, how many latents are; start, the latents that sampling began with."""

        tied = 1
        start: Tensor | None = None
        encoded: Tensor | None = None

        def _encode_video(self, x: Tensor) -> Tensor:
            self.encoded = super()._encode_video(x)
            return self.encoded

        def encode(self, frames: Tensor) -> Tensor:
            """Latents of frames, normalised as the network's. [t h w 3] uint8 to [1 c n y x]"""
            clip = frames.to(self.vae.device).permute(3, 0, 1, 2)[None].float() / 127.5 - 1.0
            return super()._encode_video(clip)

        def prepare_latents(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
            prepared = list(super().prepare_latents(*args, **kwargs))
            if self.tied > 1 and self.encoded is not None:
                # Causal: the first latents do not see the frames that fill the rest of the window.
                prepared[0][:, :, : self.tied] = self.encoded[:, :, : self.tied].to(prepared[0])
                prepared[5][: self.tied] = 1.0
            self.start = prepared[0].clone()
            return tuple(prepared)

    return CameraPipeline


def _sample_camera(pipeline: Any, options: CosmosOptions, window: FrameWindow) -> Generated:
    require("diffusers", "the model cosmos3")
    from diffusers import CosmosActionCondition

    width, height = _size(window)
    action = CosmosActionCondition(
        mode="forward_dynamics",
        chunk_size=window.num_frames - 1,
        domain_name=DOMAIN,
        resolution_tier=tier_of(width, height),
        raw_actions=window.actions,
        video=pictures(window.known),
        view_point=options.view_point,
    )
    pipeline.tied = (len(window.known) + 3) // 4
    kept: dict[str, Tensor] = {}
    made = pipeline(
        prompt=window.caption,
        action=action,
        callback_on_step_end=_after_step(pipeline, options, window.memory, kept),
        add_resolution_template=False,
        add_duration_template=False,
        **_common(options, window),
    )
    return _generated(made.video, kept["latents"])


def recover_actions(
    components: Components, options: CosmosOptions, frames: UInt8[Tensor, "t h w 3"], caption: str, seed: int
) -> Float[Tensor, "s 9"]:
    """The actions that the network itself sees between the frames of a clip (its inverse dynamics).

    Args:
        components: of weights with actions.
        options: steps, rate and arithmetic.
        frames: 1 + 4 k of them, sRGB, of a canvas.
        caption: what the scene is.
        seed: of the noise.
    """
    require("diffusers", "the model cosmos3")
    from diffusers import Cosmos3OmniPipeline, CosmosActionCondition

    pipeline = Cosmos3OmniPipeline(**components.named, enable_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    action = CosmosActionCondition(
        mode="inverse_dynamics",
        chunk_size=len(frames) - 1,
        domain_name=DOMAIN,
        resolution_tier=tier_of(int(frames.shape[2]), int(frames.shape[1])),
        video=pictures(frames),
        view_point=options.view_point,
    )
    window = FrameWindow(known=frames, num_frames=len(frames), caption=caption, seed=seed)
    settings = {**_common(options, window), "output_type": "latent"}
    made = pipeline(
        prompt=caption, action=action, add_resolution_template=False, add_duration_template=False, **settings
    )
    found: Tensor = made.action[0]
    return found.float().cpu()


def _after_step(
    pipeline: Any, options: CosmosOptions, memory: Known | None, kept: dict[str, Tensor]
) -> Callable[..., dict[str, Tensor]]:
    """What runs after each step: it keeps the latents, and puts the memory's in while noise is high."""
    known = None if memory is None else pipeline.encode(memory.frames)
    last = round(options.num_steps * options.replace_share)

    def after(_: Any, step: int, timestep: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG001
        latents = tensors["latents"]
        if memory is not None and known is not None and step < last:
            sigma = float(pipeline.scheduler.sigmas[step + 1])
            noised = (1.0 - sigma) * known.to(latents) + sigma * pipeline.start.to(latents)
            cells = memory.cells.to(latents.device).clone()
            cells[: pipeline.tied] = False
            latents = torch.where(cells, noised, latents)
        kept["latents"] = latents
        return {"latents": latents}

    return after


def _sample_image(pipeline: Any, options: CosmosOptions, window: FrameWindow) -> Generated:
    kept: dict[str, Tensor] = {}

    def after(_: Any, step: int, timestep: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG001
        kept["latents"] = tensors["latents"]
        return {"latents": tensors["latents"]}

    width, height = _size(window)
    made = pipeline(
        prompt=window.caption,
        num_frames=window.num_frames,
        width=width,
        height=height,
        callback_on_step_end=after,
        add_resolution_template=options.has_templates,
        add_duration_template=options.has_templates,
        **_known_clip(window),
        **_common(options, window),
    )
    return _generated(made.video, kept["latents"])


def _sample_student(pipeline: Any, options: CosmosOptions, window: FrameWindow) -> Generated:
    width, height = _size(window)
    state = pipeline(
        prompt=window.caption,
        num_frames=window.num_frames,
        width=width,
        height=height,
        fps=options.fps,
        generator=torch.Generator().manual_seed(window.seed),
        use_system_prompt=options.has_system_prompt,
        add_resolution_template=options.has_templates,
        add_duration_template=options.has_templates,
        output_type="pt",
        **_known_clip(window),
    )
    return _generated(state.get("videos"), state.get("latents"))


def _sample_depth(pipeline: Any, options: CosmosOptions, window: FrameWindow) -> Generated:
    if window.control is None:
        raise FrameError("depth transfer needs a depth video of the window, found none")
    width, height = _size(window)
    state = pipeline(
        prompt=window.caption,
        control_videos={"depth": pictures(window.control[..., None].expand(-1, -1, -1, 3))},
        control_guidance=options.control_guidance,
        video=pictures(window.known),
        num_first_chunk_conditional_frames=len(window.known),
        num_video_frames_per_chunk=window.num_frames,
        width=width,
        height=height,
        **_common(options, window),
    )
    return _generated(state.get("videos"), state.get("latents"))


def _common(options: CosmosOptions, window: FrameWindow) -> dict[str, Any]:
    return {
        "negative_prompt": options.negative_prompt,
        "fps": options.fps,
        "num_inference_steps": options.num_steps,
        "guidance_scale": options.guidance_scale,
        # Drawn on the CPU: a seed means the same noise on every device, and no global generator is touched.
        "generator": torch.Generator().manual_seed(window.seed),
        "use_system_prompt": options.has_system_prompt,
        "output_type": "pt",
    }


def _known_clip(window: FrameWindow) -> dict[str, Any]:
    """The known frames, as runs without actions take them."""
    known = pictures(window.known)
    if len(known) == 1:
        return {"image": known[0]}
    latents = (len(known) + 3) // 4
    return {
        "video": known,
        "condition_frame_indexes_vision": tuple(range(latents)),
        "condition_video_keep": "last",
    }


def pictures(frames: UInt8[Tensor, "t h w 3"]) -> list[Image.Image]:
    """Frames as the library takes them without a doubt about their range."""
    return [Image.fromarray(frame) for frame in frames.cpu().contiguous().numpy()]


def _generated(video: Tensor, latents: Tensor) -> Generated:
    """The library's result, as it is kept.

    Raises:
        FrameError: values that are not finite, which as eight bits would be black.
    """
    if not (bool(torch.isfinite(latents).all()) and bool(torch.isfinite(video).all())):
        raise FrameError(
            "Cosmos 3 should return finite frames, found NaN or infinity; set cosmos.transformer_dtype=float32 and "
            "cosmos.vae_dtype=float32, or check the weights with `lyra weights verify`"
        )
    frames = (video.float() * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().contiguous()
    return Generated(frames=frames, latents=latents[0].float().cpu())


def _size(window: FrameWindow) -> tuple[int, int]:
    return int(window.known.shape[2]), int(window.known.shape[1])
