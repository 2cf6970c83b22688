"""What a chunk is conditioned on, as given (`ChunkInputs`) and as prepared once for all steps
(`PreparedContext`).

Legend: b batch, t history and generated slots, h w latent rows and columns, l tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.errors import FrameError
from lyra_core.video.dit.attention import KeyValue
from lyra_core.video.dit.layout import HistoryLayout
from lyra_core.video.dit.rope import Rotation


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkInputs:
    """Everything the network is told about one chunk, on the latent grid. Any float dtype.

    Attributes:
        history: clean latents of the history slots. [b 16 history h w]
        condition: mask (4 channels of ones) and condition latents (16), all slots. [b 20 t h w]
        rays: camera centre and ray direction, pixel-shuffled, all slots. [b 384 t h w]
        correspondence: canonical coordinates, pixel-shuffled, all slots. [b 1280 t h w]
        text: caption embedding, zeros past its end. [b 512 4096], or None for a network without
            text
        image: CLIP tokens of the last history frame. [b 257 1280], or None for a network without
            an image branch
    """

    history: Float[Tensor, "b c history h w"]
    condition: Float[Tensor, "b m t h w"]
    rays: Float[Tensor, "b r t h w"]
    correspondence: Float[Tensor, "b q t h w"]
    text: Float[Tensor, "b s text_dim"] | None = None
    image: Float[Tensor, "b n image_dim"] | None = None

    def require_slots(self, layout: HistoryLayout) -> None:
        """Check the number of slots.

        Raises:
            FrameError: a tensor has more or fewer slots than the layout.
        """
        slots = {
            "history": (self.history, layout.num_history),
            "condition": (self.condition, layout.num_slots),
            "rays": (self.rays, layout.num_slots),
            "correspondence": (self.correspondence, layout.num_slots),
        }
        for name, (tensor, wanted) in slots.items():
            if tensor.shape[2] != wanted:
                raise FrameError(f"the layout '{layout}' needs {name} with {wanted} slots, found {tensor.shape[2]}")

    def require_tokens(self, name: Literal["text", "image"], width: int | None) -> None:
        """Check that tokens are given where, and only where, the network has a width for them.

        Raises:
            FrameError: tokens are missing, superfluous or of another width.
        """
        tokens = self.text if name == "text" else self.image
        width_found = None if tokens is None else int(tokens.shape[-1])
        if width_found != width:
            wanted = "none" if width is None else f"width {width}"
            raise FrameError(f"{name} tokens: the network wants {wanted}, found {width_found or 'none'}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedContext:
    """What stays the same over all steps and guidance branches of one chunk.

    Attributes:
        layout: the slots.
        latent_rows: latent rows of a frame.
        latent_columns: latent columns of a frame.
        history_tokens: content tokens of the history. [b past d]
        generated_condition: condition channels of the generated slots. [b m new h w]
        rotation: rotary positions of all tokens.
        camera_tokens: kept where blocks recompute their q, k bias from it. [b l c], or None
        position_features: for each block the squeezed correspondence, or the whole bias where
            camera_tokens is None.
        text: for each block the keys and values of the caption; empty without text.
        image: for each block the keys and values of the image tokens; empty without an image
            branch.
    """

    layout: HistoryLayout
    latent_rows: int
    latent_columns: int
    history_tokens: Float[Tensor, "b past d"]
    generated_condition: Float[Tensor, "b m new h w"]
    rotation: Rotation
    camera_tokens: Float[Tensor, "b l c"] | None
    position_features: tuple[Tensor, ...]
    text: tuple[KeyValue, ...]
    image: tuple[KeyValue, ...]

    def with_text(self, text: tuple[KeyValue, ...]) -> PreparedContext:
        """The same chunk under another caption; everything else is shared, not copied."""
        return replace(self, text=text)

    def with_both(self, other: tuple[KeyValue, ...]) -> PreparedContext:
        """A batch of two: the chunk under its caption, then under another; nothing but the captions is copied.

        The chunk itself must be a batch of one.
        """

        def twice(x: Tensor) -> Tensor:
            return x.expand(2, *x.shape[1:])

        def joined(own: KeyValue, away: KeyValue) -> KeyValue:
            return KeyValue(key=torch.cat((own.key, away.key)), value=torch.cat((own.value, away.value)))

        return replace(
            self,
            history_tokens=twice(self.history_tokens),
            generated_condition=twice(self.generated_condition),
            camera_tokens=None if self.camera_tokens is None else twice(self.camera_tokens),
            position_features=tuple(twice(feature) for feature in self.position_features),
            text=tuple(joined(*pair) for pair in zip(self.text, other, strict=True)),
            image=tuple(KeyValue(key=twice(memory.key), value=twice(memory.value)) for memory in self.image),
        )
