"""Tiny Cosmos 3 weights, made once, and the library's own pipelines around the same networks."""

import importlib.util
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lyra_core.config.cosmos import CAMERA

MODELS = Path(__file__).resolve().parents[2] / "models"
sys.path.insert(0, str(Path(__file__).parent))  # cosmos_scene


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny tensors are computed faster by one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_network(monkeypatch):
    """Every connection is refused, and counted."""
    attempts = []

    def refuse(*address):
        attempts.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    return attempts


@pytest.fixture(scope="session")
def tiny():
    """The module tests/models/tiny_cosmos.py."""
    pytest.importorskip("diffusers")
    pytest.importorskip("accelerate")
    spec = importlib.util.spec_from_file_location("tiny_cosmos", MODELS / "tiny_cosmos.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def weights(tiny, tmp_path_factory) -> Path:
    """Converted sets of cosmos3-nano."""
    return tiny.write_weights(tmp_path_factory.mktemp("tiny-cosmos"))


@pytest.fixture(scope="session")
def options():
    """Two steps, 8 new frames a chunk, float32: seconds on a CPU."""
    return small(CAMERA)


def small(base, **changes):
    fields = {"chunk_frames": 8, "num_steps": 2, "transformer_dtype": "float32", "vae_dtype": "float32"}
    return replace(base, **{**fields, **changes})


@pytest.fixture(scope="session")
def shrink():
    """small(base, **changes): the choices above on another preset."""
    return small


@pytest.fixture(scope="session")
def checkpoint(weights):
    from lyra_core.cosmos.checkpoint import read_checkpoint

    return read_checkpoint(weights / "cosmos3-nano")


@pytest.fixture
def sample(checkpoint):
    """sample(options) -> the sampler of these weights and choices, and its components."""
    from lyra_core.cosmos.components import load_components
    from lyra_core.cosmos.pipeline import build_sampler

    def build(options, of=checkpoint):
        components = load_components(of, options, "cpu")
        return build_sampler(components, of, options), components

    return build
