"""The page of a world in a browser: the splats appear, the right way up, as our own renderer draws them."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from catalogs.commit import commit, read_commit
from catalogs.gallery.write import world_folder, write_assets, write_index
from lyra_core.formats.cameras import write_cameras_parquet
from lyra_core.formats.clip import write_mp4
from lyra_core.formats.store import open_store
from lyra_core.frame_table import frame_table
from lyra_core.gaussians.render import render
from lyra_core.image_metrics import psnr_db
from lyra_core.layout import upload_prefix
from lyra_core.records import Artifact, WorldRecord
from lyra_core.spherical_harmonics import SH_C0
from lyra_core.values import CameraPath, Gaussians, Part
from tasks.gallery import Site, lighter, pivot_distance, show_world
from tests.browser import served

WORLD = "ab" * 16
HEIGHT, WIDTH, FRAMES = 72, 128, 9


def wall() -> Gaussians:
    """A wall 3 units ahead, larger than the picture: red, green, blue and yellow quarters, in reading order."""
    rows, columns = torch.meshgrid(torch.linspace(-2, 2, 160), torch.linspace(-3, 3, 240), indexing="ij")
    means = torch.stack([columns, rows, torch.full_like(rows, 3.0)], -1).reshape(-1, 3)
    colors = torch.tensor([[[0.9, 0.1, 0.1], [0.1, 0.8, 0.1]], [[0.1, 0.1, 0.9], [0.9, 0.8, 0.1]]])
    color = colors[(means[:, 1] > 0).long(), (means[:, 0] > 0).long()]
    count = len(means)
    return Gaussians(
        means=means,
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(count, 1),
        scales=torch.tensor([[0.02, 0.02, 0.002]]).repeat(count, 1),
        opacities=torch.full((count,), 0.98),
        sh=((color - 0.5) / SH_C0)[:, None],
        part=torch.full((count,), int(Part.KEYFRAME), dtype=torch.uint8),
    )


def path() -> CameraPath:
    w2c = torch.eye(4).repeat(FRAMES, 1, 1)
    w2c[:, 0, 3] = -torch.linspace(0, 0.5, FRAMES)
    K = torch.tensor([[100.0, 0, WIDTH / 2], [0, 100.0, HEIGHT / 2], [0, 0, 1]]).repeat(FRAMES, 1, 1)
    return CameraPath(world_to_cam=w2c, intrinsics=K, image_height=HEIGHT, image_width=WIDTH)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """A store with one world."""
    return stored(wall(), tmp_path_factory)


def stored(gaussians, tmp_path_factory):
    """A store with one world of these Gaussians."""
    store = open_store(tmp_path_factory.mktemp("worlds"), fsync=False)
    cameras = path()
    frames = (render(gaussians, cameras).color * 255).round().to(torch.uint8)
    files = {"ply": "gaussians.ply", "video": "video.mp4", "cameras": "cameras.parquet"}
    local = tmp_path_factory.mktemp("files")
    gaussians.save_ply(local / files["ply"])
    write_mp4(frames, local / files["video"], fps=16.0, crf=12)
    write_cameras_parquet(cameras, local / files["cameras"], fps=16.0)
    prefix = upload_prefix(WORLD, "0123456789ab")
    artifacts = []
    for role, name in files.items():
        put = store.put_file(prefix + name, local / name)
        artifacts.append(
            Artifact(role=role, key=put.key, media_type="x/y", bytes=put.bytes, sha256=put.sha256, etag=put.etag)
        )
    record = WorldRecord(
        world_id=WORLD, name="<b>wall</b>", folder=prefix, width=WIDTH, height=HEIGHT, num_frames=FRAMES, fps=16.0,
        psnr_db=40.0, coverage_frac=1.0, num_splats=len(gaussians), recipe="mini", trajectory_name="truck-right",
        stage_s={"video": 1.0},
    ).with_artifacts(artifacts, store.root)  # fmt: skip
    table = frame_table(
        WORLD, cameras.world_to_cam.numpy(), cameras.intrinsics.numpy(), fps=16.0, image_size=(WIDTH, HEIGHT)
    )
    commit(store, record, table)
    return store


def make(worlds, folder, source) -> Site:
    site = Site(store=open_store(folder, fsync=False), title="Walls", source=source)
    write_assets(site.store, site.title)
    shown = show_world(worlds, WORLD, site)
    row = read_commit(worlds, WORLD).world.to_row()
    write_index(site.store, [row], {WORLD: (shown.video, shown.poster)}, "")
    return site


def as_drawn() -> np.ndarray:
    return (render(wall(), path()[0:1]).color[0] * 255).round().to(torch.uint8).numpy()


def test_pages_are_made_once(worlds, tmp_path):
    site = make(worlds, tmp_path, None)
    page = tmp_path / world_folder(WORLD) / "index.html"
    assert {file.name for file in page.parent.iterdir()} == {
        *("index.html", "poster.jpg", "light.spz", "splats.spz", "video.mp4", "cameras.parquet", "made.json")
    }
    poster = np.asarray(Image.open(io.BytesIO((page.parent / "poster.jpg").read_bytes())).convert("RGB"))
    assert psnr_db(torch.from_numpy(poster.copy()) / 255.0, torch.from_numpy(as_drawn()) / 255.0) > 25
    page.write_text("kept")
    assert show_world(worlds, WORLD, site).video == f"{world_folder(WORLD)}video.mp4"
    assert page.read_text() == "kept"
    show_world(worlds, WORLD, replace(site, title="Other"))
    assert "Other" in page.read_text()


def test_the_small_file_looks_like_the_whole_one():
    gaussians = wall()
    light = lighter(gaussians, 5_000)
    assert len(light) <= 5_000
    drawn, small = (render(g, path()[0:1]).color for g in (gaussians, light))
    assert psnr_db(small, drawn) > 22
    assert lighter(light, 5_000) is light
    assert pivot_distance(light) == pytest.approx(3.0, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["spz", "ply"])
def test_the_viewer_draws_the_world_the_right_way_up(tmp_path_factory, browser, kind):
    """SPZ in a site of its own; .ply, because of a splat beyond the reach of SPZ, beside the worlds."""
    gaussians, site = wall(), tmp_path_factory.mktemp("site")
    source = None if kind == "spz" else "../"
    if kind == "ply":
        far = replace(gaussians[:1], means=torch.tensor([[0.0, 0.0, 3000.0]]))
        gaussians = Gaussians.concatenate([gaussians, far])
    worlds = stored(gaussians, tmp_path_factory)
    root = site if source is None else worlds.root
    made = make(worlds, site if source is None else f"{root}/gallery", source)
    assert made.store.exists(f"{world_folder(WORLD)}light.{kind}")
    browser.size(1000, 900)
    with served(root) as address:
        index = address if source is None else f"{address}/gallery"
        browser.open(f"{index}/index.html")
        browser.wait("document.querySelector('.card img.clear')?.naturalWidth > 0")
        browser.open(browser.ask("document.querySelector('a.card').href"))
        browser.wait("document.getElementById('poster')?.naturalWidth > 0", 2.0)
        browser.wait("document.getElementById('stage')?.dataset.ready === 'full'")
        browser.wait("getComputedStyle(document.getElementById('poster')).opacity === '0'")
        seen = Image.fromarray(browser.picture("#canvas")).resize((WIDTH, HEIGHT), Image.Resampling.BOX)
        picture = torch.from_numpy(np.asarray(seen).copy()) / 255.0
        wanted = torch.from_numpy(as_drawn()) / 255.0
        assert psnr_db(picture, wanted) > 20
        assert psnr_db(picture, wanted) > 8 + max(psnr_db(picture.flip(d), wanted) for d in ([0], [1], [0, 1]))
        assert browser.ask("document.querySelector('h1').textContent") == "<b>wall</b>"
        assert browser.ask("document.querySelector('video').readyState >= 1 || document.querySelector('video').error")
        assert [url for url in browser.requests if not url.startswith((address, "data:", "blob:"))] == []
        assert browser.problems == []

        # D goes right while it is held, so the edge between red and green goes left.
        browser.call("Input.dispatchKeyEvent", type="keyDown", key="d", code="KeyD")
        green = 0
        for _ in range(50):
            moved = np.asarray(Image.fromarray(browser.picture("#canvas")).resize((WIDTH, HEIGHT)))
            red, green, _ = moved[10, WIDTH // 2 - 8]
            if green > red:
                break
        browser.call("Input.dispatchKeyEvent", type="keyUp", key="d", code="KeyD")
        assert green > red


def test_a_page_from_the_disk_says_what_it_cannot(worlds, tmp_path, browser):
    make(worlds, tmp_path, None)
    browser.open((tmp_path / world_folder(WORLD) / "index.html").as_uri())
    browser.wait("document.getElementById('note')?.textContent.includes('python -m http.server')")
    assert browser.ask("document.getElementById('poster').naturalWidth") == WIDTH
    assert browser.problems == []
