"""Worlds as training data: choose them by SQL, split them by photograph, read posed RGB-D frames in torch.

worlds = open_dataset("s3://bucket/worlds").where("accepted AND floor_rmse_m < 0.05")
frames = worlds.split("train").frames(depth=True, seed=0)
loader = torch.utils.data.DataLoader(frames, batch_size=16, num_workers=2)

This package reads a snapshot of the catalog (lyra_core.snapshot), never single commits: what a network is trained on
is a numbered version that does not change. So it needs nothing of `catalogs`, and runs where only the library is
installed; SQL alone needs DuckDB (extra `factory`), pyarrow expressions do not.
"""

from lyra_core.dataset.cache import FileCache
from lyra_core.dataset.frames import PosedFrames
from lyra_core.dataset.selection import WorldSet, open_dataset
from lyra_core.dataset.sources import NewPaths

__all__ = ["FileCache", "NewPaths", "PosedFrames", "WorldSet", "open_dataset"]
