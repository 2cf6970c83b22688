"""Golden vectors of the video model: the tiny network they belong to, and the scene behind those of the memory."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from lyra_core.video.dit.context import ChunkInputs
from lyra_core.video.dit.layout import HistoryLayout
from lyra_core.video.dit.network import BOOKKEEPING_KEYS, DiTConfig, build_dit

OFFICIAL_COUNTS = (1, 4, 1, 16, 2, 1)
SMALL_COUNTS = (1, 4, 1, 4, 2, 1)

# Matrices drawn rather than stored (tests/golden/README.md): first element in their stream.
DRAWN = {"img_emb.proj.1.weight": 311_664, "clean_patch_embeddings.3.weight": 2_020_144}


def rnd(seed, shape):
    draws = np.random.RandomState(seed).standard_normal(tuple(shape)).astype(np.float32)
    return torch.from_numpy(draws).bfloat16().float()


def relative_error(actual, wanted):
    wanted = wanted.detach().double().cpu()
    return float((actual.detach().double().cpu() - wanted).abs().max() / wanted.abs().max())


@dataclass
class GoldenDiT:
    config: DiTConfig
    state_dict: dict
    io: dict
    kinds: list
    factors: list

    def layout(self, counts, generated):
        triples = zip(counts, self.kinds, self.factors, strict=True)
        segments = "".join(f"f{count}{kind}{factor}" for count, kind, factor in triples)
        return HistoryLayout.parse(f"{segments}_g{generated}")

    def model(self, dtype=torch.float32, device="cpu"):
        model = build_dit(self.config, device=device, dtype=dtype)
        model.load_state_dict(self.state_dict)
        return model.eval().requires_grad_(False)

    def inputs(self, x, y, buffer, text, image, num_history):
        split = self.config.condition_channels
        return ChunkInputs(
            history=x[:, :, :num_history],
            condition=y[:, :split],
            rays=y[:, split:],
            correspondence=buffer,
            text=text,
            image=image,
        )

    def case_a(self):
        """Inputs, noisy latents, timestep and layout of the small case."""
        x = self.io["A.in.x"].float()
        b, _, slots, h, w = x.shape
        generated = int(self.io["A.gen_grid"][0])
        layout = self.layout(SMALL_COUNTS, generated)
        config = self.config
        y, buffer = self.io.get("A.in.y"), self.io.get("A.in.buffer")
        if y is None:
            channels = config.condition_channels + config.ray_channels - 4
            y = torch.cat((torch.ones(b, 4, slots, h, w), rnd(101, (b, channels, slots, h, w))), 1)
        if buffer is None:
            buffer = rnd(102, (b, config.correspondence_channels, slots, h, w)).tanh().bfloat16()
        text, image = self.io["A.in.ctx"].float(), self.io["A.in.clip"].float()
        inputs = self.inputs(x, y.float(), buffer.float(), text, image, layout.num_history)
        return inputs, x[:, :, layout.num_history :], self.io["A.in.timestep"][0], layout

    def case_b(self):
        """The same of the official layout."""
        config = self.config
        b, _, generated, h, w = self.io["B.out"].shape
        layout = self.layout(OFFICIAL_COUNTS, generated)
        size = (layout.num_slots, h, w)
        x = rnd(200, (b, config.latent_channels, *size))
        channels = config.condition_channels + config.ray_channels - 4
        y = torch.cat((torch.ones(b, 4, *size), rnd(201, (b, channels, *size))), dim=1)
        maps = rnd(202, (b, config.correspondence_channels, *size)).tanh().bfloat16().float()
        text = rnd(203, self.io["A.in.ctx"].shape)
        image = rnd(204, self.io["A.in.clip"].shape)
        inputs = self.inputs(x, y, maps, text, image, layout.num_history)
        return inputs, x[:, :, layout.num_history :], torch.tensor([500]), layout


@pytest.fixture(scope="session")
def golden_dit(golden_dir) -> GoldenDiT:
    path = golden_dir / "dit_tiny.safetensors"
    with safe_open(path, "pt") as file:
        metadata = {key: json.loads(text) for key, text in file.metadata().items()}
    args, weights = metadata["args"], load_file(path)
    factors, kinds = metadata["clean_kernel_sizes"], metadata["clean_kernel_types"]
    patch = args["patch_size"][1]
    triples = zip(OFFICIAL_COUNTS, kinds, factors, strict=True)
    config = DiTConfig(
        layout="".join(f"f{count}{kind}{factor}" for count, kind, factor in triples) + "_g20",
        latent_channels=args["out_dim"],
        condition_channels=args["in_dim"] - args["out_dim"],
        ray_channels=weights["blocks.0.cam_encoder.weight"].shape[1] // patch**2,
        correspondence_channels=args["buffer_in_dim"],
        correspondence_frequencies=args["buffer_sincos_multires"],
        squeeze_dim=args["buffer_mlp_squeeze_dim"],
        patch=patch,
        dim=args["dim"],
        ffn_dim=args["ffn_dim"],
        num_heads=args["num_heads"],
        num_layers=args["num_layers"],
        time_dim=args["freq_dim"],
        text_dim=args["text_dim"],
        image_dim=weights["img_emb.proj.0.weight"].shape[0],
        eps=args["eps"],
    )
    shapes = {key: value.shape for key, value in build_dit(config, device="meta").state_dict().items()}
    for key in sorted(set(DRAWN) - set(weights)):
        start, shape = DRAWN[key], shapes[key]
        stream = torch.randn(start + shape.numel(), generator=torch.Generator().manual_seed(1234))
        weights[key] = (stream[start:].reshape(shape) / shape[1] ** 0.5).bfloat16()
    return GoldenDiT(
        config=config,
        state_dict={k: v.float() for k, v in weights.items() if k not in BOOKKEEPING_KEYS},
        io=load_file(golden_dir / "dit_tiny_io.safetensors"),
        kinds=kinds,
        factors=factors,
    )


@pytest.fixture(scope="session")
def tiny_dit(golden_dit):
    return golden_dit.model()


@pytest.fixture(scope="session")
def assert_close():
    def check(actual, wanted, tolerance=1e-5):
        assert tuple(actual.shape) == tuple(wanted.shape)
        error = relative_error(actual, wanted)
        assert error <= tolerance, f"relative error {error:.3g}, wanted at most {tolerance:.3g}"

    return check


@pytest.fixture(scope="session")
def seeded():
    return rnd


def _depth_map(frame: int, height: int, width: int) -> Tensor:
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64),
        torch.arange(width, dtype=torch.float64),
        indexing="ij",
    )
    depth = 3 + 0.02 * x + 0.03 * y + 0.15 * torch.sin(0.3 * x + 0.1 * frame) * torch.cos(0.2 * y)
    left = 10 + (frame // 8) % 10
    depth[8:20, left : left + 14] = 1.8
    depth[0:3, 0:5] = 0
    return depth.float()


@pytest.fixture(scope="session")
def golden_depth():
    """Depth of some frames, [n h w]."""

    def build(frames, height: int, width: int) -> Tensor:
        return torch.stack([_depth_map(int(i), height, width) for i in frames])

    return build


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny tensors are computed faster by one thread, and by far where other processes share the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_world():
    """The module tiny_world.py beside this file."""
    spec = importlib.util.spec_from_file_location("tiny_world", Path(__file__).with_name("tiny_world.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
