"""Posed RGB-D frames as a torch IterableDataset: sharded, shuffled by a seed, resumed exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from lyra_core.canonical_json import canonical_json
from lyra_core.dataset.order import Shard, epoch_order, part_bounds, pools
from lyra_core.dataset.sources import FrameSource, Picture, WorldEntry
from lyra_core.errors import CatalogError, ConfigError

DTYPES = ("uint8", "float32")


@dataclass(slots=True, kw_only=True)
class _Progress:
    """Where an epoch stands: for each of `num_workers` shards how many samples it gave, and whose turn is next."""

    epoch: int = 0
    num_workers: int = 1
    turn: int = 0
    done: dict[int, int] = field(default_factory=dict)


class PosedFrames(IterableDataset[dict[str, Any]]):
    """Frames of worlds with their cameras; made by `WorldSet.frames`, which explains the options.

    A sample holds
        image: [3 h w] uint8 of 0 to 255, or float32 of 0 to 1
        depth: z-depth of the splats' surface in world units, 0 where there is none. [h w] float32, where asked for
        intrinsics: px of this image, centres at +0.5. [3 3] float32
        cam_to_world: OpenCV camera to world, world units. [4 4] float32
        world_id, seed_id (SHA-256 of the photograph's file), path (of rendered frames, else ""), frame
        meters_per_unit, scale_confidence (NaN where unknown), metric_scale_source ("relative": nothing measured metres)

    Every frame comes once an epoch, in one rank and in one worker of its DataLoader. Call `set_epoch` before each
    epoch for another order. A checkpoint keeps `state_dict()` where the data set is read in this process or by
    torchdata's StatefulDataLoader, and `state_after(...)` where a plain DataLoader with workers reads it, which only
    its user can count.

    Raises:
        CatalogError: no worlds, worlds without frames, or of several sizes while `size` is None.
        ConfigError: an impossible option.
    """

    def __init__(
        self,
        source: FrameSource,
        entries: Sequence[WorldEntry],
        *,
        dtype: str,
        every: int,
        seed: int | None,
        shard: tuple[int, int] | None,
    ) -> None:
        super().__init__()
        paths, size = source.paths, source.size
        self._require(entries, dtype, size, every)
        self._rank, self._num_ranks = _here() if shard is None else shard
        if not 0 <= self._rank < self._num_ranks:
            raise ConfigError(f"a shard is a rank and the number of ranks, such as (0, 8), found {shard}")
        self._entries, self._dtype, self._every, self._seed = list(entries), dtype, every, seed
        names = ("",) if paths is None else paths.names
        self._items = [(entry, name) for entry in self._entries for name in names]
        self._counts = [e.num_frames or 0 if paths is None else paths.num_frames for e, _ in self._items]
        self._source = source
        told = [[e.world_id for e in entries], list(names), self._counts, every, seed, self._rank, self._num_ranks]
        self._fingerprint = hashlib.sha256(canonical_json(told).encode()).hexdigest()[:16]
        # Shared, so that workers that live for several epochs see the next one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._progress = _Progress()

    @property
    def num_samples(self) -> int:
        """Samples that this rank gives in an epoch; those of other ranks differ by one at most."""
        start, stop = part_bounds(self._total, self._rank, self._num_ranks)
        return stop - start

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration shows. A state that was loaded counts for its own epoch only."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        worker, num_workers = (0, 1) if info is None else (info.id, info.num_workers)
        epoch = int(self._epoch)
        resumed = self._progress if self._progress.epoch == epoch else _Progress(epoch=epoch)
        if resumed.done and resumed.num_workers != num_workers:
            raise ConfigError(
                f"the state was saved with {resumed.num_workers} worker processes and cannot go on with {num_workers}: "
                f"set num_workers={resumed.num_workers}, or 0 for one that was saved with 1 or 0"
            )
        number = (worker + resumed.turn) % num_workers
        shard = Shard(rank=self._rank, num_ranks=self._num_ranks, worker=number, num_workers=num_workers)
        done = resumed.done.get(number, 0)
        self._progress = _Progress(epoch=epoch, num_workers=num_workers, turn=resumed.turn, done={number: done})
        items, frames = epoch_order(self._counts, every=self._every, seed=self._seed, epoch=epoch)
        skipped = done
        for places in pools(*shard.bounds(len(items)), seed=self._seed, epoch=epoch):
            if skipped >= len(places):
                skipped -= len(places)
                continue
            left = places[skipped:]
            skipped = 0
            loaded = self._load(items[left].tolist(), frames[left].tolist())
            for place in left.tolist():
                self._progress.done[number] += 1
                item, frame = int(items[place]), int(frames[place])
                yield self._sample(item, frame, loaded.pop((item, frame))())
        # An epoch that was read to its end starts anew.
        self._progress = _Progress(epoch=epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where this process stands: after loading it, the next iteration goes on with the sample that is due."""
        progress = self._progress
        return {
            "fingerprint": self._fingerprint,
            "epoch": progress.epoch,
            "num_workers": progress.num_workers,
            "turn": progress.turn,
            "done": {str(number): count for number, count in progress.done.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a state was saved.

        Raises:
            ConfigError: it is of other worlds, another order or another rank.
        """
        if state.get("fingerprint") != self._fingerprint:
            raise ConfigError(
                "the state belongs to other worlds, another seed, stride or rank; open the data set as it was, with "
                "its version= and conditions"
            )
        self._progress = _Progress(
            epoch=int(state["epoch"]),
            num_workers=int(state["num_workers"]),
            turn=int(state["turn"]),
            done={int(number): int(count) for number, count in state["done"].items()},
        )
        self._epoch.fill_(int(state["epoch"]))

    def state_after(
        self, batches: int, *, batch_size: int, num_workers: int, drop_last: bool = False
    ) -> dict[str, Any]:
        """The state of a plain DataLoader after so many batches of this epoch, counted from its beginning.

        A DataLoader takes batches from its workers in turn, so their number tells where each worker stands. After the
        last batch it is the beginning of the next epoch.

        Args:
            batches: that were used.
            batch_size: of the DataLoader.
            num_workers: of the DataLoader.
            drop_last: of the DataLoader.

        Raises:
            ConfigError: a negative count, or no positive batch size.
        """
        if batches < 0 or batch_size < 1 or num_workers < 0:
            raise ConfigError(f"wanted counts of batches, found {batches} of {batch_size} by {num_workers} workers")
        workers, samples = max(1, num_workers), self.num_samples
        sizes = [stop - start for start, stop in (part_bounds(samples, w, workers) for w in range(workers))]
        wanted = [size // batch_size if drop_last else -(-size // batch_size) for size in sizes]
        given, turn = [0] * workers, 0
        epoch, left = int(self._epoch), batches
        if batches >= sum(wanted):
            epoch, left = epoch + 1, 0
        while left:
            if given[turn] < wanted[turn]:
                given[turn] += 1
                left -= 1
            turn = (turn + 1) % workers
        done = {str(w): min(count * batch_size, sizes[w]) for w, count in enumerate(given)}
        return {
            "fingerprint": self._fingerprint,
            "epoch": epoch,
            "num_workers": workers,
            "turn": turn,
            "done": done if batches and epoch == int(self._epoch) else {},
        }

    @property
    def _total(self) -> int:
        return sum(-(-count // self._every) for count in self._counts)

    @staticmethod
    def _require(entries: Sequence[WorldEntry], dtype: str, size: tuple[int, int] | None, every: int) -> None:
        if dtype not in DTYPES:
            raise ConfigError(f"dtype of images: wanted one of {', '.join(DTYPES)}, found {dtype!r}")
        if every < 1 or (size is not None and (len(size) != 2 or min(size) < 1)):
            raise ConfigError(f"wanted every >= 1 and a size (height, width), found {every} and {size}")
        if not entries:
            raise CatalogError("no world is left to read frames of; loosen the conditions or the split")
        sizes = sorted({(e.height or 0, e.width or 0) for e in entries})
        if size is None and len(sizes) > 1:
            raise CatalogError(
                f"worlds of {len(sizes)} sizes do not fit into one batch, found (height, width) {sizes[:5]}; choose "
                "one with where(...), or resize with size=(height, width)"
            )

    def _load(self, items: list[int], frames: list[int]) -> dict[tuple[int, int], Callable[[], Picture]]:
        wanted: dict[int, list[int]] = {}
        for item, frame in zip(items, frames, strict=True):
            wanted.setdefault(item, []).append(frame)
        return {
            (item, frame): picture
            for item, numbers in wanted.items()
            for frame, picture in self._source.load(*self._items[item], sorted(numbers))
        }

    def _sample(self, item: int, frame: int, picture: Picture) -> dict[str, Any]:
        entry, path = self._items[item]
        image = torch.from_numpy(picture.image).permute(2, 0, 1)
        sample: dict[str, Any] = {
            "image": image.contiguous() if self._dtype == "uint8" else image.float() / 255,
            "intrinsics": picture.intrinsics.float(),
            "cam_to_world": picture.cam_to_world.float(),
            "world_id": entry.world_id,
            "seed_id": entry.seed_sha256 or "",
            "path": path,
            "frame": frame,
            "meters_per_unit": float("nan") if entry.meters_per_unit is None else entry.meters_per_unit,
            "metric_scale_source": entry.metric_scale_source or "relative",
            "scale_confidence": float("nan") if entry.scale_confidence is None else entry.scale_confidence,
        }
        if picture.depth is not None:
            sample["depth"] = picture.depth
        return sample


def _here() -> tuple[int, int]:
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
