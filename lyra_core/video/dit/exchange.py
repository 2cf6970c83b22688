"""One chunk's tokens on several processes: each keeps a share of them, and attention exchanges tokens for heads.

    tokens of this process, all heads --> all tokens, heads of this process --> attention --> tokens of this process

"Ulysses": Jacobs et al. 2023, arXiv:2309.14509, section 3. Shares and heads need not divide: some processes have one
more. Heads may go in groups, of which the next is exchanged while one attends.

Legend: b batch, l tokens of this process, d channels of a head.
"""

# ruff: noqa: ARG001

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.distributed import distributed_c10d

HEAD_GROUPS = 1
"""Groups that the heads of a process are exchanged in. With more, the exchange of one hides behind the attention of
another; on two H200 two groups took 0.3 to 1 % longer than one (docs/log.md)."""

Product = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention of query, key and value [b l heads d] with the heads this process has: [b l heads d]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A process among those that make one chunk together.

    Attributes:
        group: name of their process group.
        rank: which of them this is.
        size: how many they are.
    """

    group: str
    rank: int
    size: int

    @classmethod
    def of(cls, group: dist.ProcessGroup | None = None) -> Share:
        """This process in a group, or among all."""
        group = group or dist.group.WORLD
        if group is None:
            raise RuntimeError("processes share a chunk after torch.distributed.init_process_group, not before")
        return cls(group=group.group_name, rank=dist.get_rank(group), size=dist.get_world_size(group))


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How the tokens of a chunk are spread; a process holds a run of history tokens, then a run of generated ones.

    Attributes:
        share: this process.
        history: history tokens of each process.
        generated: generated tokens of each process.
    """

    share: Share
    history: tuple[int, ...]
    generated: tuple[int, ...]

    @classmethod
    def over(cls, share: Share, num_history: int, num_generated: int) -> Spread:
        """Even shares of both kinds of tokens."""
        return cls(
            share=share, history=even_parts(num_history, share.size), generated=even_parts(num_generated, share.size)
        )

    def own_history(self, x: Tensor, dim: int = 1) -> Tensor:
        """Of all history tokens, those of this process."""
        return x.narrow(dim, sum(self.history[: self.share.rank]), self.history[self.share.rank])

    def own_generated(self, x: Tensor, dim: int = 1) -> Tensor:
        """Of all generated tokens, those of this process."""
        return x.narrow(dim, sum(self.generated[: self.share.rank]), self.generated[self.share.rank])

    def own(self, x: Tensor, dim: int = 1) -> Tensor:
        """Of all tokens, those of this process."""
        past = sum(self.history)
        future = x.shape[dim] - past
        return torch.cat(
            (self.own_history(x.narrow(dim, 0, past), dim), self.own_generated(x.narrow(dim, past, future), dim)), dim
        )

    @property
    def num_generated(self) -> int:
        """Generated tokens of this process."""
        return self.generated[self.share.rank]

    def answering(self) -> list[int]:
        """Tokens of each process that hold keys and values: all."""
        return [h + g for h, g in zip(self.history, self.generated, strict=True)]

    def asking(self, *, generated_only: bool) -> list[int]:
        """Tokens of each process that hold queries."""
        return list(self.generated) if generated_only else self.answering()

    def attend(
        self, query: Float[Tensor, "b q heads d"], key: Tensor, value: Tensor, *, generated_only: bool = False
    ) -> Float[Tensor, "b q heads d"]:
        """Softmax attention of this process's queries to the keys of all processes."""
        asking = self.asking(generated_only=generated_only)
        mixed: Tensor = torch.ops.lyra.attend_across(query, key, value, asking, self.answering(), self.share.group)
        return mixed

    def gather(self, x: Tensor) -> Tensor:
        """The same tensor of each process, in the order of their ranks. [size ...]"""
        gathered: Tensor = torch.ops.lyra.gather_ranks(x, self.share.size, self.share.group)
        return gathered

    def join_generated(self, x: Float[Tensor, "b l c"]) -> Float[Tensor, "b generated c"]:
        """Generated tokens of all processes, in their order."""
        most = max(self.generated)
        parts = self.gather(torch.nn.functional.pad(x, (0, 0, 0, most - x.shape[1])))
        return torch.cat([part[:, :count] for part, count in zip(parts, self.generated, strict=True)], dim=1)


def even_parts(total: int, count: int) -> tuple[int, ...]:
    """Sizes of parts that differ by one at most, the larger ones first."""
    return tuple(total // count + (index < total % count) for index in range(count))


def _group_named(name: str) -> dist.ProcessGroup:
    return distributed_c10d._resolve_process_group(name)  # type: ignore[arg-type, unused-ignore]


def attend_plainly(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention of [b l heads d], by the framework's own choice of kernel."""
    q, k, v = (t.transpose(1, 2) for t in (query, key, value))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)


# The schemas are written out because the tests' shape checker hides the annotations.
@torch.library.custom_op(
    "lyra::attend_across",
    mutates_args=(),
    schema="(Tensor query, Tensor key, Tensor value, int[] asking, int[] answering, str group) -> Tensor",
)
def attend_across(
    query: Tensor, key: Tensor, value: Tensor, asking: list[int], answering: list[int], group: str
) -> Tensor:
    """See Spread.attend."""
    return exchanged((query, key, value), attend_plainly, asking, answering, group)


@attend_across.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, asking: list[int], answering: list[int], group: str) -> Tensor:
    return torch.empty_like(query, memory_format=torch.contiguous_format)


@torch.library.custom_op("lyra::gather_ranks", mutates_args=(), schema="(Tensor x, int size, str group) -> Tensor")
def gather_ranks(x: Tensor, size: int, group: str) -> Tensor:
    """See Spread.gather."""
    gathered = x.new_empty(size, *x.shape)
    dist.all_gather(list(gathered.unbind(0)), x.contiguous(), group=_group_named(group))
    return gathered


@gather_ranks.register_fake
def _(x: Tensor, size: int, group: str) -> Tensor:
    return x.new_empty(size, *x.shape)


def exchanged(
    tensors: tuple[Tensor, Tensor, Tensor],
    product: Product,
    asking: Sequence[int],
    answering: Sequence[int],
    group: str,
) -> Tensor:
    """Attention of tokens that are spread over processes.

    Args:
        tensors: query, key and value of this process. [b l heads d]
        product: attention of all tokens with some of the heads.
        asking: tokens of each process that hold queries.
        answering: tokens of each process that hold keys and values.
        group: name of the process group.

    Returns:
        The mixed values of this process's queries, all heads. [b l heads d]
    """
    query = tensors[0]
    trade = _Trade(_group_named(group), query.shape[2])
    counts = (asking, answering, answering)
    arrivals = [
        [trade.send_tokens(t, c, part) for t, c in zip(tensors, counts, strict=True)] for part in range(trade.num_parts)
    ]
    returns = []
    for part, arriving in enumerate(arrivals):
        mixed = product(*(arrival() for arrival in arriving))
        returns.append(trade.send_heads(mixed, asking, part))
    out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    for come_home in returns:
        come_home(out)
    return out


class _Trade:
    """Exchanges of one call: which heads go where, and in how many parts."""

    def __init__(self, group: dist.ProcessGroup, num_heads: int) -> None:
        self.group = group
        self.rank, size = dist.get_rank(group), dist.get_world_size(group)
        heads = even_parts(num_heads, size)
        self.num_parts = max(1, min(HEAD_GROUPS, *heads))
        starts = [0, *accumulate(heads)]
        # for each part and each process, the heads of that process that go in this part
        self.heads: list[list[slice]] = [[] for _ in range(self.num_parts)]
        for start, count in zip(starts, heads, strict=False):
            edges = [start, *(start + edge for edge in accumulate(even_parts(count, self.num_parts)))]
            for part in range(self.num_parts):
                self.heads[part].append(slice(edges[part], edges[part + 1]))

    def send_tokens(self, x: Tensor, counts: Sequence[int], part: int) -> Callable[[], Tensor]:
        """Give the others their heads of this process's tokens; what comes is [b all heads d] once it is asked for."""
        b, _, _, d = x.shape
        pieces = [x[:, :, heads] for heads in self.heads[part]]
        own = self._num_heads(part, self.rank)
        received, wait = self._exchange(pieces, [b * count * own * d for count in counts])

        def arrival() -> Tensor:
            wait()
            if b == 1:
                return received.view(1, -1, own, d)
            arrived = received.split([b * count * own * d for count in counts])
            return torch.cat([t.view(b, -1, own, d) for t in arrived], dim=1)

        return arrival

    def send_heads(self, mixed: Tensor, counts: Sequence[int], part: int) -> Callable[[Tensor], None]:
        """Give the others this process's heads of their tokens; what comes is written where it belongs."""
        b, _, _, d = mixed.shape
        pieces = list(mixed.split(list(counts), dim=1))
        widths = [self._num_heads(part, rank) for rank in range(len(counts))]
        sizes = [b * counts[self.rank] * width * d for width in widths]
        received, wait = self._exchange(pieces, sizes)

        def come_home(out: Tensor) -> None:
            wait()
            for heads, width, piece in zip(self.heads[part], widths, received.split(sizes), strict=True):
                out[:, :, heads] = piece.view(b, -1, width, d)

        return come_home

    def _num_heads(self, part: int, rank: int) -> int:
        heads = self.heads[part][rank]
        return heads.stop - heads.start

    def _exchange(self, pieces: list[Tensor], sizes: list[int]) -> tuple[Tensor, Callable[[], object]]:
        """One piece to each process, and what comes from each, end to end; to be read after the wait."""
        first = pieces[0]
        sent = torch.empty(sum(piece.numel() for piece in pieces), dtype=first.dtype, device=first.device)
        parts = sent.split([piece.numel() for piece in pieces])
        for room, piece in zip(parts, pieces, strict=True):
            room.view(piece.shape).copy_(piece)
        received = torch.empty(sum(sizes), dtype=first.dtype, device=first.device)
        as_bytes = first.dtype.itemsize == 1
        work = dist.all_to_all_single(
            received.view(torch.uint8) if as_bytes else received,
            sent.view(torch.uint8) if as_bytes else sent,
            output_split_sizes=sizes,
            input_split_sizes=[piece.numel() for piece in pieces],
            group=self.group,
            async_op=True,
        )
        return received, work.wait
