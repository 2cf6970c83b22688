"""How well each view agrees with the others at each of some depths: the evidence that parallax gives of depth.

A small network does not learn in minutes to find correspondences by attention alone; a plane sweep (Collins 1996, "A
space-sweep approach to true multi-image matching"; as a layer, Yao et al. 2018, MVSNet, section 3.2) hands them over.

Shape legend: b scenes, v views, c channels, d planes, h w cells of the feature maps.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

MIN_Z = 1e-3


def log_planes(num_planes: int, nearest: float, farthest: float, device: torch.device | str) -> Float[Tensor, " d"]:
    """Natural logarithms of depths at equal ratios, in units of the scene."""
    ends = torch.tensor([nearest, farthest]).log()
    return torch.linspace(float(ends[0]), float(ends[1]), num_planes, device=device)


def choose_sources(num_views: int, num_sources: int) -> Int[Tensor, "v s"]:
    """For each view the others it is compared with, spread evenly over the window; fewer if there are fewer."""
    count = min(num_sources, num_views - 1)
    rows = []
    for view in range(num_views):
        others = torch.tensor([i for i in range(num_views) if i != view])
        picked = torch.linspace(0, len(others) - 1, count + 2)[1:-1] if count < len(others) else torch.arange(count)
        rows.append(others[picked.round().long()])
    return torch.stack(rows)


def sweep(
    features: Float[Tensor, "b v c h w"],
    world_to_cam: Float[Tensor, "b v 4 4"],
    intrinsics: Float[Tensor, "b v 3 3"],
    log_depths: Float[Tensor, " d"],
    num_sources: int,
) -> Float[Tensor, "b v d h w"]:
    """Mean correlation of each cell with what other views show at each depth; 0 where none shows it.

    Args:
        features: of unit length along c.
        world_to_cam: lengths in units of the scene.
        intrinsics: in cells of the feature maps, centres at +0.5. A tensor of pixels has to be scaled first.
        log_depths: of the planes, logarithms of units of the scene.
        num_sources: views each view is compared with.
    """
    b, v, _, h, w = features.shape
    device = features.device
    sources = choose_sources(v, num_sources).to(device)
    y, x = torch.meshgrid(torch.arange(h, device=device) + 0.5, torch.arange(w, device=device) + 0.5, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)]).flatten(1)  # [3 n]
    # Geometry in fp32: under autocast a pixel's place would be rounded to a few cells.
    with torch.autocast(device.type, enabled=False):
        K, w2c = intrinsics.float(), world_to_cam.float()
        rays = torch.linalg.inv_ex(K)[0] @ pixels  # [b v 3 n]
        cam_to_world = torch.linalg.inv_ex(w2c)[0]
        depths = log_depths.float().exp()
        total = features.new_zeros(b, v, len(depths), h, w, dtype=torch.float32)
        seen = torch.zeros_like(total)
        for s in range(sources.shape[1]):
            other = sources[:, s]
            relative = w2c[:, other] @ cam_to_world
            turn, shift = K[:, other] @ relative[..., :3, :3], K[:, other] @ relative[..., :3, 3:]
            along = (turn @ rays)[..., None, :]  # [b v 3 1 n]
            place = along * depths[:, None] + shift[..., None]  # [b v 3 d n]
            z = place[:, :, 2]
            grid = place[:, :, :2] / z.clamp_min(MIN_Z)[:, :, None]
            grid = 2.0 * grid / grid.new_tensor([w, h])[:, None, None] - 1.0
            inside = (z > MIN_Z) & (grid.abs() <= 1.0).all(2)
            grid = grid.permute(0, 1, 3, 4, 2).reshape(b * v, len(depths), h * w, 2).clamp(-2.0, 2.0)
            picture = features[:, other].flatten(0, 1)
            warped = functional.grid_sample(picture, grid.to(picture.dtype), align_corners=False)  # [bv c d n]
            alike = (warped * features.flatten(0, 1).flatten(2)[:, :, None]).sum(1)
            valid = inside.reshape(b * v, len(depths), h * w)
            total += (alike * valid).reshape(total.shape)
            seen += valid.reshape(total.shape)
    return total / seen.clamp_min(1.0)
