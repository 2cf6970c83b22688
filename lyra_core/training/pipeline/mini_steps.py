"""The steps that make the mini model: what is trained, on how many GPUs, for how long, after what.

Places that the pipeline fills in: {out} its folder, {views} the folder of camera paths, {start} the weights to begin
with, {photographs}, {workers} processes that prepare scenes.
"""

from __future__ import annotations

from dataclasses import dataclass

from lyra_core.training.pipeline.run import TRAINING
from lyra_core.training.pipeline.step import Command, Step

TOY_MINUTES = 0.04


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniChoices:
    """What can be chosen of the pipeline.

    Attributes:
        has_start: whether everything begins from packed weights ({start}) and not from nothing, which takes longer.
        minutes_scale: factor of all training times.
        is_toy: tiny networks and seconds of training.
        device: "cuda" or "cpu".
        student_weight: of the student in the mean of student and teacher that is packed.
        has_table: whether the packed weights are measured.
    """

    has_start: bool = False
    minutes_scale: float = 1.0
    is_toy: bool = False
    device: str = "cuda"
    student_weight: float = 0.4
    has_table: bool = True


def mini_steps(choices: MiniChoices) -> tuple[Step, ...]:
    """The steps in the order in which they are started where several could be."""

    def minutes(going_on: float, from_nothing: float | None = None) -> float:
        chosen = going_on if choices.has_start or from_nothing is None else from_nothing
        chosen = TOY_MINUTES if choices.is_toy else chosen
        return chosen * choices.minutes_scale

    few = ("--scenes", "4", "--held-out", "3") if choices.is_toy else ()
    start = ("--start-from", "{start}") if choices.has_start else ()
    # the first video network need not wait for the new autoencoder where there is an old one
    first_vae = "{start}" if choices.has_start else weights("vae")
    after_first_vae = () if choices.has_start else ("vae",)
    toy = ("--toy",) if choices.is_toy else ()
    fit = ("--device", choices.device, "--photographs", "{photographs}", "--workers", "{workers}", *toy)
    paths = ("--views", "{views}/views.npz", *fit)
    depth_paths = ("--views", "{views}/depth_views.npz", *fit)
    # the critic moves the decoder alone: latents stay what they are, so no video network waits for it
    vae = ("--vae", weights("vae"))
    # measuring in between takes a tenth of the time, and the table measures what is packed
    video = (*paths, "--evaluate-every", "0")
    lr = ("--lr", "8e-4")
    steps = (
        Step(
            name="views",
            commands=(training("views", *few, "--workers", "{workers}", "--out", "{views}/views.npz"),),
            makes="{views}/views.npz",
            is_kept=True,
        ),
        Step(
            name="depth-views",
            commands=(training("depth-views", *few, "--workers", "{workers}", "--out", "{views}/depth_views.npz"),),
            makes="{views}/depth_views.npz",
            is_kept=True,
        ),
        Step(
            name="vae",
            commands=(training("vae", *paths, *start, "--max-speed", "2", "--lr", "1e-3"),),
            gpus=1,
            minutes=minutes(7.0),
            after=("views",),
        ),
        Step(
            name="sharpen",
            commands=(
                training(
                    "vae", *paths, "--sharpen", "--start-from", weights("vae"), "--gan-weight", "0.25", "--batch", "64"
                ),
            ),
            gpus=1,
            minutes=minutes(2.0),
            after=("views", "vae"),
        ),
        Step(
            name="depth",
            commands=(training("depth", *depth_paths, *start, "--splats-from", "-1", "--lr", "6e-4"),),
            gpus=2,
            least=1,
            minutes=minutes(7.0, 22.0),
            after=("depth-views",),
        ),
        Step(
            name="base",
            commands=(training("video", *video, *lr, *start, "--vae", first_vae, "--no-augmentation"),),
            gpus=2,
            minutes=minutes(7.0, 15.0),
            after=("views", *after_first_vae),
        ),
        Step(
            name="teacher",
            commands=(training("video", *video, *lr, *vae, "--start-from", weights("base"), "--history-level", "0.9"),),
            gpus=2,
            minutes=minutes(7.0),
            after=("base", "vae"),
        ),
        Step(
            name="ablation",
            commands=(training("video", *video, *lr, *vae, "--start-from", weights("base"), "--no-augmentation"),),
            # as many as its teacher, else they cannot be compared
            gpus=2,
            minutes=minutes(7.0),
            after=("base", "vae"),
        ),
        Step(
            name="student",
            commands=(
                training(
                    "video",
                    *(*video, *vae, "--student", "--start-from", weights("teacher")),
                    *("--lr", "1.5e-4", "--history-level", "0.9"),
                ),
            ),
            gpus=None,
            least=3,
            minutes=minutes(3.0),
            after=("teacher", "vae"),
        ),
        Step(
            name="pack",
            commands=(
                pack("--vae", weights("sharpen"), "--run", summary("vae"), summary("sharpen")),
                pack(
                    *("--video", weights("student"), "--blend", weights("teacher")),
                    *("--student-weight", f"{choices.student_weight:g}"),
                    *("--run", summary("base"), summary("teacher"), summary("student")),
                ),
                pack("--depth", weights("depth"), "--run", summary("depth")),
            ),
            after=("vae", "sharpen", "depth", "base", "teacher", "student"),
            makes="{out}/weights",
        ),
    )
    return (*steps, *table_steps(choices.device)) if choices.has_table else steps


def table_steps(device: str) -> tuple[Step, ...]:
    """The table of the card (lyra_core.evaluation), in parts side by side: one per GPU, and one file of them all."""
    ablation, teacher = ("--ablation", weights("ablation")), ("--teacher", weights("teacher"))
    parts = (
        measuring("table-returning", device, "--parts", "returning", *teacher, also_after=("teacher",)),
        measuring("table-drift", device, "--parts", "drift", *teacher, *ablation, also_after=("ablation", "teacher")),
        measuring("table-splats", device, "--parts", "gaussians", "novel"),
        measuring("table-rest", device, "--parts", "vae", "photographs", "depth", "depth-table"),
    )
    names = tuple(part.name for part in parts)
    # it times two cores of the machine, which the other parts would take from it
    world = measuring("table-world", device, "--parts", "world", also_after=names)
    table = Step(
        name="table",
        commands=(
            training("table", "--merge", "{out}/table-*/mini-*.json", "--out", "{out}/table"),
            training("card", "--result", "{out}/table/mini-*.json", "--out", "{out}/weights"),
        ),
        after=("pack", *names, "table-world"),
        makes="{out}/weights",
    )
    return (*parts, world, table)


def measuring(name: str, device: str, *arguments: str, also_after: tuple[str, ...] = ()) -> Step:
    """Some parts of the table, with files of its own."""
    folder = "{out}/" + name
    places = ("--views", "{views}/table", "--weights", "{out}/weights", "--out", folder)
    command = training("table", "--device", device, *places, *arguments)
    return Step(name=name, commands=(command,), gpus=1, after=("pack", *also_after))


def training(*arguments: str) -> Command:
    """A command of this package's training."""
    return (*TRAINING, *arguments)


def pack(*arguments: str) -> Command:
    """A component into the folder of packed weights."""
    return training("pack", *arguments, "--out", "{out}/weights")


def weights(step: str) -> str:
    """Compact weights that a step leaves."""
    return "{out}/" + step + "/weights.safetensors"


def summary(step: str) -> str:
    """What a step cost."""
    return "{out}/" + step + "/summary.json"
