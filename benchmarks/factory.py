"""10,000 no-op worlds through `lyra run`: plan, Ray, commit, snapshot; then the same command again.

    python benchmarks/factory.py [--worlds 10000] [--out benchmarks/results]

Targets on 2 cores: 150 s with the driver's memory at most 400 MB, and 5 s for the second run.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from PIL import Image
from results import write_result

REPOSITORY = Path(__file__).resolve().parents[1]
SEED_BYTES = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lyra-bench-") as scratch:
        folder = Path(scratch)
        write_seeds(folder / "seeds", arguments.worlds)
        first = run(folder)
        again = run(folder)
        lyra(folder, "down")
    found = {
        "worlds": arguments.worlds,
        "first_seconds": first["seconds"],
        "first_driver_rss_mb": first["rss_mb"],
        "created": first["created"],
        "again_seconds": again["seconds"],
        "again_created": again["created"],
        "again_existing": again["existing"],
    }
    print(json.dumps(found, indent=2))
    write_result("factory", found, arguments.out)


def write_seeds(folder: Path, count: int) -> None:
    """Small real JPEGs; bytes after the end of the picture make each a different file of 20 kB."""
    folder.mkdir()
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((96, 64)).convert("RGB").save(buffer, "JPEG", quality=95)
    picture = buffer.getvalue()
    for index in range(count):
        (folder / f"{index:06d}.jpg").write_bytes(
            picture + f"{index:010d}".encode() * ((SEED_BYTES - len(picture)) // 10)
        )


def lyra(folder: Path, *arguments: str) -> subprocess.Popen:
    environment = {
        **os.environ,
        "LYRA_HOME": str(folder / "home"),
        "LYRA_MODEL_PATH": str(REPOSITORY / "benchmarks" / "models"),
        "PYTHONPATH": str(REPOSITORY),
    }
    code = "from lyra_core._launch import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env=environment, stdout=subprocess.PIPE, text=True, cwd=folder
    )
    if arguments[0] == "down":
        process.wait()
    return process


def run(folder: Path) -> dict:
    start = time.perf_counter()
    settings = ["model=no_op_model:load", "artifacts=", "quality_views=0", "width=64", "height=48"]
    process = lyra(
        folder,
        *("run", str(folder / "seeds"), "--out", str(folder / "worlds"), "--json", "--recipe", "parallax"),
        *(word for setting in settings for word in ("--set", setting)),
    )
    peak = {"rss": 0}

    def watch() -> None:
        driver = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                peak["rss"] = max(peak["rss"], driver.memory_info().rss)
            except psutil.NoSuchProcess:
                return
            time.sleep(0.2)

    threading.Thread(target=watch, daemon=True).start()
    printed, _ = process.communicate()
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"lyra run ended with {process.returncode}: {printed}")
    summary = json.loads(printed)
    return {"seconds": round(seconds, 2), "rss_mb": round(peak["rss"] / 1e6), **summary}


if __name__ == "__main__":
    main()
