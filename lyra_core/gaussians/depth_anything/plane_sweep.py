"""How well each view agrees with the others at each of some depths: the evidence that parallax gives of depth.

A small network does not learn in minutes to find correspondences by attention alone; a plane sweep (Collins 1996, "A
space-sweep approach to true multi-image matching"; as a layer, Yao et al. 2018, MVSNet, section 3.2) hands them over.

On a GPU all pairs of cells are correlated once and looked up at each depth (as in Teed and Deng 2020, RAFT, section
3.2): a lookup of one number in place of 32, which matters backwards, where every lookup is an atomic addition.

Shape legend: b scenes, v views, c channels, d planes, h w cells of the feature maps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from lyra_core.geometry.rotation import invert_rigid

MIN_Z = 1e-3


def log_planes(num_planes: int, nearest: float, farthest: float, device: torch.device | str) -> Float[Tensor, " d"]:
    """Natural logarithms of depths at equal ratios, in units of the scene."""
    ends = torch.tensor([nearest, farthest]).log()
    return torch.linspace(float(ends[0]), float(ends[1]), num_planes, device=device)


@lru_cache(maxsize=16)
def _sources_on(num_views: int, num_sources: int, device: torch.device) -> Tensor:
    return choose_sources(num_views, num_sources).to(device)


def choose_sources(num_views: int, num_sources: int) -> Int[Tensor, "v s"]:
    """For each view the others it is compared with, spread evenly over the window; fewer if there are fewer."""
    count = min(num_sources, num_views - 1)
    rows = []
    for view in range(num_views):
        others = torch.tensor([i for i in range(num_views) if i != view])
        picked = torch.linspace(0, len(others) - 1, count + 2)[1:-1] if count < len(others) else torch.arange(count)
        rows.append(others[picked.round().long()])
    return torch.stack(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How alike a cell and what other views show at each depth are, from -1 to 1.

    Attributes:
        mean: over the views that show the place; 0 where none does.
        best: of those views, because the place may be hidden in some; 0 where none shows it.
    """

    mean: Float[Tensor, "b v d h w"]
    best: Float[Tensor, "b v d h w"]


class PlaneSweep:
    """Compares each view's cells with other views at whatever depths one asks for.

    Args:
        features: of unit length along c.
        world_to_cam: lengths in units of the scene.
        intrinsics: in cells of the feature maps, centres at +0.5. A tensor of pixels has to be scaled first.
        num_sources: views each view is compared with.
        all_pairs: correlate all pairs of cells first; None does so where a GPU learns.
    """

    def __init__(
        self,
        features: Float[Tensor, "b v c h w"],
        world_to_cam: Float[Tensor, "b v 4 4"],
        intrinsics: Float[Tensor, "b v 3 3"],
        num_sources: int,
        *,
        all_pairs: bool | None = None,
    ) -> None:
        b, v, _, h, w = features.shape
        self.size, device = (b, v, h, w), features.device
        self.sources = _sources_on(v, num_sources, device)
        self.features = features.float()
        self.pairs: list[Tensor] | None = None
        y, x = torch.meshgrid(torch.arange(h, device=device) + 0.5, torch.arange(w, device=device) + 0.5, indexing="ij")
        # Geometry in fp32: under autocast a pixel's place would be rounded to a few cells.
        with torch.autocast(device.type, enabled=False):
            K, w2c = intrinsics.float(), world_to_cam.float()
            K_ = K[..., None, None]
            sides = [(x - K_[:, :, 0, 2]) / K_[:, :, 0, 0], (y - K_[:, :, 1, 2]) / K_[:, :, 1, 1]]
            rays = torch.stack([*sides, torch.ones_like(sides[0])], 2).flatten(3)  # [b v 3 n]
            relative = w2c[:, self.sources] @ invert_rigid(w2c, None)[:, :, None]  # [b v s 4 4]
            others = K[:, self.sources]
            self.along = (others @ relative[..., :3, :3]) @ rays[:, :, None]  # [b v s 3 n]
            self.shift = others @ relative[..., :3, 3:]  # [b v s 3 1]
            if all_pairs or (all_pairs is None and features.is_cuda and features.requires_grad):
                flat = self.features.flatten(3)
                self.pairs = [
                    (flat.mT @ flat.index_select(1, self.sources[:, s])).reshape(b * v * h * w, 1, h, w)
                    for s in range(self.sources.shape[1])
                ]

    def at(self, log_depths: Float[Tensor, " d"] | Float[Tensor, "b v d h w"]) -> Agreement:
        """Agreement at the same depths for all cells, or at depths of each cell's own.

        Args:
            log_depths: natural logarithms of units of the scene.
        """
        b, v, h, w = self.size
        depths = log_depths.float().exp()
        depths = depths.reshape(1, 1, -1, 1) if depths.ndim == 1 else depths.flatten(3)
        shape = (b, v, depths.shape[2], h * w)
        total = self.features.new_zeros(shape)
        seen = torch.zeros_like(total)
        best = torch.full_like(total, -1.0)
        with torch.autocast(total.device.type, enabled=False):
            for s in range(self.sources.shape[1]):
                along, shift = self.along[:, :, s, :, None], self.shift[:, :, s, :, None]  # [b v 3 1 n], [b v 3 1 1]
                place = along * depths[:, :, None] + shift  # [b v 3 d n]
                z = place[:, :, 2]
                ahead = z.clamp_min(MIN_Z)
                grid = torch.stack(
                    [2.0 * place[:, :, 0] / (ahead * w) - 1.0, 2.0 * place[:, :, 1] / (ahead * h) - 1.0], -1
                )
                inside = (z > MIN_Z) & (grid.abs() <= 1.0).all(-1)
                alike = self._look(s, grid.clamp(-2.0, 2.0))
                total = total + torch.where(inside, alike, 0.0)
                best = torch.where(inside, torch.maximum(best, alike), best)
                seen = seen + inside
        mean = total / seen.clamp_min(1.0)
        best = torch.where(seen > 0, best, 0.0)
        return Agreement(mean=mean.unflatten(3, (h, w)), best=best.unflatten(3, (h, w)))

    def _look(self, s: int, grid: Tensor) -> Tensor:
        """Correlation of each cell with a source at [b v d n 2] places of it. [b v d n]"""
        b, v, h, w = self.size
        count = grid.shape[2]
        if self.pairs is not None:
            places = grid.transpose(2, 3).reshape(b * v * h * w, 1, count, 2)
            sampled = functional.grid_sample(self.pairs[s], places, align_corners=False)
            return sampled.reshape(b, v, h * w, count).transpose(2, 3)
        picture = self.features.index_select(1, self.sources[:, s]).flatten(0, 1)
        warped = functional.grid_sample(picture, grid.flatten(0, 1), align_corners=False)  # [bv c d n]
        return (warped * self.features.flatten(0, 1).flatten(2)[:, :, None]).sum(1).unflatten(0, (b, v))
