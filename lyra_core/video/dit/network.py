"""The video network of Lyra 2: predicts the flow velocity of a chunk's latents from history,
cameras and captions.

    history latents, condition -- clean_patch_embeddings[segment] --+
    noisy latents, condition ---- patch_embedding ------------------+-> tokens
    timestep -- sinusoid -- time_embedding -> e -- time_projection -> e0   |
    caption --- text_embedding -+- k, v of each block                      |
    image ----- img_emb --------+                                          v
    rays ------ camera tokens -------- q, k bias of each block ---> blocks (e0) x num_layers
    maps ------ correspondence tokens -+                                   |
    slots ----- packed rotary positions                                    v
                                          velocity <- unpatchify <- head (e), generated tokens only

Only the noisy latents and the timestep change from step to step. `prepare_context` computes the
rest once per chunk (the reference implementation recomputes it in every block, step and guidance
branch); `forward` does what is left. `forward_reference` recomputes everything and is what tests
compare with.

Parameters carry the names of the released checkpoint, without its prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lyra_core.errors import RecipeError
from lyra_core.video.dit.attention import KeyValue
from lyra_core.video.dit.block import Block, Head, ImageEmbedding, Store, linear_fp32, time_sinusoid
from lyra_core.video.dit.config import LYRA2_14B, TINY, DiTConfig
from lyra_core.video.dit.context import ChunkInputs, PreparedContext
from lyra_core.video.dit.exchange import Share, Spread
from lyra_core.video.dit.layout import HistoryLayout
from lyra_core.video.dit.packing import (
    camera_tokens,
    correspondence_tokens,
    patchify,
    sinusoidal_features,
    unpatchify,
)
from lyra_core.video.dit.rope import Rotation, packed_angles
from lyra_core.video.dit.streaming import BlockStream
from lyra_core.video.dit.team import Team

__all__ = ["BOOKKEEPING_KEYS", "LYRA2_14B", "TINY", "DiT", "DiTConfig", "build_dit"]

# Training counters the released checkpoint carries beside its parameters; loaders drop them.
BOOKKEEPING_KEYS = frozenset(
    {
        "accum_video_sample_counter",
        "accum_image_sample_counter",
        "accum_iteration",
        "accum_train_in_hours",
    }
)

Step = Callable[..., Tensor]
"""Applies one block, as `step` does."""

# Tokens whose sine and cosine features exist at once: 8192 x 20480 values are 0.7 GB in fp32.
TOKENS_AT_ONCE = 8192


class DiT(nn.Module):
    """The network, for batches of any size and any counts of slots in the configured packing."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.step: Step = step  # a compiled one computes the same (lyra_core.video.dit.speed)
        self.store: Store = "squeezed"
        self.drops_history = False  # whether the last block leaves out tokens that nothing reads (another rounding)
        self.speed: str | None = None  # profile of lyra_core.video.dit.speed that was applied
        self.share: Share | None = None  # this process among several that make each chunk together
        self.team: Team | None = None  # the others, if this process leads them
        self.stream: BlockStream | None = None  # where blocks wait in host memory for their turn
        dim, patch_area = config.dim, config.patch**2
        self.patch_embedding = nn.Linear(config.content_channels * patch_area, dim)
        self.clean_patch_embeddings = nn.ModuleList(
            nn.Linear(config.content_channels * patch_area * t * h * w, dim)
            for t, h, w in (s.pooling for s in config.history_layout.segments)
        )
        if config.text_dim is not None:
            self.text_embedding = nn.Sequential(
                nn.Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
            )
        if config.image_dim is not None:
            self.img_emb = ImageEmbedding(config.image_dim, dim)
        self.time_embedding = nn.Sequential(nn.Linear(config.time_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(_build_block(config) for _ in range(config.num_layers))
        self.head = Head(dim, config.latent_channels * patch_area, config.eps)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, and of tokens between blocks."""
        return self.patch_embedding.weight.dtype

    @property
    def _layers(self) -> list[Block]:
        return cast("list[Block]", list(self.blocks))

    def _in_turn(self) -> Iterable[Block]:
        """The blocks one after another, each with its weights where it computes."""
        return self._layers if self.stream is None else self.stream.in_turn()

    def compile_blocks(self) -> None:
        """Compile the blocks in place (torch.compile); one compilation serves all of them."""
        for block in self.blocks:
            block.compile(fullgraph=True)

    # ---------------------------------------------------------------- once per chunk

    def prepare_context(
        self,
        inputs: ChunkInputs,
        *,
        layout: HistoryLayout | None = None,
        store: Store | None = None,
    ) -> PreparedContext:
        """Compute everything that does not depend on the noisy latents or the timestep.

        Args:
            inputs: the conditions of the chunk.
            layout: slots of this call, if their counts differ from the configuration's.
            store: "squeezed" keeps the narrow correspondence features of each block (0.8 GB at
                full size) and computes the bias from them at each step, 1.5 % of a forward; "full"
                keeps the biases (16 GB). None is the network's own choice, which a loader may set.

        Raises:
            FrameError: inputs whose slots do not fit the layout.
            RecipeError: a layout whose packing differs from the network's.
        """
        checked = self._checked_layout(inputs, layout)
        if self.team is None:
            return self._prepare(inputs, checked, store or self.store)
        with self.team.calls("prepare_context", inputs, layout, store):
            context = self._prepare(inputs, checked, store or self.store)
        self.team.captions = [context.text]
        return context

    def _prepare(self, inputs: ChunkInputs, layout: HistoryLayout, store: Store) -> PreparedContext:
        rows, columns = self._token_grid(inputs)
        spread = None if self.share is None else Spread.over(self.share, *layout.num_tokens(rows, columns))
        camera = camera_tokens(inputs.rays.to(self.dtype), layout, self.config.patch)
        camera = camera if spread is None else spread.own(camera)
        features = self._position_features(inputs, layout, camera, store, spread)
        angles = packed_angles(layout, rows, columns, self.config.head_dim, camera.device)
        angles = angles if spread is None else spread.own(angles, dim=0)
        history = self._embed_history(inputs, layout)
        return PreparedContext(
            layout=layout,
            latent_rows=inputs.history.shape[-2],
            latent_columns=inputs.history.shape[-1],
            history_tokens=history if spread is None else spread.own_history(history),
            generated_condition=inputs.condition[:, :, layout.num_history :].to(self.dtype),
            rotation=replace(Rotation.from_angles(angles), spread=spread),
            camera_tokens=camera if store == "squeezed" else None,
            position_features=features,
            text=() if inputs.text is None else self._project_text(inputs.text),
            image=() if inputs.image is None else self.prepare_image(inputs.image),
        )

    def prepare_text(self, text: Float[Tensor, "b s c"]) -> tuple[KeyValue, ...]:
        """Keys and values of a caption for every block; see PreparedContext.with_text."""
        if self.team is None:
            return self._project_text(text)
        with self.team.calls("prepare_text", text):
            captions = self._project_text(text)
        self.team.captions.append(captions)
        return captions

    def _project_text(self, text: Tensor) -> tuple[KeyValue, ...]:
        tokens = self.text_embedding(text.to(self.dtype))
        return tuple(block.cross_attn.project_text(tokens) for block in self._in_turn())

    def prepare_image(self, image: Float[Tensor, "b n c"]) -> tuple[KeyValue, ...]:
        """Keys and values of image tokens for every block."""
        tokens = self.img_emb(image.to(self.dtype))
        return tuple(block.cross_attn.project_image(tokens) for block in self._in_turn())

    def _embed_history(self, inputs: ChunkInputs, layout: HistoryLayout) -> Float[Tensor, "b l d"]:
        condition = inputs.condition[:, :, : layout.num_history]
        content = torch.cat((inputs.history.to(self.dtype), condition.to(self.dtype)), dim=1)
        segments = zip(self.clean_patch_embeddings, layout.segments, layout.slot_ranges, strict=False)
        tokens = [
            embed(patchify(content[:, :, slots.start : slots.stop], self._patch_of(segment.pooling)))
            for embed, segment, slots in segments
        ]
        empty = content.new_empty(content.shape[0], 0, self.config.dim)
        return torch.cat((empty, *tokens), dim=1)

    def _position_features(
        self, inputs: ChunkInputs, layout: HistoryLayout, camera: Tensor, store: Store, spread: Spread | None
    ) -> tuple[Tensor, ...]:
        maps = inputs.correspondence.to(self.dtype)
        tokens, validity = correspondence_tokens(maps, layout, self.config.patch)
        if spread is not None:
            tokens, validity = spread.own(tokens), spread.own(validity, dim=0)
        squeezed: list[list[Tensor]] = [[] for _ in self._layers]
        # The sine and cosine features are the widest tensor of the network: made once, for all
        # blocks, in pieces.
        for part, valid in zip(tokens.split(TOKENS_AT_ONCE, dim=1), validity.split(TOKENS_AT_ONCE), strict=True):
            waves = sinusoidal_features(part, self.config.correspondence_frequencies)
            for block, pieces in zip(self._layers, squeezed, strict=True):
                pieces.append(block.squeeze(waves, valid))
        features = (torch.cat(pieces, dim=1) for pieces in squeezed)
        if store == "squeezed":
            return tuple(features)
        pairs = zip(self._in_turn(), features, strict=True)
        return tuple(block.bias_from_squeezed(camera, feature) for block, feature in pairs)

    # ---------------------------------------------------------------- once per step

    def forward(
        self,
        latents: Float[Tensor, "b c t h w"],
        timestep: Tensor,
        context: PreparedContext,
    ) -> Float[Tensor, "b c t h w"]:
        """Predict the velocity noise - clean of the generated slots.

        Args:
            latents: noisy latents of the generated slots. [b 16 20 h w]
            timestep: 0 (clean) to 1000 (noise), one per item of the batch. [b]
            context: the prepared chunk.

        Returns:
            Velocity, float32. [b 16 20 h w]
        """
        if self.team is None:
            return self._predict(latents, timestep, context)
        with self.team.calls("forward", latents, timestep, self.team.number_of(context)):
            return self._predict(latents, timestep, context)

    def _predict(self, latents: Tensor, timestep: Tensor, context: PreparedContext) -> Float[Tensor, "b c t h w"]:
        generated = torch.cat((latents.to(self.dtype), context.generated_condition), dim=1)
        patches, spread = patchify(generated, self._patch_of((1, 1, 1))), context.rotation.spread
        embedded = self.patch_embedding(patches if spread is None else spread.own_generated(patches))
        x = torch.cat((context.history_tokens, embedded), dim=1)
        e, e0 = self.embed_time(timestep)

        num_wanted = x.shape[1] - context.history_tokens.shape[1] if self.drops_history else None
        for index, block in enumerate(self._in_turn()):
            last = num_wanted if index == len(self.blocks) - 1 else None
            text = context.text[index] if context.text else None
            image = context.image[index] if context.image else None
            feature = context.position_features[index]
            x = self._run(self.step, block, x, e0, feature, context.camera_tokens, context.rotation, text, image, last)

        return self._velocity(x, e, latents, spread)

    def forward_training(
        self,
        latents: Float[Tensor, "b c t h w"],
        timestep: Tensor,
        inputs: ChunkInputs,
        layout: HistoryLayout | None = None,
    ) -> Float[Tensor, "b c t h w"]:
        """`forward` for training, block by block: nothing that a block derives from its weights outlives its call.

        Args:
            latents: noisy latents of the generated slots. [b 16 20 h w]
            timestep: 0 (clean) to 1000 (noise), one per item of the batch. [b]
            inputs: the conditions of the chunk.
            layout: slots of this call, if their counts differ from the configuration's.

        Returns:
            Velocity, float32. [b 16 20 h w]

        Raises:
            FrameError: inputs whose slots do not fit the layout.
            RecipeError: a layout whose packing differs from the network's.
        """
        layout = self._checked_layout(inputs, layout)
        rows, columns = self._token_grid(inputs)
        condition = inputs.condition[:, :, layout.num_history :].to(self.dtype)
        generated = torch.cat((latents.to(self.dtype), condition), dim=1)
        embedded = self.patch_embedding(patchify(generated, self._patch_of((1, 1, 1))))
        x = torch.cat((self._embed_history(inputs, layout), embedded), dim=1)
        e, e0 = self.embed_time(timestep)
        camera = camera_tokens(inputs.rays.to(self.dtype), layout, self.config.patch)
        maps = inputs.correspondence.to(self.dtype)
        tokens, validity = correspondence_tokens(maps, layout, self.config.patch)
        octaves = self.config.correspondence_frequencies
        # in pieces, for their float32 temporaries; kept whole (1.6 GB at full size), for all blocks read them
        waves = torch.cat([sinusoidal_features(part, octaves) for part in tokens.split(TOKENS_AT_ONCE, dim=1)], dim=1)
        angles = packed_angles(layout, rows, columns, self.config.head_dim, camera.device)
        rotation = Rotation.from_angles(angles)
        text = None if inputs.text is None else self.text_embedding(inputs.text.to(self.dtype))
        image = None if inputs.image is None else self.img_emb(inputs.image.to(self.dtype))
        for block in self._layers:
            x = self._run(block.from_tokens, x, e0, rotation, camera, waves, validity, text, image)
        return self._velocity(x, e, latents)

    def embed_time(self, timestep: Tensor) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b 6 d"]]:
        """Time embedding and its projection, in fp32: they scale every channel of every token."""
        inner, outer = (cast("nn.Linear", self.time_embedding[i]) for i in (0, 2))
        projection = cast("nn.Linear", self.time_projection[1])
        sinusoid = time_sinusoid(timestep, self.config.time_dim)
        e = linear_fp32(outer, nn.functional.silu(linear_fp32(inner, sinusoid)))
        return e, linear_fp32(projection, nn.functional.silu(e)).unflatten(1, (6, -1))

    def _velocity(
        self, x: Tensor, e: Tensor, latents: Tensor, spread: Spread | None = None
    ) -> Float[Tensor, "b c t h w"]:
        frames, height, width = latents.shape[2:]
        rows, columns = -(-height // self.config.patch), -(-width // self.config.patch)
        count = frames * rows * columns if spread is None else spread.num_generated
        patches = self.head(x[:, x.shape[1] - count :], e)
        patches = patches if spread is None else spread.join_generated(patches)
        video = unpatchify(patches, frames, rows, columns, self.config.patch)
        return video[..., :height, :width]

    def _run(self, function: object, *arguments: object) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(function, *arguments, use_reentrant=False)
        return function(*arguments)  # type: ignore[operator]

    # ---------------------------------------------------------------- the plain reference

    def forward_reference(
        self,
        latents: Float[Tensor, "b c t h w"],
        timestep: Tensor,
        inputs: ChunkInputs,
        layout: HistoryLayout | None = None,
    ) -> Float[Tensor, "b c t h w"]:
        """`forward` with nothing prepared: every block derives bias, keys and rotation anew."""
        layout = self._checked_layout(inputs, layout)
        rows, columns = self._token_grid(inputs)
        condition = inputs.condition[:, :, layout.num_history :].to(self.dtype)
        generated = torch.cat((latents.to(self.dtype), condition), dim=1)
        embedded = self.patch_embedding(patchify(generated, self._patch_of((1, 1, 1))))
        x = torch.cat((self._embed_history(inputs, layout), embedded), dim=1)
        e, e0 = self.embed_time(timestep)
        patch, octaves = self.config.patch, self.config.correspondence_frequencies
        for block in self._layers:
            camera = camera_tokens(inputs.rays.to(self.dtype), layout, patch)
            maps = inputs.correspondence.to(self.dtype)
            tokens, validity = correspondence_tokens(maps, layout, patch)
            bias = block.bias_from_tokens(camera, tokens, validity, octaves)
            angles = packed_angles(layout, rows, columns, self.config.head_dim, x.device)
            text = image = None
            if inputs.text is not None:
                text = block.cross_attn.project_text(self.text_embedding(inputs.text.to(self.dtype)))
            if inputs.image is not None:
                image = block.cross_attn.project_image(self.img_emb(inputs.image.to(self.dtype)))
            x = block(x, e0, bias, Rotation.from_angles(angles), text, image)
        return self._velocity(x, e, latents)

    # ---------------------------------------------------------------- shapes

    def _patch_of(self, pooling: tuple[int, int, int]) -> tuple[int, int, int]:
        t, h, w = pooling
        return t, h * self.config.patch, w * self.config.patch

    def _token_grid(self, inputs: ChunkInputs) -> tuple[int, int]:
        height, width = inputs.history.shape[-2:]
        return -(-height // self.config.patch), -(-width // self.config.patch)

    def _checked_layout(self, inputs: ChunkInputs, layout: HistoryLayout | None) -> HistoryLayout:
        own = self.config.history_layout
        layout = layout or own
        packing = [(s.kind, s.factor) for s in layout.segments]
        if packing != [(s.kind, s.factor) for s in own.segments]:
            raise RecipeError(f"this network packs its history as '{own}' (counts may differ), found '{layout}'")
        inputs.require_slots(layout)
        inputs.require_tokens("text", self.config.text_dim)
        inputs.require_tokens("image", self.config.image_dim)
        return layout


def step(
    block: Block,
    x: Tensor,
    time: Tensor,
    feature: Tensor,
    camera: Tensor | None,
    rotation: Rotation,
    text: KeyValue | None,
    image: KeyValue | None,
    num_wanted: int | None,
) -> Tensor:
    """One block, with its bias made here so that checkpointing does not keep it."""
    bias = feature if camera is None else block.bias_from_squeezed(camera, feature)
    return block(x, time, bias, rotation, text, image, num_wanted)


def _build_block(config: DiTConfig) -> Block:
    block = Block(
        config.dim,
        config.num_heads,
        config.ffn_dim,
        config.eps,
        has_text=config.text_dim is not None,
        has_image=config.image_dim is not None,
    )
    block.add_position_encoders(
        config.ray_channels * config.patch**2,
        config.correspondence_channels * config.patch**2,
        config.correspondence_frequencies,
        config.squeeze_dim,
    )
    return block


def build_dit(
    config: DiTConfig,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | None = None,
) -> DiT:
    """Build the network on a device, initialised for training where a generator is given.

    Args:
        config: the widths.
        device: "meta" for shapes only (then load with `load_state_dict(..., assign=True)`).
        dtype: of the parameters.
        generator: draws the initial weights; without it all are zero, waiting to be loaded.
    """
    with torch.device("meta"):
        model = DiT(config).to(dtype)
    if torch.device(device).type != "meta":
        model = model.to_empty(device=device)
        if generator is None:
            for parameter in model.parameters():
                nn.init.zeros_(parameter)
        else:
            initialise(model, generator)
    return model


@torch.no_grad()
def initialise(model: DiT, generator: torch.Generator) -> None:
    """Draw the weights a training run starts from.

    Linear layers are Xavier-uniform with zero biases. What writes to the residual stream starts at
    zero (time projection, modulations, cross-attention output) as in "DiT", section 3.2
    (adaLN-Zero), and so does the head. The packed embeddings start as averages of the base
    embedding.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            zero = name in ("time_projection.1", "head.head") or name.endswith("cross_attn.o")
            if zero:
                nn.init.zeros_(module.weight)
            else:
                nn.init.xavier_uniform_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif not isinstance(module, nn.Sequential | nn.ModuleList):
            for key, parameter in module.named_parameters(recurse=False):
                nn.init.ones_(parameter) if key == "weight" else nn.init.zeros_(parameter)
    expand_patch_embedding(model)


@torch.no_grad()
def expand_patch_embedding(model: DiT) -> None:
    """Start every history embedding as the base patch embedding averaged over the latents it packs.

    Each weight is repeated over the packed frames, rows and columns and divided by their number,
    so that a constant block of latents embeds as one of its patches does.
    """
    base, patch = model.patch_embedding, model.config.patch
    kernel = base.weight.unflatten(1, (-1, 1, patch, patch))
    segments = model.config.history_layout.segments
    targets = cast("list[nn.Linear]", list(model.clean_patch_embeddings))
    for segment, target in zip(segments, targets, strict=True):
        t, h, w = segment.pooling
        wide = kernel.repeat_interleave(t, 2).repeat_interleave(h, 3).repeat_interleave(w, 4)
        target.weight.copy_(wide.flatten(1) / (t * h * w))
        target.bias.copy_(base.bias)
