"""Train on worlds: a small network learns depth from posed RGB-D frames, straight from the catalog.

python examples/train_on_worlds.py        # after `make run` or examples/batch_in_process.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lyra_core.dataset import FileCache, open_dataset

WORLDS = "./worlds"  # or s3://bucket/worlds
WHERE = "accepted"
SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}  # of photographs: no photograph is in two parts
SIZE = (64, 96)  # height and width
EVERY = 16  # every 16th frame; depth is cast from the Gaussians at first and read from the cache later
BATCH, WORKERS, EPOCHS, SEED = 4, 2, 2, 0


def network() -> nn.Module:
    """Image to log depth, both at the images' size."""
    layers = [nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 16, 5, padding=2), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(16, 1, 3, padding=1))


def scale_free_loss(log_depth: Tensor, depth: Tensor) -> Tensor:
    """Worlds without a metric scale have depth up to a factor: compare logarithms, each without its mean."""
    known = depth > 0
    error = torch.where(known, log_depth - depth.clamp_min(1e-6).log(), 0.0)
    mean = error.sum((1, 2)) / known.sum((1, 2)).clamp_min(1)
    return torch.where(known, error - mean[:, None, None], 0.0).abs().sum() / known.sum().clamp_min(1)


def main(worlds: str = WORLDS, where: str = WHERE, cache: FileCache | None = None) -> list[float]:
    """Losses of the batches; a checkpoint would keep frames.state_after(...) beside the network."""
    torch.manual_seed(SEED)
    chosen = open_dataset(worlds).where(where)
    train = chosen.split("train", SHARES)
    options = {"depth": True, "dtype": "float32", "size": SIZE, "every": EVERY, "seed": SEED, "cache": cache}
    frames = (train if len(train) else chosen).frames(**options)
    model, losses = network(), []
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for epoch in range(EPOCHS):
        frames.set_epoch(epoch)
        for batch in DataLoader(frames, batch_size=BATCH, num_workers=WORKERS):
            loss = scale_free_loss(model(batch["image"])[:, 0], batch["depth"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(
            f"epoch {epoch}: {len(train)} of {len(chosen)} worlds, {frames.num_samples} frames, loss {losses[-1]:.3f}"
        )
    return losses


if __name__ == "__main__":
    main()
