"""Embeddings of captions, made once before training and read from files, so that the text encoder need not stay.

One file a caption, named by its digest, without the padding: about 1 MB each at full size instead of 11 GB of encoder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.errors import PromptError, WeightsError
from lyra_core.replacing import replacing

TENSOR = "embedding"


class CaptionStore:
    """Embeddings of known captions, from a folder; the empty caption has the embedding of the negative prompt."""

    def __init__(self, folder: Path, num_tokens: int, negative: Float[Tensor, "1 s d"]) -> None:
        """`num_tokens` is the length captions are padded to with zeros."""
        self.folder, self.num_tokens, self.negative = folder, num_tokens, negative

    def missing(self, captions: Sequence[str]) -> list[str]:
        """Captions without a file, each once, in order."""
        return [c for c in dict.fromkeys(captions) if c and not self._path(c).is_file()]

    @torch.no_grad()
    def add(self, captions: Sequence[str], encode: Callable[[Sequence[str]], Tensor]) -> None:
        """Embed captions one by one and keep them; `encode` gives [k s d], zero at padding."""
        from safetensors.torch import save_file

        for caption in captions:
            embedding = encode([caption])[0]
            used = embedding.abs().sum(-1) > 0
            length = int(used.nonzero().max()) + 1 if used.any() else 1
            with replacing(self._path(caption)) as path:
                save_file({TENSOR: embedding[:length].cpu().contiguous()}, str(path))

    def __call__(self, captions: Sequence[str]) -> Float[Tensor, "k s d"]:
        """Embeddings, padded.

        Raises:
            PromptError: a caption that was not embedded before.
            WeightsError: a file of another encoder.
        """
        rows = self.negative.new_zeros(len(captions), self.num_tokens, self.negative.shape[-1])
        for row, caption in zip(rows, captions, strict=True):
            embedding = self._read(caption) if caption else self.negative[0]
            if embedding.shape[-1] != row.shape[-1]:
                raise WeightsError(
                    f"{self.folder} should hold embeddings of width {row.shape[-1]}, found {embedding.shape[-1]}; it "
                    "belongs to another text encoder: remove it"
                )
            row[: len(embedding)] = embedding[: self.num_tokens].to(row)
        return rows

    def _read(self, caption: str) -> Tensor:
        from safetensors.torch import load_file

        path = self._path(caption)
        if not path.is_file():
            raise PromptError(f"the caption {caption[:60]!r} was not embedded before training; start the run again")
        return load_file(str(path))[TENSOR]

    def _path(self, caption: str) -> Path:
        return self.folder / f"{hashlib.sha256(caption.encode()).hexdigest()[:32]}.safetensors"
