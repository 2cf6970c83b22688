"""Commands of the steps exist, steps start beside each other where they can, and the debugging run goes through."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from lyra_core.errors import ConfigError
from lyra_core.evaluation.measure_table import PARTS
from lyra_core.mini.manifest import read_components
from lyra_core.train_commands.app import COMMANDS, main, parse
from lyra_core.training.pipeline.machine import gpu_names
from lyra_core.training.pipeline.mini_steps import MiniChoices, mini_steps
from lyra_core.training.pipeline.run import TRAINING, filled, launched
from lyra_core.training.pipeline.scheduler import Pipeline, PipelineConfig

RECIPES = [MiniChoices(), MiniChoices(has_start=True), MiniChoices(is_debug=True, device="cpu", has_table=False)]
OPTIONS = {command.name: command.options for command in COMMANDS}
ADDED = ("--minutes", "1", "--out", "out", "--resume", "full.pt", "--pause-at", "2")


@pytest.mark.parametrize("choices", RECIPES, ids=["nothing", "start", "debug"])
def test_training_commands_are_understood(choices):
    places = {"workers": "2"}
    for step in mini_steps(choices):
        for command in step.commands:
            if command[:2] == TRAINING:
                added = ADDED if step.is_training else ()
                options = parse([*filled(command[2:], places), *added])
                assert isinstance(options, OPTIONS[command[2]]), step.name


def test_every_part_of_the_table_is_measured_once():
    measured = []
    for step in mini_steps(MiniChoices()):
        for command in step.commands:
            if command[2] == "table":
                options = parse(filled(command[2:], {}))
                measured += [] if options.merge else options.parts
    assert sorted(measured) == sorted(PARTS)


def test_inputs_are_among_what_is_waited_for():
    """A step that reads a file of another waits for that one."""
    for choices in RECIPES:
        steps = mini_steps(choices)
        for step in steps:
            text = " ".join(argument for command in step.commands for argument in command)
            for other in steps:
                if other is not step and "{out}/" + other.name + "/" in text:
                    assert other.name in step.after, (step.name, other.name)


def starts(choices, gpus, tmp_path):
    """What starts where, with steps that do nothing."""
    said = []
    # trainings that take long enough for others to start beside them
    nothing = {True: (("-c", "import time; time.sleep(0.4)"),), False: (("-c", "pass"),)}
    steps = [replace(s, commands=nothing[s.is_training], minutes=0.0, makes="") for s in mini_steps(choices)]
    config = PipelineConfig(gpus=gpu_names(gpus, "cpu"), poll_s=0.01)
    assert Pipeline(steps, tmp_path, config, said.append).run() == 0
    lines = [line.split() for line in said if " starts " in line]
    return {line[1]: line[-1] for line in lines}, [line.split()[1] for line in said if line.startswith("step ")]


def test_four_gpus_are_used_at_once(tmp_path):
    gpus, order = starts(MiniChoices(has_start=True), 4, tmp_path)
    first = [gpus[name].split(",") for name in ("vae", "depth", "base")]
    assert sorted(len(some) for some in first) == [1, 1, 2]
    assert len({gpu for some in first for gpu in some}) == 4
    assert len(gpus["student"].split(",")) >= 3, "the decoder may be sharpened beside it"
    assert gpus["pack"] == "GPU"
    assert order.index("pack") < order.index("table-drift") < order.index("table-world") < order.index("table")


def test_one_gpu_is_enough(tmp_path):
    gpus, order = starts(MiniChoices(), 1, tmp_path)
    assert {found for found in gpus.values() if found != "GPU"} == {"0"}
    assert order.index("vae") < order.index("base") < order.index("ablation") < order.index("student")


def test_trainings_of_several_gpus_go_through_torchrun():
    several = launched(("-m", "lyra_core.training", "video", "--out", "x"), 2)
    assert several[1:6] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    assert several[6:] == ["-m", "lyra_core.training", "video", "--out", "x"]
    assert launched(("-m", "lyra_core.training", "video"), 1)[1:] == ["-m", "lyra_core.training", "video"]
    assert launched(("-c", "pass"), 2)[1:] == ["-c", "pass"]


def test_patterns_of_files_become_the_files(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.json").touch()
    files = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    assert filled(["card", "{out}/*.json"], {"out": str(tmp_path)}) == ["card", *files]
    assert filled(["--merge={out}/*.json"], {"out": str(tmp_path)}) == [f"--merge={file}" for file in files]
    assert filled(["--merge={out}/*.txt", "--only=x*"], {"out": "/"}) == ["--merge=//*.txt", "--only=x*"]


def test_minutes_are_shorter_from_weights_and_scaled():
    def minutes(choices):
        return {step.name: step.minutes for step in mini_steps(choices)}

    fresh, start, half = (
        minutes(r) for r in (MiniChoices(), MiniChoices(has_start=True), MiniChoices(minutes_scale=0.5))
    )
    assert (fresh["vae"], fresh["base"], fresh["depth"]) == (7, 15, 22)
    assert (start["vae"], start["base"], start["depth"]) == (7, 7, 7)
    assert half["depth"] == 11


def test_gpus_are_those_that_may_be_seen(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert gpu_names(None, "cuda") == ("3", "5")
    assert gpu_names(1, "cuda") == ("3",)
    with pytest.raises(ConfigError, match="wanted 4 GPUs, found 2"):
        gpu_names(4, "cuda")


@pytest.mark.slow
def test_the_debugging_run_goes_through_and_is_not_run_twice(tmp_path, caplog):
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for name in ("a", "coffee_table"):
        Image.radial_gradient("L").convert("RGB").save(photographs / f"{name}.png")
    out, kept = tmp_path / "out", tmp_path / "kept"
    command = ["mini", "--debug", "--device", "cpu", "--gpus", "2", "--out", str(out), "--sync-to", str(kept)]
    command += ["--photographs", str(photographs), "--part-mib", "0.1"]
    assert main([*command, "--minutes-scale", "0.3"]) == 0
    names = [step.name for step in mini_steps(RECIPES[2])]
    assert all((out / name / "done.json").is_file() for name in names)
    assert set(read_components(out / "weights")) == {"vae", "video", "depth"}
    assert (kept / "weights" / "mini.json").is_file()
    assert (kept / "depth" / "weights.safetensors.part00").is_file()
    assert (kept / "student" / "summary.json").is_file()
    assert json.loads((out / "student" / "state.json").read_text())["progress"] == 1
    caplog.clear()
    caplog.set_level("INFO")
    assert main([*command, "--minutes-scale", "0.3", "--student-weight", "0.5"]) == 0
    started = [message for message in caplog.messages if " starts " in message]
    assert started == ["step pack starts without a GPU"]
