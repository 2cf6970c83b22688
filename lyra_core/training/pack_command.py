"""`python -m lyra_core.training pack|card`: compact weights of runs become the packed mini model, with its card."""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lyra_core.errors import WeightsError
from lyra_core.evaluation.card import write_card
from lyra_core.mini.config import MINI_DIT
from lyra_core.mini.depth import MINI_DEPTH
from lyra_core.mini.files import write_component
from lyra_core.mini.manifest import MINI_FOLDER, Training
from lyra_core.mini.vae import MINI_VAE


def add_pack(commands: Any) -> None:  # argparse's type of it is private
    """Declare the commands `pack` and `card`."""
    pack = commands.add_parser("pack", help="put compact weights of runs where the mini model loads them from")
    pack.add_argument("--vae", type=Path, help="weights.safetensors of an autoencoder run")
    pack.add_argument("--video", type=Path, help="weights.safetensors of a video run")
    pack.add_argument("--depth", type=Path, help="weights.safetensors of a depth run")
    pack.add_argument(
        "--blend",
        type=Path,
        help="weights.safetensors that --video or --vae went on from (its teacher, say): packs a mean of both",
    )
    pack.add_argument(
        "--student-weight", type=float, default=0.4, help="of the later weights in that mean (default: 0.4)"
    )
    pack.add_argument("--name", default="video", help="name of the video component (default: video)")
    pack.add_argument(
        "--run", dest="summaries", type=Path, nargs="+", help="summary.json of the run, and of those it went on from"
    )
    pack.add_argument("--gpus", type=int, help="GPUs of the runs whose summary does not tell (default: 1)")
    pack.add_argument("--out", type=Path, default=MINI_FOLDER, help="folder of the weights")
    pack.set_defaults(run=pack_weights)
    card = commands.add_parser("card", help="write the card of the packed weights")
    card.add_argument("--result", type=Path, help="numbers of benchmarks/mini.py for these weights")
    card.add_argument("--out", type=Path, default=MINI_FOLDER, help="folder of the weights")
    card.set_defaults(run=lambda options, log: log.info("%s", write_card(options.out, options.result)))


def pack_weights(options: argparse.Namespace, log: logging.Logger) -> None:
    """Write components and a card without numbers: those that were measured are of other weights.

    Raises:
        WeightsError: nothing to pack, one run for several components, or files that cannot be read.
    """
    from safetensors.torch import load_file

    asked = (
        ("vae", options.vae, MINI_VAE),
        (options.name, options.video, MINI_DIT),
        ("depth", options.depth, MINI_DEPTH),
    )
    given = [(name, path, widths) for name, path, widths in asked if path is not None]
    if not given or (options.summaries and len(given) > 1):
        raise WeightsError(
            f"pack wants weights, and one component where --run tells of its training; found {len(given)} of them"
        )
    training = read_training(options.summaries or [], options.gpus)
    for name, path, widths in given:
        if not path.is_file():
            raise WeightsError(f"{name} is packed from compact weights (weights.safetensors), found none at {path}")
        state = load_file(str(path))
        if options.blend is not None and path == (options.video or options.vae):
            state = blended(state, load_file(str(options.blend)), options.student_weight)
        write_component(options.out, name, state, widths, training)
    log.info("%s; now run benchmarks/mini.py, then the command card", write_card(options.out))


def blended(student: dict[str, Tensor], teacher: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """The mean of two networks' weights: between what a student gained and what it lost lies a better network.

    Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", section 3.

    Args:
        student: weights by name.
        teacher: those that the student started from.
        share: of the student, 0 to 1.

    Raises:
        WeightsError: weights of another network, or a share outside 0 to 1.
    """
    if student.keys() != teacher.keys() or not 0 <= share <= 1:
        raise WeightsError(
            f"a mean is taken of two trainings of one network with a share of 0 to 1, found "
            f"{len(student.keys() ^ teacher.keys())} names in one of them only and a share of {share}"
        )
    return {name: torch.lerp(teacher[name].float(), value.float(), share) for name, value in student.items()}


def read_training(summaries: list[Path], gpus: int | None = None) -> Training | None:
    """What runs one after the other cost, from their summaries.

    Raises:
        WeightsError: a summary that cannot be read.
    """
    total: Training | None = None
    for path in summaries:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            one = Training(
                steps=int(found["steps"]),
                samples=int(found.get("samples", found.get("views", 0))),
                gpu_seconds=float(found["seconds"]) * int(gpus or found.get("gpus", 1)),
                seed=int(found.get("seed", 0)),
                scenes=int(found.get("scenes", 0)),
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
