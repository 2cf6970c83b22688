"""What the mini model is asked to reach and what it reaches: one table for the benchmark, the card and the reader.

    rows = measured({"seen_true_f80_db": Measured(value=27.3, scenes=32, hardware="1 x NVIDIA H200")})
    write: json.dumps({"rows": [asdict(row) for row in rows]}); read: read_rows(path)

No torch here: the card is written without it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from lyra_core.errors import WeightsError

RESOLUTION = "128x224"
ALL, SEEN, UNSEEN = "all pixels", "co-visible with the seed", "never seen by the seed"
SOLID = "solid, nearer than 80 m"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One line of the table before it is measured.

    Attributes:
        group: heading it stands under.
        name: what is measured.
        unit: of the value.
        mask: pixels that count.
        target: bound, or None for a number that only explains others.
        is_at_least: the value should be at least the target, else at most.
    """

    group: str
    name: str
    unit: str = "dB"
    mask: str = ALL
    target: float | None = None
    is_at_least: bool = True


def _asked(
    group: str, name: str, unit: str = "dB", mask: str = ALL, least: float | None = None, most: float | None = None
) -> Asked:
    target, is_at_least = (least, True) if most is None else (most, False)
    return Asked(group=group, name=name, unit=unit, mask=mask, target=target, is_at_least=is_at_least)


_VAE, _DEPTH, _SEEN = "Autoencoder", "Depth", "What the seed saw"
_REVISIT, _UNSEEN, _DRIFT = "Return to the first camera", "What the seed never saw", "Drift over six chunks"
_STEPS, _SPLATS, _WORLD = "Four steps against sixteen", "Gaussians", "One world of 81 frames"
_ENLARGED = "Super-resolution, 512x896"

ASKED: dict[str, Asked] = {
    "vae_worlds_db": _asked(_VAE, "procedural, as fast as rollout chunks move", least=34.0),
    "vae_worlds_fast_db": _asked(_VAE, "procedural, every 1st to 8th frame of a path"),
    "vae_photos_db": _asked(_VAE, "photographs not trained on, panned and zoomed", least=27.5),
    "vae_photos_still_db": _asked(_VAE, "photographs not trained on, still"),
    "absrel_cameras": _asked(_DEPTH, "AbsRel, known cameras", "", SOLID, most=0.08),
    "absrel_single": _asked(_DEPTH, "AbsRel, one image, in metres", "", SOLID, most=0.20),
    "absrel_single_aligned": _asked(_DEPTH, "AbsRel, one image, scale taken out", "", SOLID),
    "rollout_absrel_cameras": _asked(_DEPTH, "the same of rollout windows, known cameras", "", SOLID),
    "rollout_absrel_single": _asked(_DEPTH, "the same of rollout seeds, one image", "", SOLID),
    "seen_true_f80_db": _asked(_SEEN, "frame 80, true depth", mask=SEEN, least=27.0),
    "seen_true_f160_db": _asked(_SEEN, "frame 160, true depth", mask=SEEN, least=27.0),
    "seen_estimated_f80_db": _asked(_SEEN, "frame 80, estimated depth", mask=SEEN, least=22.0),
    "seen_estimated_f160_db": _asked(_SEEN, "frame 160, estimated depth", mask=SEEN, least=22.0),
    "seen_warp_f80_db": _asked(_SEEN, "frame 80, the warped seed itself, holes blurred over", mask=SEEN),
    "seen_ceiling_f80_db": _asked(_SEEN, "frame 80, the truth through the autoencoder", mask=SEEN),
    "seen_sharpness": _asked(_SEEN, "frame 80, high-frequency energy over the truth's, true depth", "", SEEN),
    "seen_sharpness_warp": _asked(_SEEN, "the same of the warped seed itself", "", SEEN),
    "seen_sharpness_ceiling": _asked(_SEEN, "the same of the truth through the autoencoder", "", SEEN),
    "revisit_true_db": _asked(_REVISIT, "last frame against the seed, true depth", least=29.0),
    "revisit_true_gain_db": _asked(_REVISIT, "gain over memory off, true depth", least=5.0),
    "revisit_estimated_db": _asked(_REVISIT, "last frame against the seed, estimated depth", least=24.0),
    "revisit_estimated_gain_db": _asked(_REVISIT, "gain over memory off, estimated depth", least=3.0),
    "unseen_gain_db": _asked(
        _UNSEEN, "frame 80, above the blurred inpainting of the warp, 4 steps", mask=UNSEEN, least=2.0
    ),
    "unseen_gain_many_db": _asked(_UNSEEN, "frame 80, above the blurred inpainting of the warp, 16 steps", mask=UNSEEN),
    "unseen_f80_db": _asked(_UNSEEN, "frame 80, 4 steps", mask=UNSEEN),
    "unseen_sharpness_many": _asked(
        _UNSEEN, "frame 80, high-frequency energy over the truth's, 16 steps", "", UNSEEN, least=0.7
    ),
    "unseen_sharpness": _asked(_UNSEEN, "frame 80, high-frequency energy over the truth's, 4 steps", "", UNSEEN),
    "unseen_patches": _asked(_UNSEEN, "frame 80, 7x7 patches from the truth's (lower is better), 4 steps", "", UNSEEN),
    "unseen_patches_many": _asked(_UNSEEN, "the same, 16 steps", "", UNSEEN),
    "unseen_patches_blur": _asked(_UNSEEN, "the same of the blurred inpainting", "", UNSEEN),
    "unseen_frechet": _asked(_UNSEEN, "frames 40 to 120, Frechet distance of Lite1 features, 4 steps", "", UNSEEN),
    "unseen_frechet_many": _asked(_UNSEEN, "the same, 16 steps", "", UNSEEN),
    "unseen_frechet_blur": _asked(_UNSEEN, "the same of the blurred inpainting", "", UNSEEN),
    "drift_color_reduction": _asked(_DRIFT, "colour shift less than the ablation's by", "%", least=30.0),
    "drift_sharpness_reduction": _asked(_DRIFT, "sharpness loss less than the ablation's by", "%", least=30.0),
    "drift_color": _asked(_DRIFT, "colour shift in the last chunk", "CIELAB"),
    "drift_color_twin": _asked(_DRIFT, "colour shift in the last chunk, ablation", "CIELAB"),
    "drift_sharpness_loss": _asked(_DRIFT, "sharpness lost in the last chunk", "of 1"),
    "drift_sharpness_loss_twin": _asked(_DRIFT, "sharpness lost in the last chunk, ablation", "of 1"),
    "student_f80_db": _asked(_STEPS, "frame 80, 4 steps less 16 steps", mask=SEEN, least=-1.0),
    "student_f160_db": _asked(_STEPS, "frame 160, 4 steps less 16 steps", mask=SEEN, least=-1.0),
    "student_sharpness": _asked(_STEPS, "frame 80, high-frequency energy, 4 steps over 16", "", UNSEEN, least=0.9),
    "splats_own_db": _asked(_SPLATS, "held-out frames of their own generated video", least=22.0),
    "splats_rendered_db": _asked(_SPLATS, "held-out frames of a rendered video"),
    "splats_novel_gain_db": _asked(
        _SPLATS, "generated worlds at true novel views, above parallax", mask=SEEN, least=3.0
    ),
    "splats_novel_db": _asked(_SPLATS, "generated worlds at true novel views", mask=SEEN),
    "enlarged_gain_db": _asked(_ENLARGED, "frame 80 above bicubic enlargement, true depth", mask=SEEN, least=3.5),
    "enlarged_transfer_gain_db": _asked(
        _ENLARGED, "frame 80 above the untrained transfer of detail, true depth", mask=SEEN, least=2.5
    ),
    "enlarged_db": _asked(_ENLARGED, "frame 80, true depth", mask=SEEN),
    "enlarged_sharpness": _asked(
        _ENLARGED, "frame 80, high-frequency energy over the truth's, true depth", "", SEEN, least=0.75
    ),
    "enlarged_sharpness_bicubic": _asked(_ENLARGED, "the same of bicubic enlargement", "", SEEN),
    "enlarged_flicker": _asked(
        _ENLARGED, "change of detail along true motion over the truth's, true depth", "", most=1.3
    ),
    "enlarged_gain_estimated_db": _asked(_ENLARGED, "frame 80 above bicubic enlargement, estimated depth", mask=SEEN),
    "enlarged_transfer_gain_estimated_db": _asked(
        _ENLARGED, "frame 80 above the untrained transfer of detail, estimated depth", mask=SEEN
    ),
    "enlarged_sharpness_estimated": _asked(
        _ENLARGED, "frame 80, high-frequency energy over the truth's, estimated depth", "", SEEN
    ),
    "enlarged_flicker_estimated": _asked(
        _ENLARGED, "change of detail along true motion over the truth's, estimated depth", ""
    ),
    "enlarged_photo_features": _asked(
        _ENLARGED, "sample photographs, feature distance from the photograph's own crops over bicubic's", "", most=0.5
    ),
    "world_seconds": _asked(_WORLD, "all stages, two cores", "s", "", most=25.0),
    "world_video_seconds": _asked(_WORLD, "of which video", "s", ""),
    "world_splats_seconds": _asked(_WORLD, "of which Gaussians", "s", ""),
    "world_peak_rss_gib": _asked(_WORLD, "peak memory", "GiB", "", most=4.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table as measured.

    Attributes:
        key: of ASKED.
        value: None where it was not measured.
        scenes: how many it is the mean of.
        hardware: what it was measured on.
        note: what was measured differently, or why it was not.
    """

    key: str
    value: float | None = None
    scenes: int = 0
    hardware: str = ""
    note: str = ""

    @property
    def asked(self) -> Asked:
        """What is asked."""
        return ASKED[self.key]

    @property
    def is_met(self) -> bool | None:
        """None where nothing is asked or measured."""
        target = self.asked.target
        if target is None or self.value is None:
            return None
        return self.value >= target if self.asked.is_at_least else self.value <= target

    def as_dict(self) -> dict[str, str | float | int | bool | None]:
        """For result files: the line with what was asked beside it."""
        line = {"resolution": RESOLUTION, **asdict(self.asked), **asdict(self)}
        return {**line, "is_met": self.is_met}


def complete(rows: Iterable[Row], earlier: Iterable[Row] = ()) -> list[Row]:
    """Every line of the table in order: as measured now, else as measured earlier, else unmeasured.

    Raises:
        WeightsError: a row nobody asked for.
    """
    fresh = list(rows)
    unknown = sorted({row.key for row in fresh} - set(ASKED))
    if unknown:
        raise WeightsError(f"the table has no lines {unknown}; add them to lyra_core/evaluation/table.py")
    known = {row.key: row for row in earlier if row.key in ASKED}
    known |= {row.key: row for row in fresh if row.value is not None or row.key not in known}
    return [known.get(key, Row(key=key, note="not measured")) for key in ASKED]


def read_rows(path: Path) -> tuple[list[Row], str]:
    """The lines of a result file, and the digest of the weights that they measure.

    Raises:
        WeightsError: no numbers of benchmarks/mini.py.
    """
    names = {field.name for field in fields(Row)}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        rows = [Row(**{k: v for k, v in line.items() if k in names}) for line in document["rows"]]
        return [row for row in rows if row.key in ASKED], str(document["weights"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path} holds no numbers of benchmarks/mini.py ({error}); run the benchmark again"
        ) from error


def markdown(rows: Iterable[Row]) -> list[str]:
    """The table in Markdown: what, pixels, target, value, scenes, hardware."""
    lines = ["| what | pixels | target | value | met | scenes | on |", "| --- | --- | --- | --- | --- | --- | --- |"]
    group = ""
    for row in rows:
        asked = row.asked
        if asked.group != group:
            group = asked.group
            lines.append(f"| **{group}** | | | | | | |")
        lines.append(
            f"| {asked.name} | {asked.mask} | {_bound(asked)} | {_shown(row)} | {MARKS[row.is_met]} "
            f"| {row.scenes or ''} | {row.hardware} |"
        )
    return lines


MARKS: Mapping[bool | None, str] = {True: "met", False: "**missed**", None: ""}


def _bound(asked: Asked) -> str:
    if asked.target is None:
        return ""
    return f"{'at least' if asked.is_at_least else 'at most'} {asked.target:g} {asked.unit}".rstrip()


def _shown(row: Row) -> str:
    if row.value is None:
        return row.note or "not measured"
    digits = 3 if row.asked.unit in ("", "of 1") else 1
    return f"{row.value:.{digits}f} {row.asked.unit}".rstrip() + (f" ({row.note})" if row.note else "")
