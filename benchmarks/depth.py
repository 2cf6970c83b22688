"""The depth and Gaussian network of mini on held-out procedural scenes, and its depth of photographs as a picture.

Run from the repository's root: python benchmarks/depth.py [--device cpu] [--scenes 4] [--weights weights.safetensors]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from results import write_result

from lyra_core.evaluation.depth_measure import save_photos
from lyra_core.evaluation.depth_table import as_dict, depth_table
from lyra_core.mini.depth import MINI_DEPTH, MiniDepth
from lyra_core.mini.manifest import MINI_FOLDER
from lyra_core.weights.ema_weights import load_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=MINI_FOLDER, help="a run's weights.safetensors, or a folder")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--photographs", type=Path, default=Path("examples/seeds"))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    model = MiniDepth(MINI_DEPTH).eval()
    load_weights(model, given.weights, "depth")
    model = model.to(given.device)
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        save_photos(model, given.photographs, (128, 224), given.out / "depth_photos.png")
    started = time.perf_counter()
    table = as_dict(depth_table(model, num_scenes=given.scenes))
    table["seconds"] = round(time.perf_counter() - started, 1)
    print(json.dumps(table, indent=2))
    what = "depth and Gaussians of mini, 128x224, held-out procedural scenes, rendered videos of 33 frames"
    print("wrote", write_result("depth", {"what": what, "results": table}))


if __name__ == "__main__":
    main()
