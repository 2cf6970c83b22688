"""Ready samples of the video network on the device: made beside training, each looked at several times.

worlds, photographs -- render --> clips -- autoencoder, conditions --> rows by kind: i2v, plain, augmented
                                                                         | drawn in the shares of the mix
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lyra_core.procedural.chunks import ChunkMaker, ChunkRows
from lyra_core.procedural.clip_maker import ClipMaker

KINDS = ("i2v", "plain", "augmented")

Predict = Callable[[ChunkRows], Tensor]


class ChunkPool:
    """Samples by kind, partly replaced while training goes on."""

    def __init__(
        self,
        clips: ClipMaker,
        maker: ChunkMaker,
        capacity: int,
        clips_at_once: int,
    ) -> None:
        """Nothing is made yet.

        Args:
            clips: gives clips.
            maker: makes samples of them.
            capacity: samples kept, shared among kinds by the mix; 0 keeps none and makes every batch anew.
            clips_at_once: clips of one refill.
        """
        self.clips, self.maker, self.capacity, self.clips_at_once = clips, maker, capacity, clips_at_once
        self.rows: dict[str, ChunkRows] = {}
        self.filled = dict.fromkeys(KINDS, 0)
        self.cursor = dict.fromkeys(KINDS, 0)

    def make(self, predict: Predict | None, generator: torch.Generator) -> dict[str, ChunkRows]:
        """Samples of fresh clips: the first chunk, every chunk plain, and a later one after a made one."""
        truth = self.clips.draw(self.clips_at_once, generator)
        latents = self.maker.encode(truth.frames)
        known = self.maker.disturbed(truth, generator)
        chunks = self.maker.config.num_chunks
        chunk_rows = [self.maker.rows(known, latents, chunk, generator) for chunk in range(chunks)]
        rows = {"i2v": chunk_rows[0], "plain": joined_rows(chunk_rows)}
        if predict is not None and chunks > 1 and self.clips.mix.augmented > 0:
            chunk = int(torch.randint(1, chunks, (), generator=generator))
            rows["augmented"] = self.maker.self_augmented(known, latents, chunk, predict, generator)
        return rows

    def add(self, samples: dict[str, ChunkRows]) -> None:
        """Keep fresh samples, over the oldest where there is no more room."""
        for kind, fresh in samples.items():
            room = max(len(fresh), self.clips.mix.counts(self.capacity)[kind])
            if kind not in self.rows:
                self.rows[kind] = fresh.empty(room)
            at = (self.cursor[kind] + torch.arange(len(fresh))) % room
            self.rows[kind].write(at.to(fresh.history.device), fresh)
            self.cursor[kind] = (self.cursor[kind] + len(fresh)) % room
            self.filled[kind] = min(room, self.filled[kind] + len(fresh))

    def draw(self, batch: int, predict: Predict | None, generator: torch.Generator) -> ChunkRows:
        """A batch in the shares of the mix; kinds that are not there yet are replaced by plain ones."""
        source, filled = self.rows, self.filled
        if not self.capacity:
            source = self.make(predict, generator)
            filled = {kind: len(rows) for kind, rows in source.items()}
        parts = []
        for kind, count in self.clips.mix.counts(batch).items():
            from_kind = kind if filled.get(kind, 0) else "plain"
            at = torch.randint(filled[from_kind], (count,), generator=generator)
            parts.append(source[from_kind][at.to(source[from_kind].history.device)])
        return joined_rows(parts)


def joined_rows(parts: list[ChunkRows]) -> ChunkRows:
    """Samples one after the other."""
    names = ChunkRows.__dataclass_fields__
    return ChunkRows(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})
