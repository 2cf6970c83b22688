"""The rows of the catalog: a world, a stored camera, a rejected seed, what a simulator said of a world.

Each field carries its column type and its meaning; the Arrow schemas, the documentation and the round trip through
Parquet all follow from these dataclasses. Unknown values are None (null), never 0 or "".
"""
# ruff: noqa: RUF009 - column() only builds a dataclass field

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from lyra_core.errors import CatalogError

if TYPE_CHECKING:
    from typing import Self

    import pyarrow as pa

# 2: no maps (other tools cannot open them), no columns that nothing fills, no metres and no up that nobody measured.
# Parts of version 1 are read as they are: pyarrow casts their maps, and a compaction writes them anew.
SCHEMA_VERSION = 2
# Columns that schema 1 had under other names.
RENAMED = {"accepted_licences": "accepted_licenses"}
_REQUIRED: Any = object()
_FLAT_ROLES = {
    "ply": "ply_uri", "video": "video_uri", "usd": "usd_uri", "cameras": "cameras_uri", "preview": "thumb_uri",
}  # fmt: skip


def column(type: str, meaning: str, default: Any = None) -> Any:  # noqa: A002 - a column's type
    """A dataclass field that is a column of this Arrow type, spelled as in `_ARROW`."""
    metadata = {"type": type, "meaning": meaning}
    if default is _REQUIRED:
        return field(metadata=metadata)
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One stored file of a world: its role ("ply", "video", ...), key, media type, size, digest and etag."""

    role: str
    key: str
    media_type: str
    bytes: int
    sha256: str
    etag: str = ""


class _Row:
    """Conversion between a record and one row of its table."""

    __slots__ = ()
    table: ClassVar[str]

    def to_row(self) -> dict[str, object]:
        """Column values as pyarrow takes them."""
        return {f.name: _to_arrow(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]

    def to_json(self) -> str:
        """Every known value as one JSON object; reads back to an equal record."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        known = {name: value for name, value in values.items() if value not in (None, (), {})}
        return json.dumps(known, default=_to_json, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The record of `to_json`.

        Raises:
            CatalogError: a required field is missing.
        """
        return cls.from_row(json.loads(text))

    @classmethod
    def row_from_json(cls, text: str | bytes) -> dict[str, object]:
        """What `from_json(text).to_row()` gives, several times faster: compaction does it for every world."""
        row, types = dict(_default_row(cls)), _column_types(cls)  # type: ignore[arg-type]
        for stored_name, value in json.loads(text).items():
            name = RENAMED.get(stored_name, stored_name)
            kind = types.get(name)
            if kind == "timestamp":
                row[name] = datetime.fromisoformat(value)
            elif kind is not None:
                row[name] = _to_arrow(value)
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, object]) -> Self:
        """The record of a row; columns this version does not know are left out, missing ones are null.

        Raises:
            CatalogError: a required column is missing.
        """
        named, values = {RENAMED.get(name, name): value for name, value in row.items()}, {}
        for f in fields(cls):  # type: ignore[arg-type]
            if named.get(f.name) is not None:
                values[f.name] = _from_arrow(named[f.name], f.metadata["type"])
        try:
            return cls(**values)
        except TypeError as error:
            raise CatalogError(f"a row of {cls.table} lacks a required column: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldRecord(_Row):
    """One world: what it was made from, how, at what cost, how good it is and where its files are."""

    table: ClassVar[str] = "worlds"

    # identity
    world_id: str = column("string", "id of the world, 32 hex digits: the last of chunk_ids", _REQUIRED)
    schema_version: int = column("int32", "version of these columns", SCHEMA_VERSION)
    run_id: str | None = column("string", "batch run that committed the world")
    attempt: int = column("int32", "attempt, from 1, that committed the world", 1)
    name: str | None = column("string", "name for people, usually the seed's file name without its ending")
    chunk_ids: tuple[str, ...] = column("list<string>", "id after each chunk of video, in order", ())
    variant: int = column("int32", "0, 1, 2, ... for several worlds of one seed and recipe", 0)
    recipe: str | None = column("string", "name of the recipe")
    recipe_json: str | None = column("string", "recipe fields that change the output, as canonical JSON")
    config_sha256: str | None = column("string", "digest of recipe_json")
    algorithm_version: str | None = column("string", "changes when equal inputs give other pixels")
    # seed
    seed_uri: str | None = column("string", "where the seed image was found")
    seed_sha256: str | None = column("string", "digest of the seed file's bytes")
    seed_width: int | None = column("int32", "columns of the upright original image, px")
    seed_height: int | None = column("int32", "rows of the upright original image, px")
    seed_license: str | None = column("string", "license of the seed, an SPDX id where there is one")
    seed_source_url: str | None = column("string", "page or package (purl) the seed was taken from")
    seed_attribution: str | None = column("string", "whom to credit for the seed")
    rng_seed: int | None = column("int64", "random seed of the first draw; all others derive from chunk_ids")
    # model
    model_name: str | None = column("string", "model family and size: lyra2, mini, parallax")
    checkpoint_uri: str | None = column("string", "where the video model's weights were read")
    checkpoint_sha256: str | None = column("string", "digest of the video model's weights; null where it has none")
    weights_digests: tuple[str, ...] = column("list<string>", "digests of all weight files used", ())
    weights_licenses: tuple[str, ...] = column("list<string>", "license of each weight file, same order", ())
    accepted_licenses: tuple[str, ...] = column(
        "list<string>",
        "restricted licenses the run had to accept; not empty means: do not publish",
        (),
    )
    code_git_commit: str | None = column("string", "commit of the code, recorded but not part of the id")
    package_version: str | None = column("string", "version of lyra-worlds")
    precision: str | None = column("string", "arithmetic the video model computed in: float32, bfloat16")
    speed: str | None = column("string", "profile of video.speed that really ran; null where none was asked for")
    inference_steps: int | None = column("int32", "denoising steps of a chunk; null where nothing is denoised")
    guidance: float | None = column(
        "float", "classifier-free guidance scale, 1 where it is off; null where nothing is denoised"
    )
    # request
    prompt: str | None = column("string", "captions of the chunks, one a line")
    negative_prompt: str | None = column(
        "string", "negative prompt of guidance; null without guidance and where only its embedding is known"
    )
    trajectory_name: str | None = column("string", "camera path: name of the preset or the file's stem")
    trajectory_sha256: str | None = column("string", "digest of the cameras asked for, before the scene scales them")
    # video
    width: int | None = column("int32", "columns of the video, px")
    height: int | None = column("int32", "rows of the video, px")
    num_frames: int | None = column("int32", "frames of the video")
    num_keyframes: int | None = column("int32", "frames the Gaussians were made from")
    fps: float | None = column("float", "frames per second")
    # camera
    camera_model: str | None = column("string", "pinhole")
    fx: float | None = column("float", "focal length of frame 0, px")
    fy: float | None = column("float", "focal length of frame 0, px")
    cx: float | None = column("float", "principal point of frame 0, px, pixel centres at +0.5")
    cy: float | None = column("float", "principal point of frame 0, px, pixel centres at +0.5")
    camera_convention: str | None = column("string", "opencv_w2c: x right, y down, z forward, world to camera")
    path_length_m: float | None = column("float", "length of the camera path, m")
    total_rotation_deg: float | None = column("float", "sum of rotations between frames, degrees")
    camera_residual_deg: float | None = column("float", "median angle between requested and recovered cameras, degrees")
    camera_residual_percent: float | None = column(
        "float", "median distance between requested and recovered cameras, % of the path's length"
    )
    cameras_source: str | None = column("string", "cameras the Gaussians were made with: requested or recovered")
    # splats
    num_splats: int | None = column("int64", "number of Gaussians")
    num_surface_splats: int | None = column(
        "int64", "those of them that key frames show: neither backing nor dome; all where the model tells no parts"
    )
    sh_degree: int | None = column("int8", "degree of the spherical harmonics, 0 to 3")
    bounds_min: tuple[float, ...] | None = column("list<float>[3]", "least x y z of centres that key frames show, m")
    bounds_max: tuple[float, ...] | None = column("list<float>[3]", "greatest x y z of centres that key frames show, m")
    bounds_p01: tuple[float, ...] | None = column("list<float>[3]", "1st percentile of x y z of the same, m")
    bounds_p99: tuple[float, ...] | None = column("list<float>[3]", "99th percentile of x y z of the same, m")
    world_up: tuple[float, ...] | None = column(
        "list<float>[3]", "unit vector that points up in the world; null where geometry was not measured"
    )
    up_source: str | None = column(
        "string", "where up comes from: floor, a trusted one, or camera, the first camera's own"
    )
    meters_per_unit: float | None = column("double", "metres of one world unit; null where nothing measured them")
    meters_per_unit_prior: float | None = column(
        "double", "the same if the camera was held at eye level, 1.55 m; null without a trusted floor that allows it"
    )
    metric_scale_source: str | None = column(
        "string",
        "what measured metres: camera_height or center_distance (the manifest), depth_model (a network that does); "
        "or relative: nothing",
    )
    scale_confidence: float | None = column(
        "float", "rank of the metric scale's source, 0 to 1; null where geometry was not measured"
    )
    # quality
    psnr_db: float | None = column("float", "rendered Gaussians against video frames, dB")
    ssim: float | None = column("float", "structural similarity of the same, 0 to 1")
    floater_frac: float | None = column("float", "share of Gaussians in front of every surface seen")
    coverage_frac: float | None = column("float", "share of pixels of the path with opacity over 0.5")
    opacity_mean: float | None = column("float", "mean opacity of the Gaussians")
    texture_frac: float | None = column(
        "float", "share of cells of 8x8 pixels that are not of one tone; 0 of blank frames"
    )
    motion_px: float | None = column("float", "median displacement of pixels that the cameras ask for, px")
    motion_frac: float | None = column(
        "float", "share of textured pixels that change with it; null where less than 2 px are asked for"
    )
    flicker_levels: float | None = column("float", "how much brightness alternates between frames, levels of 255")
    revisit_db: float | None = column(
        "float", "two frames of one place against each other, dB; null where the path never comes back"
    )
    isolated_frac: float | None = column("float", "share of visible Gaussians that hang alone in the air")
    needle_frac: float | None = column("float", "share of visible Gaussians over 10 times as long as wide")
    is_refined: bool | None = column("bool", "whether a refinement was kept; null where none ran")
    refine_gain_db: float | None = column("float", "what it gained on held-out frames, kept or not, dB")
    quality_version: str | None = column("string", "version of the quality measures")
    accepted: bool = column("bool", "whether the world passed its quality gates", True)
    reject_reasons: tuple[str, ...] = column("list<string>", "quality gates it failed", ())
    # geometry; null where it was not measured or its evidence does not suffice, see docs/geometry.md
    floor_z_m: float | None = column("float", "height of the trusted floor along world_up, the first camera at 0, m")
    floor_rmse_m: float | None = column("float", "roughness of the trusted floor near the camera, m")
    floor_confidence: float | None = column("float", "0 where no plane is trusted to be the floor, else 0.5 to 1")
    floor_inlier_frac: float | None = column(
        "float", "share of what is seen that lies on the best floor, trusted or not"
    )
    floor_tilt_deg: float | None = column("float", "angle between that plane's normal and the camera's up, degrees")
    floor_spread_deg: float | None = column("float", "how far other random draws find that plane, degrees")
    world_to_ground: tuple[float, ...] | None = column(
        "list<double>[16]",
        "world to ground frame (x right, y forward, z up, m), 4x4 by rows, scale included",
    )
    spawn_m: tuple[float, ...] | None = column(
        "list<float>[3]", "x y z of a free place for a robot of 0.4 x 0.6 m, ground frame, m"
    )
    spawn_yaw_rad: float | None = column("float", "heading there, from x towards y")
    spawn_clearance_m: float | None = column("float", "distance from there to the nearest place that is not free, m")
    free_area_m2: float | None = column("float", "floor on which that robot can stand and turn, square metres")
    geometry_reasons: tuple[str, ...] = column("list<string>", "why there is no place to stand", ())
    mesh_faces: int | None = column("int32", "triangles of the collision mesh; null where none was made")
    drop_test_ok: bool | None = column(
        "bool", "whether things dropped at the spawn point come to rest there; filled in by queries, from simchecks"
    )
    # artifacts
    folder: str | None = column("string", "prefix of the keys of its files; null in rows of version 1")
    base_uri: str | None = column("string", "root URL the keys were relative to when written")
    artifacts: tuple[Artifact, ...] = column("list<artifact>", "every stored file with size and digest", ())
    ply_uri: str | None = column("string", "key of the Gaussians")
    video_uri: str | None = column("string", "key of the video")
    usd_uri: str | None = column("string", "key of the USD stage; null: not computed")
    cameras_uri: str | None = column("string", "key of the cameras' file")
    thumb_uri: str | None = column("string", "key of the preview picture")
    # cost
    stage_s: dict[str, float] = column("list<stage>", "seconds spent in each stage, in order", {})
    device_idle_s: float | None = column("double", "how long the GPU had waited for this world, s; null if none had")
    queue_s: float | None = column("double", "seconds between submission and start")
    wall_s: float | None = column("double", "seconds from start to finish")
    gpu_seconds: float | None = column("double", "wall_s times gpu_count; 0 on CPU")
    gpu_name: str | None = column("string", "GPU model")
    gpu_count: int | None = column("int32", "GPUs that worked on the world")
    peak_vram_bytes: int | None = column("int64", "peak GPU memory, bytes")
    worker_id: str | None = column("string", "worker that made the world")
    retries: int | None = column("int32", "failed attempts before this one")
    # safety and license
    safety_checker: str | None = column("string", "name and version of the content checker; null: not computed")
    safety_flags: tuple[str, ...] = column("list<string>", "what it flagged; empty also where nothing was checked", ())
    has_people: bool | None = column("bool", "whether people are visible; null: not computed")
    has_faces: bool | None = column("bool", "whether faces are recognisable; null: not computed")
    has_text: bool | None = column("bool", "whether text is legible; null: not computed")
    output_license: str | None = column("string", "license of the world's files")
    # time
    created_at: datetime | None = column("timestamp", "when the row was made, UTC")
    started_at: datetime | None = column("timestamp", "when work on the world began, UTC")
    finished_at: datetime | None = column("timestamp", "when its files were stored, UTC")

    def with_artifacts(self, artifacts: Sequence[Artifact], base_uri: str) -> WorldRecord:
        """The record with its files, and the flat `*_uri` columns of the roles that have one."""
        flat = {_FLAT_ROLES[a.role]: a.key for a in artifacts if a.role in _FLAT_ROLES}
        changes: dict[str, Any] = {"artifacts": tuple(artifacts), "base_uri": base_uri, **flat}
        return replace(self, **changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRecord(_Row):
    """The camera of one stored frame."""

    table: ClassVar[str] = "frames"

    world_id: str = column("string", "world the frame belongs to", _REQUIRED)
    frame: int = column("int32", "index in the video, from 0", _REQUIRED)
    t_s: float = column("double", "time in the video, s", _REQUIRED)
    w2c: tuple[float, ...] = column("list<double>[16]", "world to OpenCV camera, 4x4 by rows, metres", _REQUIRED)
    K: tuple[float, ...] = column("list<double>[9]", "intrinsics, 3x3 by rows, px, centres at +0.5", _REQUIRED)
    width: int | None = column("int32", "columns of the image K belongs to, px")
    height: int | None = column("int32", "rows of the image K belongs to, px")


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectRecord(_Row):
    """A seed that gave no world: which, where it failed and why."""

    table: ClassVar[str] = "rejects"

    run_id: str = column("string", "batch run that rejected it", _REQUIRED)
    ordinal: int = column("int64", "row of the manifest, from 0", _REQUIRED)
    stage: str = column("string", "stage that failed: plan, seed, video, gaussians, artifacts, ...", _REQUIRED)
    reason: str = column("string", "message of the error", _REQUIRED)
    schema_version: int = column("int32", "version of these columns", SCHEMA_VERSION)
    error_type: str | None = column("string", "class of the error")
    traceback: str | None = column("string", "where it was raised")
    world_id: str | None = column("string", "id the world would have, if the seed could be read")
    seed_uri: str | None = column("string", "where the seed image was looked for")
    seed_sha256: str | None = column("string", "digest of the seed file's bytes, if it could be read")
    recipe: str | None = column("string", "name of the recipe")
    variant: int = column("int32", "0, 1, 2, ... for several worlds of one seed and recipe", 0)
    manifest_row: str | None = column("string", "the manifest row as JSON")
    attempts: int = column("int32", "attempts made in this run", 1)
    worker_id: str | None = column("string", "worker of the last attempt")
    created_at: datetime | None = column("timestamp", "when it was rejected, UTC")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimcheckRecord(_Row):
    """How a world did in a simulator: measured after its commit, which is never changed."""

    table: ClassVar[str] = "simchecks"

    world_id: str = column("string", "world that was tried", _REQUIRED)
    drop_test_ok: bool | None = column(
        "bool", "whether ball and box came to rest within 5 cm and the robot stood; null: it has no place to stand"
    )
    reasons: tuple[str, ...] = column("list<string>", "why it failed, or why it was not tried", ())
    ball_error_m: float | None = column("float", "where the ball rests above the ground under it, m; negative: it sank")
    ball_moved_m: float | None = column("float", "how far it came from where it was dropped, m")
    box_error_m: float | None = column("float", "the same of the box, m")
    box_moved_m: float | None = column("float", "the same of the box, m")
    robot_error_m: float | None = column("float", "the same of the robot's wheels, m")
    robot_tilt_deg: float | None = column("float", "angle between the standing robot's z axis and up, degrees")
    robot_drove_m: float | None = column("float", "how far it drove in 2 s straight ahead, m; 0.6 on free ground")
    mjcf: str | None = column("string", "stored: the world's own file was tried; made: it has none and one was made")
    simulator: str | None = column("string", "name and version of the simulator")
    created_at: datetime | None = column("timestamp", "when it was tried, UTC")


@lru_cache
def arrow_schema(record: type[WorldRecord | FrameRecord | RejectRecord | SimcheckRecord]) -> pa.Schema:
    """The Arrow schema of a record's table; required columns are not nullable."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field(
                f.name,
                _arrow_types()[f.metadata["type"]],
                nullable=not (f.default is MISSING and f.default_factory is MISSING),
                metadata={"meaning": f.metadata["meaning"]},
            )
            for f in fields(record)
        ]
    )


def utc_now() -> datetime:
    """The time, in UTC, as the timestamp columns hold it."""
    return datetime.now(UTC)


@lru_cache
def _column_types(record: type[_Row]) -> dict[str, str]:
    return {f.name: f.metadata["type"] for f in fields(record)}  # type: ignore[arg-type]


@lru_cache
def _default_row(record: type[_Row]) -> dict[str, object]:
    """A row with every default; required columns are None."""
    row: dict[str, object] = {}
    for f in fields(record):  # type: ignore[arg-type]
        default = None if f.default is MISSING else f.default
        row[f.name] = _to_arrow({} if f.default_factory is not MISSING else default)
    return row


@lru_cache
def _arrow_types() -> dict[str, pa.DataType]:
    import pyarrow as pa

    artifact = pa.struct([(f.name, pa.int64() if f.name == "bytes" else pa.string()) for f in fields(Artifact)])
    return {
        "string": pa.string(),
        "bool": pa.bool_(),
        "int8": pa.int8(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "float": pa.float32(),
        "double": pa.float64(),
        "timestamp": pa.timestamp("us", tz="UTC"),
        "list<string>": pa.list_(pa.string()),
        "list<float>[3]": pa.list_(pa.float32(), 3),
        "list<double>[16]": pa.list_(pa.float64(), 16),
        "list<double>[9]": pa.list_(pa.float64(), 9),
        "list<artifact>": pa.list_(artifact),
        "list<stage>": pa.list_(pa.struct([("stage", pa.string()), ("seconds", pa.float64())])),
    }


def _to_arrow(value: object) -> object:
    if isinstance(value, tuple):
        return [_to_arrow(item) for item in value]
    if isinstance(value, Artifact):
        return {f.name: getattr(value, f.name) for f in fields(value)}
    if isinstance(value, dict):
        return [{"stage": stage, "seconds": seconds} for stage, seconds in value.items()]
    return value


def _to_json(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return _to_arrow(value)


def _from_arrow(value: Any, type: str) -> object:  # noqa: A002 - a column's type
    if type == "list<artifact>":
        return tuple(Artifact(**item) for item in value)
    if type == "list<stage>":
        return dict(value) if isinstance(value, dict) else {item["stage"]: item["seconds"] for item in value}
    if type.startswith("list"):
        return tuple(value)
    if type == "timestamp" and isinstance(value, str):
        return datetime.fromisoformat(value)
    return value
