"""The page of one world, as HTML: every text from the catalog is escaped, and nothing on it asks another server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import PurePath
from urllib.parse import quote

from catalogs.gallery.rows import quality_score
from lyra_core.escape import for_terminal
from lyra_core.gates import GATES
from lyra_core.records import FrameRecord, WorldRecord

# Scripts of the site only; Spark decodes in a worker made from a blob and in WebAssembly from a data: address.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval' blob:; worker-src blob: data:; style-src 'self'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; connect-src 'self' data: blob:; base-uri 'none'; "
    "form-action 'none'"
)
ROOT = "../../../"  # from a world's page to the site's
AUTOMATIC_BYTES = 40_000_000  # larger files of splats wait for a click


@dataclass(frozen=True, slots=True, kw_only=True)
class SplatFile:
    """One file of splats that the viewer loads.

    Attributes:
        url: relative to the world's page.
        bytes: its size.
        turned: whether its axes are three.js's already (SPZ: right, up, back) instead of the video's.
    """

    url: str
    bytes: int
    turned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldFiles:
    """Addresses of a world's files, relative to its page; None where there is none.

    Attributes:
        splats: small first.
        poster: a picture of frame 0.
        video: what plays.
        downloads: role, address, size in bytes and SHA-256 of each file to download.
    """

    splats: Sequence[SplatFile]
    poster: str | None
    video: str | None
    downloads: Sequence[tuple[str, str, int, str]]


def world_page(
    world: WorldRecord, frames: Sequence[FrameRecord], files: WorldFiles, *, pivot: float, title: str
) -> str:
    """The page as one HTML document.

    Args:
        world: its row.
        frames: its cameras, world to camera.
        files: where its files are.
        pivot: distance from the first camera about which dragging turns, world units.
        title: of the site.
    """
    name = world.name or world.world_id[:12]
    upright = (world.height or 0) > (world.width or 0)
    poster = (
        f'<img class="poster" id="poster" src="{_url(files.poster)}" alt="the first frame">'
        if files.poster
        else '<span class="poster" id="poster"></span>'
    )
    viewer = (
        f"""<div class="stage{" upright" if upright else ""}" id="stage">
<canvas id="canvas" tabindex="0" aria-label="3D view; drag to look around, W A S D to move"></canvas>{poster}
<span class="note" id="note" role="status">Loading 3D</span></div>
<div class="controls"><button class="button" id="home" disabled>Seed view <kbd>R</kbd></button>
<button class="button" id="fly" aria-pressed="false" disabled>Fly along path <kbd>P</kbd></button>
<button class="button" id="lines" aria-pressed="false" disabled>Cameras <kbd>C</kbd></button>
<button class="button" id="full" disabled>Full screen <kbd>F</kbd></button>
<button class="button" id="more" hidden></button>
<span class="hint">drag to look, wheel or <kbd>W</kbd><kbd>A</kbd><kbd>S</kbd><kbd>D</kbd> to move,
shift-drag to slide</span></div>"""
        if files.splats and frames
        else '<p class="warning">This world has no Gaussians to show.</p>'
    )
    video = (
        f"""<section class="panel"><h2>Video</h2><video controls loop muted playsinline preload="metadata"
{f'poster="{_url(files.poster)}"' if files.poster else ""} src="{_url(files.video)}"></video>
<p class="small soft">{_text(world.trajectory_name)}, {world.num_frames or 0} frames,
{world.width} x {world.height}, {world.fps or 0:g} per second</p></section>"""
        if files.video
        else ""
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">
<meta name="referrer" content="no-referrer">
<title>{_text(name)} | {_text(title)}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{ROOT}assets/site.css">
<script src="{ROOT}assets/theme.js"></script>
<script type="application/json" id="world">{_embedded(_viewer_values(world, frames, files, pivot))}</script>
<script src="{ROOT}assets/world.js" data-viewer="{ROOT}assets/viewer.js" defer></script>
</head>
<body>
<header class="bar"><a class="brand" href="{ROOT}index.html">← {_text(title)}</a><span class="grow"></span>
<button class="button small" id="theme" type="button" title="Dark or light">Theme</button></header>
<main>
<div class="head"><div><h1>{_text(name)}</h1>
<span class="soft small">{_text(world.recipe)} · {_text(world.trajectory_name)} ·
<span class="mono">{_text(world.world_id)}</span></span></div>
{_verdict(world)}</div>
<div class="world"><div>
{viewer}
<div class="below">{video}{_plan(frames)}{_cost(world)}{_downloads(files)}</div>
</div>
<aside>
{_quality(world)}
{_license(world)}
{_provenance(world)}
</aside></div>
</main>
</body>
</html>
"""


def _viewer_values(
    world: WorldRecord, frames: Sequence[FrameRecord], files: WorldFiles, pivot: float
) -> dict[str, object]:
    """What viewer.js reads: cameras as camera-to-world 3x4 by rows in the video's axes."""
    first = frames[0] if frames else None
    return {
        "camera": {
            "width": (first.width if first else None) or world.width or 16,
            "height": (first.height if first else None) or world.height or 9,
            "fx": first.K[0] if first else world.fx or 16.0,
            "fy": first.K[4] if first else world.fy or 16.0,
        },
        "fps": world.fps or 16.0,
        "pivot": pivot,
        "path": [[float(f"{value:.6g}") for value in _cam_to_world(frame.w2c)] for frame in frames],
        "splats": [
            {"url": _link(file.url), "bytes": file.bytes, "turned": file.turned, "wait": file.bytes > AUTOMATIC_BYTES}
            for file in files.splats
        ],
    }


def _cam_to_world(w2c: Sequence[float]) -> list[float]:
    """The first three rows of the inverse of a rigid 4x4 matrix by rows: transposed rotation, place of the camera."""
    R = [w2c[0:3], w2c[4:7], w2c[8:11]]
    t = (w2c[3], w2c[7], w2c[11])
    rows = []
    for i in range(3):
        rows += [R[0][i], R[1][i], R[2][i], -sum(R[k][i] * t[k] for k in range(3))]
    return rows


def _verdict(world: WorldRecord) -> str:
    if world.accepted:
        return '<span class="good">Accepted: every quality gate passed</span>'
    return f'<span class="bad">Not accepted: {_text("; ".join(world.reject_reasons) or "no reason recorded")}</span>'


def _quality(world: WorldRecord) -> str:
    score = quality_score({**world.to_row()})
    figures = [
        ("quality", _number(score, "{:.0f}"), "0 to 100, see the index"),
        ("PSNR", _number(world.psnr_db, "{:.1f} dB"), "Gaussians against the video's frames"),
        ("SSIM", _number(world.ssim, "{:.3f}"), "structural similarity of the same"),
        ("coverage", _number(world.coverage_frac, "{:.1%}"), "pixels of the path that something covers"),
        ("Gaussians", _number(world.num_splats, "{:,}"), "in all"),
        ("path", _length(world), "length of the camera's path"),
    ]
    cells = "".join(
        f'<div title="{escape(meaning)}"><dt>{label}</dt><dd>{escape(value)}</dd></div>'
        for label, value, meaning in figures
    )
    return f'<section class="panel"><h2>Quality</h2><dl class="figures">{cells}</dl>{_gates(world)}</section>'


def _gates(world: WorldRecord) -> str:
    """What each gate measured, and whether it lies in the gate's range, chosen by the recipe or not."""
    lines = ""
    for gate in GATES.values():
        value = getattr(world, gate.column)
        if value is None or value != value:
            continue
        within = (gate.limit.min is None or value >= gate.limit.min) and (
            gate.limit.max is None or value <= gate.limit.max
        )
        verdict = '<span class="good">within</span>' if within else '<span class="bad">outside</span>'
        lines += (
            f'<tr title="{escape(gate.meaning)}"><th>{gate.id}</th><td class="mono">{gate.column} {value:.3g}</td>'
            f'<td class="number">{verdict}</td></tr>'
        )
    return f'<table class="gates">{lines}</table>' if lines else ""


def _length(world: WorldRecord) -> str:
    if world.path_length_m is None:
        return "-"
    if world.meters_per_unit is None:
        return f"{world.path_length_m:.2f} units"
    return f"{world.path_length_m * world.meters_per_unit:.2f} m"


def _license(world: WorldRecord) -> str:
    weights = sorted(set(world.weights_licenses))
    rows = {
        "World": world.output_license or "not declared",
        "Photograph": world.seed_license or "not declared",
        "Credit": world.seed_attribution,
        "Source": world.seed_source_url,
        "Weights": ", ".join(weights) if weights else ("not declared" if world.weights_digests else "none used"),
    }
    warning = (
        f'<p class="warning small">Made with weights under {_text(", ".join(world.accepted_licenses))}: '
        "do not publish.</p>"
        if world.accepted_licenses
        else ""
    )
    people = {True: "yes", False: "no", None: "not computed"}
    rows |= {
        "People": people[world.has_people], "Faces": people[world.has_faces], "Text": people[world.has_text],
    }  # fmt: skip
    return f'<section class="panel"><h2>License and safety</h2>{warning}{_table(rows)}</section>'


def _provenance(world: WorldRecord) -> str:
    rows = {
        "Model": world.model_name,
        "Caption": world.prompt,
        # A path of the machine that made it is nobody's business.
        "Photograph": world.seed_uri if "://" in (world.seed_uri or "") else PurePath(world.seed_uri or "").name,
        "Digest": world.seed_sha256[:16] if world.seed_sha256 else None,
        "Variant": world.variant,
        "Weights": ", ".join(digest[:12] for digest in world.weights_digests) or None,
        "Recipe digest": world.config_sha256[:16] if world.config_sha256 else None,
        "Package": world.package_version,
        "Code": world.code_git_commit[:12] if world.code_git_commit else None,
        "Arithmetic": world.precision,
        "Run": world.run_id,
        "Made": world.created_at.strftime("%Y-%m-%d %H:%M UTC") if world.created_at else None,
        "Scale": world.metric_scale_source,
        "Up": world.up_source,
    }
    return f'<section class="panel"><h2>Provenance</h2>{_table(rows)}</section>'


def _cost(world: WorldRecord) -> str:
    most = max(world.stage_s.values(), default=0.0) or 1.0
    bars = "".join(
        f'<span class="soft">{_text(stage)}</span>'
        '<svg viewBox="0 0 100 9" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="rail" width="100" height="9" rx="2"/>'
        f'<rect width="{100 * seconds / most:.1f}" height="9" rx="2"/></svg>'
        f"<span>{seconds:.1f} s</span>"
        for stage, seconds in world.stage_s.items()
    )
    where = world.gpu_name or "CPU"
    total = f"{world.wall_s:.1f} s on {where}" if world.wall_s is not None else "not recorded"
    return (
        f'<section class="panel"><h2>Cost</h2><div class="stages">{bars}</div>'
        f'<p class="small soft">{_text(total)}</p></section>'
    )


def _downloads(files: WorldFiles) -> str:
    lines = "".join(
        f'<tr><td><a href="{_url(url)}" download title="SHA-256 {escape(digest)}">{_text(role)}</a></td>'
        f'<td class="number soft">{_size(size)}</td></tr>'
        for role, url, size, digest in files.downloads
    )
    return (
        f'<section class="panel"><h2>Downloads</h2><table class="downloads">{lines}</table></section>' if lines else ""
    )


def _plan(frames: Sequence[FrameRecord]) -> str:
    """The path from above, in the world's own axes: right is x, up on the page is z, forward."""
    if len(frames) < 2:
        return ""
    poses = [_cam_to_world(frame.w2c) for frame in frames]
    points = [(pose[3], -pose[11]) for pose in poses]
    least = [min(p[i] for p in points) for i in (0, 1)]
    most = [max(p[i] for p in points) for i in (0, 1)]
    span = max(most[0] - least[0], most[1] - least[1], 1e-6)
    margin, arrow = 0.2 * span, 0.12 * span
    box = (least[0] - margin, least[1] - margin, most[0] - least[0] + 2 * margin, most[1] - least[1] + 2 * margin)
    views = "".join(
        f"M{pose[3]:.5g} {-pose[11]:.5g}L{pose[3] + arrow * pose[2]:.5g} {-(pose[11] + arrow * pose[10]):.5g}"
        for pose in poses[:: max(1, len(poses) // 10)]
    )
    line = " ".join(f"{x:.5g},{y:.5g}" for x, y in points)
    return f"""<section class="panel"><h2>Camera path from above</h2>
<svg class="plan" viewBox="{" ".join(f"{value:.5g}" for value in box)}" role="img" aria-label="camera path from above">
<path class="view" d="{views}"/><polyline class="path" points="{line}"/>
<circle class="start" cx="{points[0][0]:.5g}" cy="{points[0][1]:.5g}" r="{0.02 * span:.5g}"/></svg>
<p class="small soft">The dot is the photograph; thin lines show where cameras look.</p></section>"""


def _table(rows: Mapping[str, object]) -> str:
    lines = "".join(
        f"<tr><th>{escape(label)}</th><td>{_text(value)}</td></tr>"
        for label, value in rows.items()
        if value not in (None, "")
    )
    return f"<table>{lines}</table>"


def _text(value: object) -> str:
    """Text as HTML shows it; controls are spelt out."""
    return escape(for_terminal("" if value is None else value))


def _link(url: str) -> str:
    return quote(url, safe="/.-_~")


def _url(url: str | None) -> str:
    return escape(_link(url or ""))


def _embedded(values: object) -> str:
    """JSON inside a script element: no `<` that could end it."""
    return json.dumps(values, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None or value != value else form.format(value)


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"
