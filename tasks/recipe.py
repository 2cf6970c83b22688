"""The type of a recipe: every parameter that decides how a world looks, and nothing that only decides where it runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lyra_core.config.cosmos import CosmosOptions
from lyra_core.config.geometry import GeometryOptions
from lyra_core.config.reconstruction import ReconstructionOptions
from lyra_core.config.video import VideoOptions
from lyra_core.errors import FrameError, RecipeError
from lyra_core.gates import DEFAULT_GATES, GATES
from lyra_core.geometry.requests import request_digest_parts
from lyra_core.models import MODELS
from lyra_core.native import CHUNK_FRAMES, MINI_ENLARGED

MESH_ROLES = frozenset({"mesh", "collision", "collision_obj"})
COLLIDER_ROLES = MESH_ROLES | {"usd", "usdz"}
"""Those for which a mesh is made, where the recipe has geometry."""
GEOMETRY_ROLES = MESH_ROLES | {"mjcf"}
ROLES = (
    *("ply", "surfaces", "video", "lossless", "cameras", "transforms", "colmap", "preview", "flythrough", "chunks"),
    *("mesh", "collision", "collision_obj", "mjcf"),
    *("usd", "usdz", "gltf", "spz", "compressed_ply"),
)
"""Files that `artifacts` can name; those of one's own are package.module:FORMAT."""
WORLD_FILES = ("ply", "video", "cameras", "transforms", "colmap", "preview", "flythrough")
"""Those of a world unless its recipe says otherwise."""

MAX_FRAMES = 1 + 100 * CHUNK_FRAMES

# Fields that describe a recipe or estimate its cost. They change no pixel, so they are not part of a world's id.
UNHASHED_FIELDS = frozenset(
    {
        "name",
        "description",
        "weights",
        "seconds_per_world",
        "bytes_per_world",
        "weights_licenses",
        "output_license",
        "precision",
    }
)
VIDEO_GROUPS = ("video", "cosmos")
"""The choices of a video; a recipe has one of them, or none."""
MODEL_GROUPS = (*VIDEO_GROUPS, "reconstruction")
GROUPS = (*MODEL_GROUPS, "geometry")
# The same for fields of groups.
UNHASHED_IN_GROUPS = {"video": frozenset({"latents_per_window", "placement"})}
# Fields of groups that change no pixel while they hold this value: worlds keep the ids they had before the field was.
UNHASHED_VALUES: dict[str, dict[str, object]] = {
    "video": {
        "speed": "exact",
        "super_resolution": "none",
        "guidance_first_noise": 1.0,
        "guidance_last_noise": 0.0,
        "batched_guidance": False,
    }
}


# Choices of group video that the few-step student does not have.
OF_MANY_STEPS = (
    *("num_steps", "guidance_scale", "negative_prompt"),
    *("guidance_first_noise", "guidance_last_noise", "batched_guidance"),
)


class Recipe(BaseModel):
    """A complete, named parameter set.

    `model` is a name known to lyra_core.load_model, or "package.module:factory" for a model of your own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    description: str
    model: str
    weights: str | None = Field(None, description="folder or URL of converted weights, where the model has any")
    weights_licenses: tuple[str, ...] = ()
    restricted_licenses: tuple[str, ...] = Field((), description="licenses that need --accept-license NAME")
    output_license: str | None = None

    precision: Literal["auto", "float32", "bfloat16"] | None = Field(
        None, description="of networks that compute in either; auto times this machine; changes no id"
    )
    width: int = Field(416, ge=16, le=4096, multiple_of=2)
    height: int = Field(240, ge=16, le=4096, multiple_of=2)
    num_frames: int = Field(81, le=MAX_FRAMES)
    fps: float = Field(16.0, gt=0, le=240)
    camera_path: str = "dolly-in"
    prompt: str = ""
    variants: int = Field(1, ge=1, le=1000)
    video: VideoOptions | None = Field(None, description="of models that generate; None for others")
    cosmos: CosmosOptions | None = Field(None, description="of the models cosmos3-...; None for others")
    reconstruction: ReconstructionOptions | None = Field(
        None, description="of models that lift videos; None for others"
    )

    geometry: GeometryOptions | None = Field(None, description="floor, free space, meshes; None leaves them out")

    artifacts: tuple[str, ...] = WORLD_FILES
    stages: tuple[str, ...] = Field(
        (), description="package.module:function of your own, between Gaussians and quality"
    )
    video_crf: int = Field(18, ge=0, le=51)
    sway_deg: float = Field(3.0, ge=0, le=30, description="sway of the fly-through around the path")
    flythrough_frames: int = Field(25, ge=2, le=961)
    quality_views: int = Field(3, ge=0, le=64, description="held-out views to measure; 0 turns quality off")
    min_psnr_db: float = Field(15.0, ge=0)
    min_coverage: float = Field(0.8, ge=0, le=1)
    gates: tuple[str, ...] = Field(DEFAULT_GATES, description="further quality gates, see docs/catalog.md")

    seconds_per_world: float = Field(30.0, gt=0, description="on the hardware the recipe is meant for, for estimates")
    bytes_per_world: int = Field(30_000_000, gt=0)

    @field_validator("artifacts")
    @classmethod
    def _known_roles(cls, artifacts: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [role for role in artifacts if role not in ROLES and ":" not in role]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is none of {', '.join(ROLES)}, and no package.module:FORMAT of your own")
        return artifacts

    @field_validator("stages")
    @classmethod
    def _named_stages(cls, stages: tuple[str, ...]) -> tuple[str, ...]:
        unnamed = [stage for stage in stages if ":" not in stage]
        if unnamed:
            raise ValueError(f"a stage is named package.module:function, {unnamed[0]!r} is not")
        return stages

    @field_validator("gates")
    @classmethod
    def _known_gates(cls, gates: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [gate for gate in gates if gate not in GATES]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is none of {', '.join(GATES)}")
        return gates

    @model_validator(mode="after")
    def _whole_chunks(self) -> Recipe:
        chunk = self.chunk_frames
        below = max(1, (self.num_frames - 1) // chunk) * chunk + 1
        if self.num_frames != below:
            raise ValueError(
                f"num_frames must be 1 + {chunk}k ({1 + chunk}, {1 + 2 * chunk}, ...), found {self.num_frames}; "
                f"the nearest are {below} and {below + chunk}"
            )
        return self

    @model_validator(mode="after")
    def _one_frame_rate(self) -> Recipe:
        for group in VIDEO_GROUPS:
            told = getattr(getattr(self, group), "fps", self.fps)
            if told != self.fps:
                raise ValueError(
                    f"{group}.fps is the rate that the network is told and fps that of the video file, found {told:g} "
                    f"and {self.fps:g}; set both"
                )
        return self

    @model_validator(mode="after")
    def _geometry_of_its_files(self) -> Recipe:
        wanted = sorted(GEOMETRY_ROLES & set(self.artifacts))
        if wanted and self.geometry is None:
            raise ValueError(f"artifact '{wanted[0]}' is made from the geometry, which this recipe leaves out")
        return self

    @model_validator(mode="after")
    def _size_of_the_model(self) -> Recipe:
        if ":" in self.model:  # of somebody else; it is asked where it is loaded
            return self
        if self.model not in MODELS:
            raise ValueError(f"model: wanted {', '.join(MODELS)} or package.module:factory, found {self.model!r}")
        native = MODELS[self.model].native
        foreign = [group for group in VIDEO_GROUPS if getattr(self, group) and group != MODELS[self.model].group]
        if foreign:
            raise ValueError(
                f"model '{self.model}' takes no fields {foreign[0]}.*, which this recipe has; take a recipe of that "
                "model and change it: lyra recipes"
            )
        if self.video is not None and self.video.super_resolution != "none":
            if self.model != "mini":
                raise ValueError(
                    f"video.super_resolution: only 'mini' has one, found {self.video.super_resolution!r} for the model "
                    f"'{self.model}'; leave it at none"
                )
            native = native.enlarged(MINI_ENLARGED)
        try:
            native.require_size(self.width, self.height)
        except FrameError as error:
            raise ValueError(f"model '{self.model}': {error}") from error
        return self

    @property
    def chunk_frames(self) -> int:
        """Frames that a video grows by."""
        return int(getattr(self._video_group, "chunk_frames", CHUNK_FRAMES))

    @property
    def captioner(self) -> str | None:
        """Where captions come from; None where no network reads any."""
        return getattr(self._video_group, "captioner", None)

    @property
    def _video_group(self) -> object | None:
        return next((found for group in VIDEO_GROUPS if (found := getattr(self, group)) is not None), None)

    def requested_cameras(self, camera_path: str, num_frames: int) -> list[bytes]:
        """For each chunk, the bytes that identify the cameras requested for it; see request_digest_parts."""
        return request_digest_parts(camera_path, num_frames, chunk_frames=self.chunk_frames)

    def hashed_fields(self) -> dict[str, object]:
        """The fields that change the output, for the world's id. Per-seed requests are chained separately."""
        skip = UNHASHED_FIELDS | {"num_frames", "camera_path", "prompt", "variants"}
        fields = {k: v for k, v in self.model_dump(mode="json").items() if k not in skip}
        if not fields["stages"]:
            del fields["stages"]  # a recipe without any keeps the ids it had before the field was
        if self.gates == DEFAULT_GATES:
            del fields["gates"]  # the same
        for group in GROUPS:
            if fields[group] is None:
                del fields[group]  # a recipe without the group keeps the ids it had before the group existed
            else:
                unhashed = UNHASHED_IN_GROUPS.get(group, frozenset())
                neutral = UNHASHED_VALUES.get(group, {}).items()
                fields[group] = {k: v for k, v in fields[group].items() if k not in unhashed and (k, v) not in neutral}
        return fields

    def model_options(self) -> dict[str, str | dict[str, object]]:
        """What the recipe tells lyra_core.load_model besides the model's name and device."""
        named = {"weights": self.weights, "precision": self.precision}
        options: dict[str, str | dict[str, object]] = {k: v for k, v in named.items() if v is not None}
        groups = self.model_dump(mode="json", include=set(MODEL_GROUPS))
        return options | {group: fields for group, fields in groups.items() if fields is not None}

    def require_licenses(self, accepted: frozenset[str]) -> None:
        """Refuse restricted weights whose license the caller did not accept by name.

        Raises:
            LicenseError: naming the license and the flag.
        """
        from lyra_core.errors import LicenseError

        missing = [name for name in self.restricted_licenses if name not in accepted]
        if missing:
            raise LicenseError(
                f"recipe '{self.name}' uses weights under {', '.join(missing)}, which restricts their use; "
                f"read the license and repeat with --accept-license {missing[0]}"
            )


def with_fields(recipe: Recipe, assignments: list[str]) -> Recipe:
    """A recipe with `field=value` assignments applied and everything validated again.

    Fields of groups are named with dots (`video.num_steps=4`); `none` stands for no value; tuples are separated by
    commas. `geometry=none` leaves that stage out, `geometry=default` takes it in.

    Raises:
        RecipeError: unknown field, unreadable value, or a value out of range.
    """
    from pydantic import ValidationError

    changed = recipe.model_dump()
    for assignment in assignments:
        name, separator, value = assignment.partition("=")
        *groups, field = name.split(".")
        home: object = changed
        for group in groups:
            home = home.get(group) if isinstance(home, dict) else None
        if name == "geometry" and value in ("none", "default"):
            changed["geometry"] = asdict(GeometryOptions()) if value == "default" else None
            continue
        _require_text(assignment)
        if not separator or not isinstance(home, dict) or field not in home or isinstance(home[field], dict):
            raise RecipeError(
                f"--set wants field=value with a field of the recipe, found {assignment!r}; "
                f"fields: {', '.join(sorted(field_names(recipe)))}"
            )
        home[field] = _parsed(value, home[field])
    try:
        found = Recipe.model_validate(changed)
    except ValidationError as error:
        first = error.errors()[0]
        said = first["msg"].removeprefix("Value error, ")
        if first["loc"]:  # of one field; rules about several name what they found
            said = f"{'.'.join(str(part) for part in first['loc'])}: {said}, found {first.get('input')!r}"
        raise RecipeError(f"recipe '{recipe.name}': {said}") from error
    except RecipeError as error:  # of a group, about several of its fields
        raise RecipeError(f"recipe '{recipe.name}': {error}") from error
    _require_effect(recipe, found)
    return found


def _require_text(assignment: str) -> None:
    """Refuse bytes of a command line that are no text, which Python hands over as halves of surrogate pairs."""
    try:
        assignment.encode()
    except UnicodeEncodeError as error:
        raise RecipeError(f"--set wants UTF-8 text, found other bytes in {assignment!a:.80}") from error


def _require_effect(before: Recipe, after: Recipe) -> None:
    """Refuse a choice that would give a world another id and the same pixels.

    Raises:
        RecipeError: the few-step student has its own levels and no guidance.
    """
    if before.video is None or after.video is None or after.video.sampler != "distilled":
        return
    for name in OF_MANY_STEPS:
        if getattr(before.video, name) != getattr(after.video, name):
            raise RecipeError(
                f"recipe '{before.name}': video.{name} has no effect while video.sampler is 'distilled', whose four "
                f"steps are fixed and which runs without guidance; add --set video.sampler=euler (or unipc), or leave "
                f"it out"
            )


def field_names(recipe: Recipe) -> dict[str, object]:
    """Every field with its value, those of groups under dotted names."""

    def flat(fields: dict[str, object], prefix: str) -> dict[str, object]:
        found: dict[str, object] = {}
        for name, value in fields.items():
            found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
        return found

    return flat(recipe.model_dump(), "")


def _parsed(value: str, current: object) -> object:
    if isinstance(current, tuple):
        return tuple(filter(None, value.split(",")))
    return None if value.lower() == "none" and not isinstance(current, str) else value
