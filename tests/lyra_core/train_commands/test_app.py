"""Options of `lyra train` become values; torchrun and the pipeline find the same commands; help is light."""

import subprocess
import sys
from pathlib import Path

import pytest

from lyra_core.errors import ConfigError
from lyra_core.train_commands.app import COMMANDS, main, parse
from lyra_core.train_commands.lyra2 import Lyra2Options
from lyra_core.train_commands.options import unwrapped

TIMED = ("--minutes", "1", "--out", "out")


def module(*arguments):
    """What torchrun and the steps of the pipeline start."""
    command = [sys.executable, "-m", "lyra_core.training", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_options_become_the_value_of_their_command():
    sharpen = parse(["vae", "--sharpen", "--gan-weight", "0.25", "--photographs", "photos", *TIMED])
    assert (sharpen.minutes, sharpen.out, sharpen.gan_weight) == (1.0, Path("out"), 0.25)
    assert (sharpen.sharpen, sharpen.lr) == (True, None)
    assert parse(["vae", *TIMED]).gan_weight == 0.5
    assert parse(["pack", "--student-weight", "0.6", "--run", "a", "--run", "b"]).run == [Path("a"), Path("b")]
    tuned = parse(["lyra2", "--data", "d", "--out", "o", "--steps", "4", "--learning-rate", "2", "--freeze", "a.*"])
    assert tuned == Lyra2Options(data=Path("d"), out=Path("o"), steps=4, lr=2.0, freeze=["a.*"])


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_help_of_every_command_has_an_example(command, capsys):
    assert main([command, "--help"]) == 0
    assert f"lyra train {command}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vae", "--out", "x"], "--minutes"),
        (["video", *TIMED, "--rate", "1"], "--rate"),
        (["mini", "--out", "x", "--device", "tpu"], "cuda"),
        (["nothing"], "nothing"),
    ],
)
def test_wrong_usage_is_told_with_status_2(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_the_module_runs_the_same_commands():
    done = module("pack")
    assert done.returncode == 1
    assert "pack wants weights" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(ConfigError, match="pack wants weights"):
        main(["pack"])


def test_help_does_not_wait_for_torch():
    code = (
        "import sys; from lyra_core.train_commands.app import main; main(['video', '--help']); "
        "sys.exit(len({'torch', 'numpy', 'numba'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--history-level" in done.stdout


def test_without_typer_the_extra_is_named():
    code = "import sys; sys.modules['typer'] = None; import lyra_core.train_commands.app"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'lyra-worlds[train]'" in done.stderr


def test_paragraphs_of_help_are_whole_lines():
    assert (
        unwrapped("One\n    two.\n\n    Examples:\n\n      lyra a\n      --b\n")
        == "One two.\n\nExamples:\n\n  lyra a --b"
    )
