"""What a metre is to Cosmos 3: two experiments, kept measurement by measurement, a table, a plot and a verdict.

    inverse   clips of the parallax baseline, whose motion is known in the metres of the depth network: what actions
              does the network itself see in them?
    forward   one chunk a photograph, move and gain: how far does the camera of its frames move, as the depth network
              finds it in the metres of the photograph?

Each measurement is a file, written whole: the same command goes on where it was stopped.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from lyra_core.config.cosmos import CosmosOptions
from lyra_core.cosmos.actions import actions_to_poses, path_to_actions
from lyra_core.cosmos.adherence import frames_to_look_at, measure
from lyra_core.cosmos.model import CosmosParts
from lyra_core.cosmos.pipeline import build_sampler, recover_actions
from lyra_core.cosmos.rollout import CosmosRollout
from lyra_core.errors import RecipeError, StoreError
from lyra_core.extras import is_installed
from lyra_core.formats.image import open_image
from lyra_core.geometry.camera_paths import measure_scene_depth_m
from lyra_core.geometry.rotation import rotation_angle_deg
from lyra_core.geometry.seed_cameras import cameras_for_seed
from lyra_core.identity import rng_seed
from lyra_core.replacing import replacing
from lyra_core.values import Seed
from lyra_core.world_models.parallax import ParallaxModel

MOVES = ("dolly-in", "truck-right", "orbit-left")
GAINS = (0.25, 0.5, 1.0, 2.0, 4.0)
NARROW = math.log(1.25)
"""Spread (half the middle half, of logarithms) up to which one rule is believed."""
CAPTION = "A static scene, nothing moves."


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One line of the table.

    Attributes:
        experiment: "inverse" or "forward".
        photograph: name of its file.
        move: preset of the camera.
        gain: sent with it; 1 in the inverse experiment.
        scene_depth_m: of the photograph.
        ratio: found translation over that which was sent (inverse: predicted over true; forward: found over
            requested times gain); NaN where the camera hardly moved.
        direction_deg: angle between the whole translations; NaN likewise.
        rotation_deg: median angle between rotations.
    """

    experiment: str
    photograph: str
    move: str
    gain: float
    scene_depth_m: float
    ratio: float
    direction_deg: float
    rotation_deg: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GainVerdict:
    """What the table says.

    Attributes:
        rule: "constant", "by depth" (the gain falls with the scene's depth) or "unclear".
        gain: of the rule: a factor, or a factor times metres; None where it is unclear.
        spread: of the better rule, as a factor; None without measurements.
        digest: of the table; what cosmos.calibration names.
        text: for people.
    """

    rule: str
    gain: float | None
    spread: float | None
    digest: str
    text: str


def calibrate(
    parts: CosmosParts,
    photographs: Sequence[Path],
    out: Path,
    *,
    size: tuple[int, int],
    moves: Sequence[str] = MOVES,
    gains: Sequence[float] = GAINS,
    on_measurement: Callable[[int, int], None] | None = None,
) -> GainVerdict:
    """Measure what is not measured yet, and write the table, the plot and the verdict.

    Args:
        parts: a model with camera actions.
        photographs: of scenes of different depths, a room, a street, a landscape.
        out: folder of the results.
        size: width and height of the frames, a canvas.
        moves: presets.
        gains: of the forward experiment.
        on_measurement: told how many are done, of how many.

    Raises:
        RecipeError: another mode than "camera", or no photograph.
        SeedError: a photograph that cannot be used.
        StoreError: the folder cannot be written.
    """
    require_ready(parts.options, photographs, out, size)
    wanted = [(path, move, gain) for path in photographs for move in moves for gain in (None, *gains)]
    found: list[Measurement] = []
    for number, (path, move, gain) in enumerate(wanted, 1):
        home = out / "measurements" / f"{_key(parts, path, move, gain, size)}.json"
        known = _read(home)
        if known is None:
            seed = open_image(path, *size)
            known = (
                _inverse(parts, seed, path.name, move) if gain is None else _forward(parts, seed, path.name, move, gain)
            )
            _write(home, json.dumps(asdict(known), indent=1))
        found.append(known)
        if on_measurement is not None:
            on_measurement(number, len(wanted))
    table = _table(found)
    verdict = judge(found, hashlib.sha256(table.encode()).hexdigest()[:12])
    _write(out / "gains.csv", table)
    _write(out / "verdict.json", json.dumps(asdict(verdict), indent=1) + "\n")
    _write(out / "verdict.txt", verdict.text + "\n")
    _plot(found, out / "gains.png")
    return verdict


def require_ready(options: CosmosOptions, photographs: Sequence[Path], out: Path, size: tuple[int, int]) -> None:
    """Check what can be told before a model is loaded; arguments as calibrate.

    Raises:
        RecipeError: another mode than "camera", or no photograph.
        SeedError: a photograph that cannot be used.
        StoreError: the folder cannot be written.
    """
    if options.mode != "camera" or not photographs:
        raise RecipeError(
            f"calibration needs mode='camera' and at least one photograph, found mode={options.mode!r} and "
            f"{len(photographs)} photographs"
        )
    for path in photographs:
        open_image(path, *size)
    with _writing(out):
        (out / "measurements").mkdir(parents=True, exist_ok=True)


def judge(measurements: Iterable[Measurement], digest: str) -> GainVerdict:
    """Which gain makes requested metres come true: a constant, or one that falls with the scene's depth.

    A gain of 1 / ratio would have made the camera go as far as asked, if it answers in proportion. The rule whose
    values differ least over all forward measurements is taken, if they differ little.
    """
    usable = [m for m in measurements if m.experiment == "forward" and math.isfinite(m.ratio) and m.ratio > 0]
    if not usable:
        text = "unclear: no forward measurement in which the camera moved; nothing follows for cosmos.action_gain"
        return GainVerdict(rule="unclear", gain=None, spread=None, digest=digest, text=text)
    needed = {
        "constant": [-math.log(m.ratio) for m in usable],
        "by depth": [-math.log(m.ratio) + math.log(m.scene_depth_m) for m in usable],
    }
    spreads = {rule: _spread(values) for rule, values in needed.items()}
    rule = min(spreads, key=lambda name: spreads[name])
    factor, spread = math.exp(statistics.median(needed[rule])), math.exp(spreads[rule])
    seen = f"over {len(usable)} forward measurements; the middle half lies within a factor of {spread:.2f}"
    if spreads[rule] > NARROW:
        text = f"unclear: neither a constant gain nor one by depth explains the table ({seen}); keep action_gain=1"
        return GainVerdict(rule="unclear", gain=None, spread=spread, digest=digest, text=text)
    if rule == "constant":
        text = (
            f"constant: a gain of {factor:.3g} makes requested metres come true {seen}. "
            f"--set cosmos.action_gain={factor:.3g} --set cosmos.calibration={digest}"
        )
    else:
        text = (
            f"by depth: a gain of {factor:.3g} m over the scene's depth makes requested metres come true {seen}: the "
            "model moves by shares of the scene and not by metres. For photographs of one depth D: "
            f"--set cosmos.action_gain=({factor:.3g} / D) --set cosmos.calibration={digest}"
        )
    return GainVerdict(rule=rule, gain=factor, spread=spread, digest=digest, text=text)


def _inverse(parts: CosmosParts, seed: Seed, name: str, move: str) -> Measurement:
    """The network's own actions of a clip whose motion is known."""
    baseline = ParallaxModel()
    count = 1 + parts.options.chunk_frames
    clip = baseline.generate(seed, move, num_frames=count)
    metric = parts.estimator.estimate(seed.image[None], None)
    rough = baseline.estimate(seed.image[None], None)
    solid = ~(metric.sky | rough.sky)[0] & (metric.depth_m[0] > 0) & (rough.depth_m[0] > 0)
    solid = solid if bool(solid.any()) else torch.ones_like(solid)
    # The baseline knows no metres: its world is scaled by what the depth network makes of the photograph.
    scale = float((metric.depth_m[0] / rough.depth_m[0].clamp(min=1e-6))[solid].median())
    true = path_to_actions(clip.cameras, scale)
    predicted = recover_actions(
        parts.components, parts.options, clip.frames, CAPTION, rng_seed(seed.sha256, f"calibrate {move}")
    )
    length = float((true[:, :3] ** 2).sum())
    ratio = float((predicted[:, :3] * true[:, :3]).sum()) / length if length > 0 else math.nan
    return Measurement(
        experiment="inverse",
        photograph=name,
        move=move,
        gain=1.0,
        scene_depth_m=measure_scene_depth_m(metric.depth_m[0], solid),
        ratio=ratio,
        direction_deg=_angle(true[:, :3].sum(0), predicted[:, :3].sum(0)),
        rotation_deg=_rotation_error(true, predicted),
    )


def _forward(parts: CosmosParts, seed: Seed, name: str, move: str, gain: float) -> Measurement:
    """One chunk along a preset, and the cameras that the depth network finds in it."""
    options = replace(parts.options, action_gain=gain)
    estimate = parts.estimator.estimate(seed.image[None], None)
    depth, sky = estimate.depth_m[0], estimate.sky[0]
    cameras = cameras_for_seed(
        move, num_frames=1 + options.chunk_frames, intrinsics=seed.intrinsics, depth_m=depth, sky=sky
    )
    rollout = CosmosRollout(build_sampler(parts.components, parts.checkpoint, options), parts.estimator, options)
    chunk_id = hashlib.sha256(f"{seed.sha256} {move}".encode()).hexdigest()[:32]  # one noise for all gains
    known = torch.where(sky, torch.zeros(()), depth)
    found = rollout.follow(seed, cameras, [CAPTION], [chunk_id], seed_depth_m=known).found
    looked = frames_to_look_at(1, options.chunk_frames, options.depth.interval_frames)
    seen = measure(cameras.world_to_cam[looked], found.world_to_cam[looked])
    solid = ~sky if bool((~sky).any()) else torch.ones_like(sky)
    return Measurement(
        experiment="forward",
        photograph=name,
        move=move,
        gain=gain,
        scene_depth_m=measure_scene_depth_m(depth, solid),
        ratio=seen.length_ratio / gain,
        direction_deg=seen.direction_deg,
        rotation_deg=seen.rotation_deg,
    )


def _angle(first: torch.Tensor, second: torch.Tensor) -> float:
    if min(float(first.norm()), float(second.norm())) < 1e-9:
        return math.nan
    cosine = torch.nn.functional.cosine_similarity(first.double(), second.double(), dim=0).clamp(-1, 1)
    return math.degrees(math.acos(float(cosine)))


def _rotation_error(true: torch.Tensor, predicted: torch.Tensor) -> float:
    first, second = (actions_to_poses(actions)[-1, :3, :3] for actions in (true, predicted))
    return float(rotation_angle_deg(first.mT @ second))


def _spread(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2


def _key(parts: CosmosParts, photograph: Path, move: str, gain: float | None, size: tuple[int, int]) -> str:
    """Names a measurement by all that it depends on."""
    told = json.dumps([asdict(parts.options), parts.digests, move, gain, size, photograph.name], sort_keys=True)
    return hashlib.sha256(told.encode() + photograph.read_bytes()).hexdigest()[:16]


def _table(measurements: Sequence[Measurement]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(Measurement.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    for line in measurements:
        writer.writerow(
            {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in asdict(line).items()}
        )
    return text.getvalue()


def _read(path: Path) -> Measurement | None:
    """None where nothing is kept, or nothing readable: it is measured again."""
    try:
        known: Mapping[str, object] = json.loads(path.read_text("utf-8"))
        return Measurement(**known)  # type: ignore[arg-type]
    except (OSError, ValueError, TypeError):
        return None


def _write(path: Path, text: str) -> None:
    with _writing(path), replacing(path) as temporary:
        temporary.write_text(text, "utf-8")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        raise StoreError(f"cannot write {path}: {said}; free some space, or choose another folder: --out") from error


def _plot(measurements: Sequence[Measurement], path: Path) -> None:
    """Found over sent translation against the scene's depth; left out where matplotlib is not installed."""
    if not is_installed("matplotlib"):
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for experiment, mark in (("inverse", "x"), ("forward", "o")):
        lines = [m for m in measurements if m.experiment == experiment and math.isfinite(m.ratio) and m.ratio > 0]
        axes.scatter([m.scene_depth_m for m in lines], [m.ratio for m in lines], marker=mark, label=experiment)
    axes.axhline(1.0, linewidth=0.8, color="black")
    axes.set(xscale="log", yscale="log", xlabel="depth of the scene, m", ylabel="found / sent translation")
    axes.legend()
    with _writing(path):
        figure.savefig(path, dpi=120)
