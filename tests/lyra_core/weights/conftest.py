"""Tiny weight files, written by the same libraries that wrote the released ones."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn


class Toy(nn.Module):
    """Two blocks with the structure, not the size, of a transformer; bf16, fp32 and integers."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv3d(2, 6, (1, 2, 2))
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "q": nn.Linear(6, 6),
                    "ffn": nn.Sequential(nn.Linear(6, 10), nn.GELU(), nn.Linear(10, 6)),
                }
            )
            for _ in range(2)
        )
        self.norm = nn.LayerNorm(6)
        self.register_buffer("steps", torch.tensor(7))


@pytest.fixture
def toy() -> Toy:
    module = Toy()
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    module.to(torch.bfloat16)
    module.norm.float()
    return module


@pytest.fixture
def meta_toy() -> Toy:
    with torch.device("meta"):
        return Toy()


@pytest.fixture
def toy_state(toy) -> dict[str, torch.Tensor]:
    return dict(toy.state_dict())


@pytest.fixture
def save_distributed():
    return _save_distributed


def _save_distributed(state: dict[str, torch.Tensor], directory: Path) -> Path:
    """A distributed checkpoint like the released one: prefix, and an entry without content."""
    content: dict[str, object] = {f"net.{name}": tensor for name, tensor in state.items()}
    content["net.blocks.0.attn_op._extra_state"] = io.BytesIO(b"nothing")
    dcp.save(content, checkpoint_id=str(directory), no_dist=True)
    return directory


@pytest.fixture
def payload():
    return Payload


class Payload:
    """Runs a call when unpickled the usual way."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


@pytest.fixture
def save_zip_with():
    return _save_zip_with


def _save_zip_with(payload: object, path: Path) -> Path:
    """A file like torch.save makes, around a pickle of our choice."""
    with zipfile.ZipFile(path, "w") as container:
        container.writestr("archive/data.pkl", pickle.dumps(payload, protocol=2))
        container.writestr("archive/byteorder", "little")
        container.writestr("archive/data/0", b"\0" * 8)
        container.writestr("archive/version", "3\n")
    return path


@pytest.fixture
def require_same():
    return _require_same


def _require_same(found, wanted) -> None:
    assert set(found) == set(wanted)
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert torch.equal(found[name], tensor), name
