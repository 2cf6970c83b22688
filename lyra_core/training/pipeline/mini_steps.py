"""The steps that make the mini model: what is trained, on how many GPUs, for how long, after what.

Places that the pipeline fills in: {out} its folder, {views} the folder of camera paths, {start} the weights to begin
with, {photographs}, {workers} processes that prepare scenes.
"""

from __future__ import annotations

from dataclasses import dataclass

from lyra_core.training.pipeline.run import TRAINING
from lyra_core.training.pipeline.step import Command, Step

DEBUG_MINUTES = 0.04
REST = ("vae", "photographs", "depth", "depth-table")
"""Parts of the table that are measured together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniChoices:
    """What can be chosen of the pipeline.

    Attributes:
        has_start: whether everything begins from packed weights ({start}) and not from nothing, which takes longer.
        minutes_scale: factor of all training times.
        is_debug: tiny networks and seconds of training.
        device: "cuda" or "cpu".
        student_weight: of the student in the mean of student and teacher that is packed.
        has_table: whether the packed weights are measured.
    """

    has_start: bool = False
    minutes_scale: float = 1.0
    is_debug: bool = False
    device: str = "cuda"
    student_weight: float = 0.4
    has_table: bool = True

    def minutes(self, from_weights: float, from_nothing: float | None = None) -> float:
        """Training time of a step, whose second number is another one where everything begins from nothing."""
        chosen = from_weights if self.has_start or from_nothing is None else from_nothing
        return (DEBUG_MINUTES if self.is_debug else chosen) * self.minutes_scale

    @property
    def start(self) -> tuple[str, ...]:
        """Options of a training that begins with the packed weights, where there are some."""
        return ("--start-from", "{start}") if self.has_start else ()

    def run_options(self, views: str) -> tuple[str, ...]:
        """Options that every training has.

        Args:
            views: its file of camera paths.
        """
        places = ("--photographs", "{photographs}", "--workers", "{workers}", "--views", "{views}/" + views)
        return ("--device", self.device, *places, *(("--debug",) if self.is_debug else ()))


def mini_steps(choices: MiniChoices) -> tuple[Step, ...]:
    """The steps in the order in which they are started where several could be."""
    steps = (
        *view_steps(choices),
        *autoencoder_steps(choices),
        depth_step(choices),
        *video_steps(choices),
        pack_step(choices),
    )
    return (*steps, *table_steps(choices.device)) if choices.has_table else steps


def view_steps(choices: MiniChoices) -> tuple[Step, ...]:
    """Camera paths of the video network and of the depth network, kept where they are there."""
    few_scenes = ("--scenes", "4", "--held-out", "3") if choices.is_debug else ()

    def searching(name: str, file: str) -> Step:
        command = training(name, *few_scenes, "--workers", "{workers}", "--out", "{views}/" + file)
        return Step(name=name, commands=(command,), makes="{views}/" + file, is_kept=True)

    return searching("views", "views.npz"), searching("depth-views", "depth_views.npz")


def autoencoder_steps(choices: MiniChoices) -> tuple[Step, ...]:
    """The autoencoder, and its decoder against a critic.

    The critic moves the decoder alone: latents stay what they are, so no video network waits for it.
    """
    options = choices.run_options("views.npz")
    sharpening = ("--sharpen", "--start-from", weights("vae"), "--gan-weight", "0.25", "--batch", "64")
    return (
        Step(
            name="vae",
            commands=(training("vae", *options, *choices.start, "--max-speed", "2", "--lr", "1e-3"),),
            gpus=1,
            minutes=choices.minutes(7.0),
            after=("views",),
        ),
        Step(
            name="sharpen",
            commands=(training("vae", *options, *sharpening),),
            gpus=1,
            minutes=choices.minutes(2.0),
            after=("views", "vae"),
        ),
    )


def depth_step(choices: MiniChoices) -> Step:
    """The depth and Gaussian network."""
    options = (*choices.run_options("depth_views.npz"), *choices.start, "--splats-from", "-1", "--lr", "6e-4")
    return Step(
        name="depth",
        commands=(training("depth", *options),),
        gpus=2,
        least=1,
        minutes=choices.minutes(7.0, 22.0),
        after=("depth-views",),
    )


def video_steps(choices: MiniChoices) -> tuple[Step, ...]:
    """The video network: without self-augmented histories, with them (the teacher), its ablation, its student."""
    # measuring in between takes a tenth of the time, and the table measures what is packed
    options = (*choices.run_options("views.npz"), "--evaluate-every", "0")
    lr, vae, base = ("--lr", "8e-4"), ("--vae", weights("vae")), ("--start-from", weights("base"))
    # the first video network need not wait for the new autoencoder where there is an old one
    first_vae, after_first_vae = ("{start}", ()) if choices.has_start else (weights("vae"), ("vae",))
    distilling = (*vae, "--student", "--start-from", weights("teacher"), "--lr", "1.5e-4", "--history-level", "0.9")
    return (
        Step(
            name="base",
            commands=(training("video", *options, *lr, *choices.start, "--vae", first_vae, "--no-augmentation"),),
            gpus=2,
            minutes=choices.minutes(7.0, 15.0),
            after=("views", *after_first_vae),
        ),
        Step(
            name="teacher",
            commands=(training("video", *options, *lr, *vae, *base, "--history-level", "0.9"),),
            gpus=2,
            minutes=choices.minutes(7.0),
            after=("base", "vae"),
        ),
        Step(
            name="ablation",
            commands=(training("video", *options, *lr, *vae, *base, "--no-augmentation"),),
            gpus=2,  # as many as its teacher, else they cannot be compared
            minutes=choices.minutes(7.0),
            after=("base", "vae"),
        ),
        Step(
            name="student",
            commands=(training("video", *options, *distilling),),
            gpus=None,
            least=3,
            minutes=choices.minutes(3.0),
            after=("teacher", "vae"),
        ),
    )


def pack_step(choices: MiniChoices) -> Step:
    """The components of the packed model, with what their trainings cost."""
    share = ("--student-weight", f"{choices.student_weight:g}")
    return Step(
        name="pack",
        commands=(
            pack("--vae", weights("sharpen"), *runs("vae", "sharpen")),
            pack(
                *("--video", weights("student"), "--blend", weights("teacher"), *share),
                *runs("base", "teacher", "student"),
            ),
            pack("--depth", weights("depth"), *runs("depth")),
        ),
        after=("vae", "sharpen", "depth", "base", "teacher", "student"),
        makes="{out}/weights",
    )


def table_steps(device: str) -> tuple[Step, ...]:
    """The table of the card (lyra_core.evaluation), in parts side by side: one per GPU, and one file of them all."""
    ablation, teacher = ("--ablation", weights("ablation")), ("--teacher", weights("teacher"))
    parts = (
        measuring("table-returning", device, "--parts", "returning", *teacher, also_after=("teacher",)),
        measuring("table-drift", device, "--parts", "drift", *teacher, *ablation, also_after=("ablation", "teacher")),
        measuring("table-splats", device, "--parts", "gaussians", "--parts", "novel", "--parts", "enlarging"),
        measuring("table-rest", device, *(o for part in REST for o in ("--parts", part))),
    )
    names = tuple(part.name for part in parts)
    # it times two cores of the machine, which the other parts would take from it
    world = measuring("table-world", device, "--parts", "world", also_after=names)
    table = Step(
        name="table",
        commands=(
            training("table", "--merge={out}/table-*/mini-*.json", "--out", "{out}/table"),
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
    """EMA weights that a step leaves."""
    return "{out}/" + step + "/weights.safetensors"


def runs(*steps: str) -> tuple[str, ...]:
    """Options that tell what the steps of a component cost."""
    return tuple(part for step in steps for part in ("--run", "{out}/" + step + "/summary.json"))
