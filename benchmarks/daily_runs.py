"""Cases that need a whole run, a server or another machine's habits, for benchmarks/daily_inputs.py."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from daily_desk import INLINE, TINY, Desk, Finding, jpeg, picture, put, sha256
from PIL import Image
from store_outage import BUCKET, Server

Run = Callable[[Desk, Path, Finding], None]
RUNS: list[tuple[str, str, Run]] = []
SECRET = "S3CRETPART"
_NOWHERE = "http://127.0.0.1:9"
PROXIES = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), _NOWHERE)


def case(group: str, name: str) -> Callable[[Run], Run]:
    def keep(run: Run) -> Run:
        RUNS.append((group, name, run))
        return run

    return keep


def finish(desk: Desk, out: object, finding: Finding, again: list[object], **environment: str) -> None:
    """What holds after every batch: files as the rows say, one reject a seed, and a second run that starts nothing."""
    at = Desk(desk.root, {**desk.environment, **environment})
    finding.made = len(at.rows(out, "SELECT world_id FROM worlds"))
    rejects = at.rows(out, "SELECT seed_uri, reason FROM rejects")
    finding.rejects = len(rejects)
    finding.require(len({row["seed_uri"] for row in rejects}) == len(rejects), "two rejects of one seed")
    if finding.made:
        checked = at.lyra("verify", out)
        finding.require("0 differ" in checked.out, checked.text[:200])
    started = time.monotonic()
    second = at.lyra("run", *again)
    finding.require("nothing to do" in second.out, f"the second run: {second.text[-300:]!r}")
    finding.require(second.code == (3 if rejects else 0), f"the second run's exit code is {second.code}")
    finding.require(time.monotonic() - started < 30, "the second run took more than 30 s")
    finding.require(at.rows(out, "SELECT seed_uri, reason FROM rejects") == rejects, "the second run wrote rejects")


def require_unswapped(desk: Desk, out: object, folder: Path, finding: Finding) -> None:
    """Every row's digest is that of the file it names."""
    for row in desk.rows(out, "SELECT seed_uri, seed_sha256 FROM worlds"):
        path = folder / Path(row["seed_uri"]).name
        finding.require(path.exists() and sha256(path) == row["seed_sha256"], f"swapped: {row['seed_uri']}")


@case("Names", "brackets and odd names, run whole")
def odd_names(desk: Desk, folder: Path, finding: Finding) -> None:
    put(folder, "p/IMG[1].jpg", "p/IMG1.jpg", "p/a b#c%25.jpg")
    ask = [folder / "p", "--out", folder / "w [1]", *INLINE]
    finding.listen(desk.lyra("run", *ask), 0)
    require_unswapped(desk, folder / "w [1]", folder / "p", finding)
    finish(desk, folder / "w [1]", finding, ask)
    finding.require(finding.made == 3, f"{finding.made} worlds instead of 3")


FAILURES = {"forbidden": 403, "broken": 500, "busy": 429, "missing": 404}


class Web(http.server.BaseHTTPRequestHandler):
    """Photographs, and every way not to serve one."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        name = self.path.split("?")[0].strip("/").partition(".")[0]
        if name in FAILURES:
            self.send_error(FAILURES[name])
            return
        body = jpeg(sum(name.encode()))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) + (5000 if name == "cut" else 0)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
        self.close_connection = name == "cut"


@contextlib.contextmanager
def web_server() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


@case("Sources", "HTTP: 403, 404, 429, 500, a cut body; signed addresses")
def http_seeds(desk: Desk, folder: Path, finding: Finding) -> None:
    with web_server() as url:
        names = ("one", "forbidden", "missing", "cut", "busy", "broken", "two")
        rows = [f"{url}/{name}.jpg?w=80&X-Amz-Signature={SECRET}" for name in names]
        (folder / "m.csv").write_text("seed\n" + "\n".join(rows) + "\n")
        ask = [folder / "m.csv", "--out", folder / "w", *INLINE]
        first = finding.listen(desk.lyra("run", *ask), 3)
        finish(desk, folder / "w", finding, ask)
        finding.require((finding.made, finding.rejects) == (2, 5), f"{finding.made} worlds, {finding.rejects} rejects")
        reasons = " ".join(row["reason"] for row in desk.rows(folder / "w", "SELECT reason FROM rejects"))
        for said in ("HTTP 403", "HTTP 404", "HTTP 429", "HTTP 500", "broke off"):
            finding.require(said in reasons, f"no reject says {said}")
        again = desk.lyra("run", *ask)
        finding.require("the same command asks for them again" in again.out, "the second run advises --retry-rejects")
    finding.require(SECRET not in first.text + again.text, "a signature on the screen")
    finding.told = reasons
    for place in (folder / "w", Path(desk.environment["LYRA_HOME"])):
        for path in place.rglob("*"):
            kept = path.is_file() and SECRET.encode() in path.read_bytes()
            finding.require(not kept, f"a signature in {path.name}")


@case("Sources", "an address with a query, nothing listening")
def nobody_listens(desk: Desk, folder: Path, finding: Finding) -> None:
    told = finding.listen(desk.lyra("run", f"{_NOWHERE}/a.jpg?w=1", "--out", folder / "w", "--dry-run"), 0)
    finding.rejects = told.count("rejects")
    finding.require(finding.rejects == 1, "no reject")
    finding.require("no answer" in told.text, "not told that nobody answers")


@case("Sources", "S3: no bucket, wrong keys, endpoint down, odd keys, from S3 into S3")
def s3_seeds(desk: Desk, folder: Path, finding: Finding) -> None:
    server = Server(folder)
    server.start()
    try:
        _s3_cases(desk, folder, finding, server.environment)
    finally:
        server.kill()
    down = Desk(desk.root, {**desk.environment, **server.environment})
    finding.listen(down.lyra("run", f"s3://{BUCKET}/photos", "--out", folder / "x", "--dry-run"), 1)


def _s3_cases(desk: Desk, folder: Path, finding: Finding, environment: dict[str, str]) -> None:
    import s3fs

    store = s3fs.S3FileSystem(
        key=environment["AWS_ACCESS_KEY_ID"],
        secret=environment["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        skip_instance_cache=True,
    )
    names = ("a b.jpg", "a+b.jpg", "100%25.jpg", "q?.jpg", "b[1].jpg", "UPPER.JPG")
    for index, name in enumerate(names):
        store.pipe_file(f"{BUCKET}/photos/{name}", jpeg(index))
    here = Desk(desk.root, {**desk.environment, **environment})
    listed = finding.listen(here.lyra("run", f"s3://{BUCKET}/photos", "--out", folder / "x", "--dry-run"), 0)
    finding.require(listed.count("made") == 6, f"{listed.count('made')} of 6 odd keys found")
    finding.told = ""
    rows = [f"s3://{BUCKET}/photos/{name}" for name in names[:2]] + ["s3://nobucket/a.jpg", "gone://x/y.jpg"]
    (folder / "m.csv").write_text("seed\n" + "\n".join(rows) + "\n")
    mixed = finding.listen(here.lyra("run", folder / "m.csv", "--out", folder / "x", "--dry-run"), 0)
    finding.require((mixed.count("made"), mixed.count("rejects")) == (2, 2), "rows of other buckets cost more")
    for source, more in ((f"s3://{BUCKET}/photos", {"AWS_SECRET_ACCESS_KEY": "wrong"}), ("s3://nobucket/photos", {})):
        told = here.lyra("run", source, "--out", folder / "x", "--dry-run", **more)
        finding.require(told.code in (1, 2) and "Traceback" not in told.text, f"{source}: {told.text[-300:]!r}")
    none = desk.lyra("run", f"s3://{BUCKET}/photos", "--out", folder / "x", "--dry-run", AWS_EC2_METADATA_DISABLED="1")
    finding.require(none.code == 1 and "Traceback" not in none.text, f"without keys: {none.text[-300:]!r}")
    out = f"s3://{BUCKET}/my worlds [1]"
    ask: list[object] = [f"s3://{BUCKET}/photos/b[1].jpg", "--out", out, *INLINE]
    finding.listen(here.lyra("run", *ask), 0)
    finish(desk, out, finding, ask, **environment)


@case("Manifests", "good and wrong rows, run whole: prompts and licenses where they belong")
def mixed_manifest(desk: Desk, folder: Path, finding: Finding) -> None:
    put(folder, "a.jpg", "b.jpg", "c.jpg")
    lines = ["seed;prompt;license;hfov_deg", "a.jpg;[INST] a room;CC0-1.0;", "a.jpg;x;CC0-1.0;nan"]
    lines += ["nowhere.jpg;;;", ";;;", "b.jpg;two, rooms;CC-BY-4.0;60", "c.jpg;x;y;z;too many", ";;;", ";;;"]
    (folder / "m.csv").write_text("\n".join(lines) + "\n")
    ask = [folder / "m.csv", "--out", folder / "w", *INLINE]
    first = finding.listen(desk.lyra("run", *ask), 3)
    found = desk.rows(folder / "w", "SELECT name, prompt, seed_license FROM worlds ORDER BY name")
    wanted = [["a", "[INST] a room", "CC0-1.0"], ["b", "two, rooms", "CC-BY-4.0"]]
    finding.require([list(row.values()) for row in found] == wanted, f"rows are {found}")
    require_unswapped(desk, folder / "w", folder, finding)
    finish(desk, folder / "w", finding, ask)
    finding.require((finding.made, finding.rejects) == (2, 3), f"{finding.made} worlds, {finding.rejects} rejects")
    finding.require(first.err.count("rejected: ") == 3, "not one sentence for each wrong row")


@case("Manifests", "1,000 variants of 40 rows are planned in time")
def many_variants(desk: Desk, folder: Path, finding: Finding) -> None:
    put(folder, "a.jpg")
    (folder / "m.csv").write_text("seed,variants,prompt\n" + "".join(f"a.jpg,1000,number {i}\n" for i in range(40)))
    told = desk.lyra("run", folder / "m.csv", "--out", folder / "w", "--dry-run", "--recipe", "mini", timeout=90)
    finding.listen(told, 0)
    finding.made = told.count("made")
    finding.require(finding.made == 40_000, f"{finding.made} planned")


@case("Data is never markup", "names, captions and values in run, query, peek, status")
def markup(desk: Desk, folder: Path, finding: Finding) -> None:
    names = ("two [bold]x[/nope].jpg", "esc\x1b[31m.jpg", "osc\x1b]0;title\x07.jpg", "pipe|<b>&.jpg")
    put(folder, *names)
    rows = [{"seed": name, "prompt": "[INST] a|b [/INST] \x1b[2J [/]"} for name in (*names, "gone [/x] \x1b[31m.jpg")]
    (folder / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = folder / "w $(touch x) 'q' [v]"
    ask = [folder / "m.jsonl", "--out", out, *INLINE]
    told = finding.listen(desk.lyra("run", *ask), 3)
    suggested = [line.strip() for line in told.out.splitlines() if " status " in line]
    finding.require(len(suggested) == 1 and "'" in suggested[0], f"the suggested command is not quoted: {suggested}")
    world = desk.rows(out, "SELECT world_id FROM worlds")[0]["world_id"]
    commands = (
        *(("query", out, "SELECT name, prompt FROM worlds"), ("query", out, "SELECT '[bold]x[/nope]' AS \"[/a]\"")),
        *(("peek", out, world), ("status", out), ("query", out, "SELECT reason FROM rejects")),
    )
    for command in commands:
        shown = finding.listen(desk.lyra(*command), 0)
        finding.require("\x1b" not in shown.text.replace("\x1b[", "", shown.text.count("\x1b[") * ("peek" in command)),
                        f"{command[0]} passed an escape character on")  # fmt: skip
    query = desk.lyra("query", out, "SELECT DISTINCT prompt FROM worlds")
    finding.require("[INST] a|b [/INST]" in query.out, "a caption was taken for markup")
    finish(desk, out, finding, ask)


def _environment(name: str, told: str, **environment: str) -> None:
    """A run without Ray under a habit of some machine."""

    def run(desk: Desk, folder: Path, finding: Finding) -> None:
        put(folder, "p/a.jpg")
        own = {"LYRA_HOME": str(folder / "home"), **environment}
        started = time.monotonic()
        finding.listen(desk.lyra("run", folder / "p", "--out", folder / "w", *INLINE, **own), 0)
        finding.require(time.monotonic() - started < 60, "it took more than 60 s")
        doctor = finding.listen(desk.lyra("doctor", **own))
        finding.require(told in doctor.text, f"doctor does not speak of {told!r}")
        finding.made = len(desk.rows(folder / "w", "SELECT name FROM worlds"))
        desk.lyra("down", **own)

    case("Environment", name)(run)


_environment("proxies without no_proxy", "prox", **PROXIES)


@case("Environment", "a long TMPDIR, proxies, and Ray")
def long_tmpdir(desk: Desk, folder: Path, finding: Finding) -> None:
    put(folder, "p/a.jpg")
    scratch = folder / ("scratch-of-a-cluster-job-" + "x" * 60)
    scratch.mkdir()
    own = {"LYRA_HOME": str(folder / "home"), "TMPDIR": str(scratch), **PROXIES}
    ask = [folder / "p", "--out", folder / "w", *TINY, "--set", "quality_views=0", "--workers", "1"]
    finding.listen(desk.lyra("run", *ask, **own), 0)
    finish(desk, folder / "w", finding, ask, **own)
    desk.lyra("down", **own)


@case("Environment", "a home that cannot be written, and a file in its place")
def no_home(desk: Desk, folder: Path, finding: Finding) -> None:
    put(folder, "p/a.jpg")
    (folder / "file").write_text("x")
    for home in ("/proc/nohome", str(folder / "file")):
        for command in (("run", folder / "p", "--out", folder / "w", *INLINE), ("doctor",), ("down",)):
            told = finding.listen(desk.lyra(*command, LYRA_HOME=home, timeout=60))
            finding.require(told.code in (0, 1, 2), f"{command[0]}: exit code {told.code}")
            finding.require(command[0] == "down" or home in told.text, f"{command[0]} does not name {home}")
    finding.require(not (folder / "w").exists(), "something was written")


@case("Environment", "~ in --out; the home is its user's alone")
def tilde(desk: Desk, folder: Path, finding: Finding) -> None:
    put(folder, "p/a.jpg")
    own = {"HOME": str(folder), "LYRA_HOME": str(folder / "home")}
    finding.listen(desk.lyra("run", folder / "p", "--out", "~/worlds", *INLINE, cwd=folder / "p", **own), 0)
    finding.require((folder / "worlds" / "catalog").is_dir(), "~ was not the home folder")
    for path in [folder / "home", *(folder / "home").rglob("*")]:
        shared = stat.S_IMODE(path.stat().st_mode) & 0o077
        inside = path.relative_to(folder / "home").parts[:1] in ((), ("plans",), ("logs",)) or len(path.parts) == 1
        finding.require(not (shared and inside), f"{path.name} is open to others: {shared:o}")
    finding.made = len(desk.rows(folder / "worlds", "SELECT name FROM worlds"))
    desk.lyra("down", **own)


@case("Environment", "a mistyped catalog")
def mistyped(desk: Desk, folder: Path, finding: Finding) -> None:
    for command in (("status",), ("query", "SELECT 1"), ("peek", "ab12"), ("verify",), ("gc",)):
        told = finding.listen(desk.lyra(command[0], folder / "wrolds", *command[1:]), 1)
        finding.require("no catalog in" in told.text, f"{command[0]}: {told.text[:200]!r}")


@case("Pictures", "float, 16 bit, blank, transparent, panorama, cut, empty, HTML")
def pictures(desk: Desk, folder: Path, finding: Finding) -> None:
    put(folder, "p/good.jpg")
    grey = np.asarray(picture(5).convert("L"), dtype="float32") / 255
    bright = grey.copy()
    bright[5, 5] = 1.02
    Image.fromarray(bright).save(folder / "p" / "float.tif")
    Image.fromarray((grey * 255).astype("uint16")).save(folder / "p" / "dark16.png")
    for name, colour in (("black", (0, 0, 0)), ("white", (255, 255, 255))):
        Image.new("RGB", (160, 100), colour).save(folder / "p" / f"{name}.png")
    Image.new("RGBA", (160, 100), (0, 0, 0, 0)).save(folder / "p" / "transparent.png")
    tag = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    tag += b'<rdf:Description xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" '
    tag += b'GPano:ProjectionType="equirectangular"/></rdf:RDF></x:xmpmeta>'
    picture(7, 400, 200).save(folder / "p" / "panorama.jpg", xmp=tag)
    (folder / "p" / "cut.jpg").write_bytes(jpeg(8)[:600])
    (folder / "p" / "empty.jpg").touch()
    (folder / "p" / "page.jpg").write_text("<!DOCTYPE html><html>403</html>")
    ask = [folder / "p", "--out", folder / "w", *INLINE]
    finding.listen(desk.lyra("run", *ask), 3)
    finish(desk, folder / "w", finding, ask)
    rejected = {Path(row["seed_uri"]).stem for row in desk.rows(folder / "w", "SELECT seed_uri FROM rejects")}
    wanted = {"black", "white", "transparent", "panorama", "cut", "empty", "page"}
    finding.require(wanted <= rejected <= wanted | {"dark16"}, f"rejected are {sorted(rejected)}")
    for row in desk.rows(folder / "w", "SELECT name, thumb_uri FROM worlds"):
        mean = float(np.asarray(Image.open(folder / "w" / row["thumb_uri"]).convert("L")).mean())
        is_dark = row["name"] == "dark16"
        finding.require((mean < 8) == is_dark, f"{row['name']} is shown with a mean of {mean:.0f}")


@case("Output", "JSON: numbers are numbers, NaN is null; estimates follow --frames")
def output(desk: Desk, folder: Path, finding: Finding) -> None:
    put(folder, "p/a.jpg")
    ask = [folder / "p", "--out", folder / "w", *INLINE, "--json"]
    first = finding.listen(desk.lyra("run", *ask), 0)
    finding.require(json.loads(first.out)["created"] == 1, "the summary counts otherwise")
    sql = "SELECT sum(num_splats) AS n, 'nan'::DOUBLE AS x, 'inf'::DOUBLE AS y, count(*) AS c FROM worlds"
    told = finding.listen(desk.lyra("query", folder / "w", sql, "--json"), 0)
    (row,) = json.loads(told.out, parse_constant=lambda name: finding.require(False, f"{name} is no JSON"))
    finding.require(isinstance(row["n"], int), f"a sum is {row['n']!r}")
    plans = [
        desk.lyra("run", folder / "p", "--out", folder / "x", "--dry-run", "--json", "--frames", frames).out
        for frames in ("81", "161")
    ]
    seconds = [json.loads(plan)["estimated_seconds"] for plan in plans]
    finding.require(1.9 < seconds[1] / seconds[0] < 2.1, f"estimates of 81 and 161 frames: {seconds}")
    again = desk.lyra("run", *ask)
    finding.require(json.loads(again.out)["created"] == 0, "the second run made something")
    finding.made = 1


@case("Output", "verify and gc find what was broken by hand")
def broken_by_hand(desk: Desk, folder: Path, finding: Finding) -> None:
    put(folder, "p/a.jpg")
    finding.listen(desk.lyra("run", folder / "p", "--out", folder / "w", *INLINE), 0)
    ply = next((folder / "w" / "worlds").rglob("*.ply"))
    with ply.open("r+b") as file:
        file.truncate(1000)
    told = finding.listen(desk.lyra("verify", folder / "w"), 1)
    finding.require(re.search(r"gaussians.ply has 1000 bytes, the row says \d+", told.text), told.text[:200])
    finding.listen(desk.lyra("gc", folder / "w"), 0)
    finding.require(ply.exists(), "gc removed a file that a row names")
    finding.made = 1
