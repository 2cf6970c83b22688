"""EMA weights of training runs become components of the packed mini model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lyra_core.errors import ConfigError, WeightsError
from lyra_core.mini.config import MINI_DIT
from lyra_core.mini.depth import MINI_DEPTH, MiniDepthConfig
from lyra_core.mini.files import write_component
from lyra_core.mini.manifest import SUPER_RESOLUTION, Training
from lyra_core.mini.super_resolution import SuperResolutionConfig
from lyra_core.mini.vae import MINI_VAE, MiniVAEConfig

WIDTHS: dict[str, MiniVAEConfig | MiniDepthConfig | SuperResolutionConfig] = {
    "vae": MINI_VAE,
    "depth": MINI_DEPTH,
    SUPER_RESOLUTION: SuperResolutionConfig(),
}
"""Of components by name; others are video networks."""


def pack_runs(
    weights: Mapping[str, Path],
    folder: Path,
    *,
    summaries: Sequence[Path] = (),
    gpus: int | None = None,
    teacher: Path | None = None,
    student_weight: float = 0.4,
) -> None:
    """Write components of the mini model.

    Args:
        weights: EMA weights of runs, by the component they become: "vae", "depth", "super_resolution", or a name of a
            video network.
        folder: of the packed model.
        summaries: summary.json of the run and of those it went on from; for one component only.
        gpus: of runs whose summary does not tell; None for 1.
        teacher: EMA weights that the video network (the autoencoder, where there is none) went on from: the mean of
            both is packed.
        student_weight: of the later weights in that mean, 0 to 1.

    Raises:
        ConfigError: nothing to pack, one run for several components, or a weight outside 0 to 1.
        WeightsError: files that cannot be read.
    """
    from safetensors.torch import load_file

    if not weights or (summaries and len(weights) > 1):
        raise ConfigError(
            f"pack wants weights, and one component where --run tells of its training; found {len(weights)} of them"
        )
    training = read_training(summaries, gpus)
    videos = [name for name in weights if name not in WIDTHS]
    averaged = videos[0] if videos else "vae"
    for name, path in weights.items():
        if not path.is_file():
            raise WeightsError(f"{name} is packed from EMA weights (weights.safetensors), found none at {path}")
        state = load_file(str(path))
        if teacher is not None and name == averaged:
            state = blended(state, load_file(str(teacher)), student_weight)
        write_component(folder, name, state, WIDTHS.get(name, MINI_DIT), training)


def blended(student: dict[str, Tensor], teacher: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """The mean of two networks' weights: between what a student gained and what it lost lies a better network.

    Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", section 3.

    Args:
        student: weights by name.
        teacher: those that the student started from.
        share: of the student, 0 to 1.

    Raises:
        ConfigError: a share outside 0 to 1.
        WeightsError: weights of another network.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"the student's share of a mean lies in 0 to 1, found {share}")
    if student.keys() != teacher.keys():
        raise WeightsError(
            f"a mean is taken of two trainings of one network, found {len(student.keys() ^ teacher.keys())} names in "
            "one of them only"
        )
    return {name: torch.lerp(teacher[name].float(), value.float(), share) for name, value in student.items()}


def read_training(summaries: Sequence[Path], gpus: int | None = None) -> Training | None:
    """What runs one after the other cost, from their summaries.

    Raises:
        WeightsError: a summary that cannot be read.
    """
    total: Training | None = None
    for path in summaries:
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
            one = Training(
                steps=int(summary["steps"]),
                samples=int(summary.get("samples", summary.get("views", 0))),
                gpu_seconds=float(summary["seconds"]) * int(gpus or summary.get("gpus", 1)),
                seed=int(summary.get("seed", 0)),
                scenes=int(summary.get("scenes", 0)),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsError(
                f"{path} is no summary.json of a training run ({error}); give that of the packed weights"
            ) from error
        total = one if total is None else _joined(total, one)
    return total


def _joined(first: Training, second: Training) -> Training:
    return replace(
        second,
        steps=first.steps + second.steps,
        samples=first.samples + second.samples,
        gpu_seconds=first.gpu_seconds + second.gpu_seconds,
        scenes=max(first.scenes, second.scenes),
        runs=first.runs + second.runs,
    )
