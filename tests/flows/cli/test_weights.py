"""lyra weights, as typed: one JSON document or a few lines, and exit codes."""

import json
from dataclasses import dataclass

import pytest
import torch

from flows.cli import app


@dataclass(frozen=True)
class Done:
    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture
def run(capsys):
    def type_command(*arguments):
        with pytest.raises(SystemExit) as left:
            app(["weights", *(str(argument) for argument in arguments)])
        return Done(left.value.code, *capsys.readouterr())

    return type_command


@pytest.fixture
def source(tmp_path):
    torch.save({"net.w": torch.ones(3, 2), "net.b": torch.zeros(3)}, tmp_path / "w.pth")
    return tmp_path / "w.pth"


def test_convert_then_verify(run, tmp_path, source):
    done = run("convert", source, tmp_path / "set", "--kind", "tensors", "--json")
    assert done.exit_code == 0
    content = json.loads(done.stdout)
    assert (content["tensors"], content["parameters"], content["kind"]) == (2, 9, "tensors")
    done = run("verify", tmp_path / "set")
    assert done.exit_code == 0
    assert content["digest"][:12] in done.stdout
    again = json.loads(run("verify", tmp_path / "set", "--json").stdout)
    assert again["digest"] == content["digest"]


def test_damage_is_exit_code_one_and_one_message(run, tmp_path, source):
    run("convert", source, tmp_path / "set", "--kind", "tensors")
    file = tmp_path / "set" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    done = run("verify", tmp_path / "set")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert "model.safetensors is damaged" in done.stderr
    assert done.stdout == ""
    done = run("verify", tmp_path / "set", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"]["type"] == "WeightsError"


def test_convert_of_a_known_set_checks_its_keys(run, tmp_path, source):
    done = run("convert", source, tmp_path / "set", "--name", "da3-small")
    assert done.exit_code == 1
    assert "443 missing" in done.stderr


@pytest.mark.parametrize("flags", [[], ["--name", "da3-small", "--kind", "tensors"]])
def test_convert_needs_one_of_name_and_kind(run, tmp_path, source, flags):
    assert run("convert", source, tmp_path / "set", *flags).exit_code == 2


@pytest.mark.parametrize("arguments", [["nothing"], ["verify"], ["fetch", "da3-small"]])
def test_usage_errors_are_exit_code_two(run, arguments):
    assert run(*arguments).exit_code == 2


def test_fetch_needs_the_license(run, tmp_path):
    done = run("fetch", "lyra2-dit", tmp_path)
    assert done.exit_code == 1
    assert "--accept-license nvidia-internal-research" in done.stderr


def test_describe_lists_all_sets(run):
    done = run("describe")
    assert done.exit_code == 0
    assert "nvidia/Lyra-2.0" in done.stdout
    content = json.loads(run("describe", "--json").stdout)
    assert content["licenses"][content["sets"]["lyra2-dit"]["license"]]["restricted"] is True


def test_describe_a_model(run):
    lines = run("describe", "lyra2").stdout.splitlines()
    assert any(line.split()[:4] == ["dit", "lyra2-dit", "1,435", "17,029,871,424"] for line in lines)
    content = json.loads(run("describe", "lyra2", "--json").stdout)
    assert content["parameters"] == sum(part["parameters"] or 0 for part in content["parts"])
    assert f"{content['parameters']:,} parameters" in lines[-1]
    assert json.loads(run("describe", "mini", "--json").stdout)["parts"][0]["role"] == "dit"
    assert "da3-base" in run("describe", "parallax-da3").stdout
    refused = run("describe", "parallax")
    assert refused.exit_code == 1
    assert "those are lyra2, parallax-da3, cosmos3-nano," in refused.stderr


def test_describe_one(run):
    done = run("describe", "da3-small")
    assert done.stdout.splitlines()[-1] == "443 tensors, 34,299,655 parameters"
    content = json.loads(run("describe", "da3-small", "--json").stdout)
    assert len(content["tensors"]) == 443
    assert run("describe", "nonsense").exit_code == 1
