"""The models by name: where each is made, what it was made for, which weights it needs. A new model is one entry here.

No torch here: planning a batch reads it and loads no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from lyra_core.canvases import SIZES
from lyra_core.native import CHUNK_FRAMES, Native


@dataclass(frozen=True, slots=True, kw_only=True)
class RequiredSet:
    """One set of weights that a model loads.

    Attributes:
        role: what the model uses it for.
        sets: names of the sets that can play it, the preferred one first.
        stand_ins: sets that were made from one of these on this machine, and do where it is missing.
    """

    role: str
    sets: tuple[str, ...]
    stand_ins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """A model of this project.

    Attributes:
        home: its factory, imported when its name is asked for.
        native: what it was made for; a test compares it with the model.
        parts: the sets of weights it loads, from a folder of them.
        uses_device: it computes where it is told to, and not always on the CPU.
        group: which fields of a recipe are the choices of its video; None: it has none.
    """

    home: str
    native: Native
    parts: tuple[RequiredSet, ...] = ()
    uses_device: bool = True
    group: Literal["video", "cosmos"] | None = None


# Sets with the same architecture stand in for each other: those of Wan 2.1 are the originals, under Apache-2.0.
LYRA2_PARTS = (
    RequiredSet(role="dit", sets=("lyra2-dit",), stand_ins=("lyra2-dit-fast",)),
    RequiredSet(role="vae", sets=("lyra2-vae", "wan-vae")),
    RequiredSet(role="text", sets=("lyra2-text", "wan-text")),
    RequiredSet(role="negative prompt", sets=("lyra2-negative-prompt",)),
    RequiredSet(role="tokenizer", sets=("umt5-tokenizer",)),
    RequiredSet(role="image", sets=("lyra2-image", "wan-image")),
    RequiredSet(role="reconstruction", sets=("lyra2-recon",)),
)
APACHE_DEPTH_PARTS = (
    RequiredSet(role="depth", sets=("da3-base",)),
    RequiredSet(role="metric depth", sets=("da3metric-large",)),
)


def _cosmos3(name: str, factory: str, chunk_frames: int = 60) -> KnownModel:
    native = Native(
        size=(832, 480),
        side_step=16,
        min_side=192,
        sizes=SIZES,
        chunk_frames=chunk_frames,
        captions="captions of one or two sentences",
    )
    return KnownModel(
        home=f"lyra_core.cosmos.model:{factory}",
        native=native,
        parts=(RequiredSet(role="dit", sets=(name,)), *APACHE_DEPTH_PARTS),
        group="cosmos",
    )


MODELS: Mapping[str, KnownModel] = MappingProxyType(
    {
        "parallax": KnownModel(
            home="lyra_core.world_models.parallax:ParallaxModel",
            native=Native(size=(416, 240)),
            uses_device=False,
        ),
        "mini": KnownModel(
            home="lyra_core.world_models.mini:load_mini_model",
            native=Native(size=(224, 128), side_step=8, min_side=32, chunk_frames=CHUNK_FRAMES, prompt="a place"),
            group="video",
        ),
        "lyra2": KnownModel(
            home="lyra_core.world_models.lyra2:load_lyra2",
            native=Native(
                size=(832, 480),
                side_step=8,
                min_side=32,
                chunk_frames=CHUNK_FRAMES,
                captions="captions of 80 to 100 words",
            ),
            parts=LYRA2_PARTS,
            group="video",
        ),
        "parallax-da3": KnownModel(
            home="lyra_core.world_models.parallax_da3:load_parallax_da3",
            native=Native(size=(832, 480)),
            parts=APACHE_DEPTH_PARTS,
        ),
        "cosmos3-nano": _cosmos3("cosmos3-nano", "load_nano"),
        "cosmos3-super": _cosmos3("cosmos3-super", "load_super"),
        "cosmos3-super-i2v": _cosmos3("cosmos3-super-i2v", "load_super_i2v", 120),
        "cosmos3-super-i2v-4step": _cosmos3("cosmos3-super-i2v-4step", "load_super_i2v_4step", 120),
    }
)
