"""What a user chooses about a video of Cosmos 3: the group `cosmos` of a recipe, with the presets of recipes.

Every field is part of a world's id. The picture size is the recipe's own: the networks were trained on a few canvases
(lyra_core.canvases), and the resolution tier follows from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, Literal

from lyra_core.config.bounds import Bounded, Bounds, require_bounds
from lyra_core.config.video import DepthConfig
from lyra_core.errors import RecipeError

LATENT_FRAMES = 4
"""Frames that one latent spans; the first latent of a window holds one."""

LIBRARY = "diffusers 0.42.1"
"""The library whose arithmetic the bytes come from."""

COSMOS_DEPTH = DepthConfig(align="overlap", sky="far")


@dataclass(frozen=True, slots=True, kw_only=True)
class CosmosOptions(Bounded):
    """How a world is generated with Cosmos 3.

    Attributes:
        mode: what steers the camera. "camera": relative poses of the requested cameras, as actions; "depth": a video of
            the remembered depth seen from the requested cameras (transfer); "image": nothing but words, so that the
            world stands on the cameras recovered from its frames.
        chunk_frames: new frames of a chunk; the first window has one frame more, later ones 1 + 4 (overlap_latents - 1)
            more. 60 with cameras is what the model documents.
        overlap_latents: latents of the last chunk that the next one is tied to: 1 (one frame) or 2 (five frames).
        fps: frame rate that the network is told; it was trained on 10 to 30.
        num_steps: of denoising; of a distilled checkpoint, the number of its levels.
        scheduler: "unipc", as the model was released, or "euler".
        flow_shift: of the noise levels towards noise.
        karras_sigmas: the released file's spacing; with it no shift has an effect, so flow_shift must be 1.
        guidance_scale: towards the caption; 1 turns it off, and the network is called once a step.
        negative_prompt: of that guidance.
        control_guidance: towards the control video, in "depth".
        has_system_prompt: put the checkpoint's own instruction before the caption.
        caption_form: "plain" hands the caption over as it is (with cameras, the library puts it into the form of
            their training); "json" puts it into the form of the other trainings, with the camera's motion in words.
        has_templates: with plain captions, let the library add sentences on size and length.
        view_point: whose view the caption of cameras claims.
        action_gain: factor of every translation; 1 sends metres of the seed's depth.
        calibration: digest of the table that the gain was read from (`lyra calibrate`), or "none".
        is_closed_loop: begin each chunk where the last one was found to end, and bend back to the request.
        max_correction_deg: most that a chunk bends back.
        max_correction_share: the same for translation, as a share of the chunk's length.
        memory: "replace" puts what the memory shows of a view into its latents while noise is high.
        replace_share: share of the steps in which that is done.
        replace_erosion: cells (16x16 pixels) next to holes that are left to the network.
        depth: which frames get depth, and how far it is believed.
        transformer_dtype: arithmetic of the network.
        vae_dtype: arithmetic of its autoencoder.
        captioner: "manifest" (captions come with the request), or the folder of a vision-language model.
        library: package and version that computed; a worker with another one refuses to start.
    """

    mode: Literal["camera", "depth", "image"] = "camera"
    chunk_frames: Annotated[int, Bounds(ge=4, le=296)] = 60
    overlap_latents: Annotated[int, Bounds(ge=1, le=2)] = 1
    fps: Annotated[float, Bounds(ge=1, le=60)] = 30.0
    num_steps: Annotated[int, Bounds(ge=1, le=1000)] = 30
    scheduler: Literal["unipc", "euler"] = "unipc"
    flow_shift: Annotated[float, Bounds(gt=0)] = 10.0
    karras_sigmas: bool = False
    guidance_scale: Annotated[float, Bounds(ge=1)] = 1.0
    negative_prompt: str = ""
    control_guidance: Annotated[float, Bounds(ge=0)] = 1.0
    has_system_prompt: bool = False
    caption_form: Literal["plain", "json"] = "plain"
    has_templates: bool = False
    view_point: Literal["ego_view", "third_person_view", "wrist_view", "concat_view"] = "ego_view"
    action_gain: Annotated[float, Bounds(gt=0)] = 1.0
    calibration: str = "none"
    is_closed_loop: bool = False
    max_correction_deg: Annotated[float, Bounds(ge=0)] = 3.0
    max_correction_share: Annotated[float, Bounds(ge=0, le=1)] = 0.2
    memory: Literal["none", "replace"] = "none"
    replace_share: Annotated[float, Bounds(ge=0, le=1)] = 0.5
    replace_erosion: Annotated[int, Bounds(ge=0, le=8)] = 1
    depth: DepthConfig = COSMOS_DEPTH
    transformer_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    vae_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    captioner: str = "manifest"
    library: str = LIBRARY

    def __post_init__(self) -> None:
        require_bounds(self)
        if self.chunk_frames % LATENT_FRAMES:
            below = self.chunk_frames - self.chunk_frames % LATENT_FRAMES
            raise RecipeError(
                f"chunk_frames must be a multiple of {LATENT_FRAMES}, the frames of a latent, found "
                f"{self.chunk_frames}; the nearest are {below} and {below + LATENT_FRAMES}"
            )
        if self.karras_sigmas and self.flow_shift != 1.0:
            raise RecipeError(
                f"flow_shift={self.flow_shift:g} has no effect while karras_sigmas is true; "
                "set karras_sigmas=false, or flow_shift=1"
            )
        if self.karras_sigmas and self.scheduler != "unipc":
            raise RecipeError("karras_sigmas belongs to scheduler='unipc', found 'euler'; leave it out")
        self._require_effect()

    def _require_effect(self) -> None:
        """Refuse choices that other choices make void: they would change the id and no pixel."""
        for rule in _EFFECTS:
            if rule.is_met(self):
                continue
            void = [name for name in rule.fields if getattr(self, name) != _DEFAULTS[name]]
            if void:
                raise RecipeError(
                    f"{void[0]} belongs to {rule.said}, found {void[0]}={getattr(self, void[0])!r} with "
                    f"{', '.join(f'{name}={getattr(self, name)!r}' for name in rule.depends_on)}; leave it out"
                )

    @property
    def overlap_frames(self) -> int:
        """Frames that a chunk shares with the one before."""
        return 1 + LATENT_FRAMES * (self.overlap_latents - 1)

    def window_frames(self, chunk: int) -> int:
        """Frames that are generated together: those the chunk is tied to, and the new ones."""
        return self.chunk_frames + (self.overlap_frames if chunk else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Effect:
    """Fields that have an effect where something else was chosen, and else keep their defaults.

    Attributes:
        fields: their names.
        depends_on: names of what decides.
        said: what it should be, for people.
        is_met: whether it is.
    """

    fields: tuple[str, ...]
    depends_on: tuple[str, ...]
    said: str
    is_met: Callable[[CosmosOptions], bool]


_DEFAULTS = {field.name: field.default for field in fields(CosmosOptions)}
_EFFECTS = (
    _Effect(
        fields=("memory", "is_closed_loop", "action_gain", "calibration", "view_point"),
        depends_on=("mode",),
        said="mode='camera'",
        is_met=lambda o: o.mode == "camera",
    ),
    _Effect(
        fields=("control_guidance",),
        depends_on=("mode",),
        said="mode='depth'",
        is_met=lambda o: o.mode == "depth",
    ),
    # With cameras the library puts the caption into a JSON form of its own.
    _Effect(
        fields=("caption_form",),
        depends_on=("mode",),
        said="mode='depth' or 'image'",
        is_met=lambda o: o.mode != "camera",
    ),
    _Effect(
        fields=("has_templates",),
        depends_on=("mode", "caption_form"),
        said="mode='image' with plain captions",
        is_met=lambda o: o.mode == "image" and o.caption_form == "plain",
    ),
    _Effect(
        fields=("negative_prompt",),
        depends_on=("guidance_scale",),
        said="guidance_scale above 1",
        is_met=lambda o: o.guidance_scale > 1.0,
    ),
    _Effect(
        fields=("max_correction_deg", "max_correction_share"),
        depends_on=("is_closed_loop",),
        said="is_closed_loop=true",
        is_met=lambda o: o.is_closed_loop,
    ),
    _Effect(
        fields=("replace_share", "replace_erosion"),
        depends_on=("memory",),
        said="memory='replace'",
        is_met=lambda o: o.memory == "replace",
    ),
)

CAMERA = CosmosOptions()
DEPTH_TRANSFER = CosmosOptions(
    mode="depth",
    overlap_latents=2,
    num_steps=35,
    guidance_scale=3.0,
    control_guidance=1.5,
    has_system_prompt=True,
    caption_form="json",
)
IMAGE = CosmosOptions(
    mode="image",
    chunk_frames=120,
    overlap_latents=2,
    num_steps=35,
    guidance_scale=6.0,
    flow_shift=5.0,
    has_system_prompt=True,
    caption_form="json",
)
# Guidance is part of the student's weights, and its levels are those of its folder.
IMAGE_STUDENT = CosmosOptions(
    mode="image",
    chunk_frames=120,
    overlap_latents=2,
    num_steps=4,
    scheduler="euler",
    flow_shift=1.0,
    has_system_prompt=True,
    caption_form="json",
)
