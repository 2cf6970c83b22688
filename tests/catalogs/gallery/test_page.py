"""A world's page shows what the catalog says as text, whatever it says, and gives the viewer the right cameras."""

import json
import re
from html.parser import HTMLParser

import pytest

from catalogs.gallery.page import SplatFile, WorldFiles, world_page
from lyra_core.records import FrameRecord, WorldRecord

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\x1b[31m"
FILES = WorldFiles(
    splats=[
        SplatFile(url="light.ply", bytes=10, turned=False),
        SplatFile(url="../a b/whole#1.ply", bytes=50_000_000, turned=False),
    ],
    poster="poster.jpg",
    video="../x/video.mp4",
    downloads=[("ply", '../x/"quoted".ply', 7_199_931, "ab" * 32)],
)
IDENTITY = (1.0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1)
# Turned 90 degrees to the right about y, standing at (1, 2, 3): w2c = R, -R c.
TURNED = (0.0, 0, -1, 3, 0, 1, 0, -2, 1, 0, 0, -1, 0, 0, 0, 1)


class Elements(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def frame(number, w2c):
    K = (215.0, 0, 112, 0, 215, 64, 0, 0, 1)
    return FrameRecord(
        world_id="a" * 32, frame=number, t_s=0.0, w2c=tuple(map(float, w2c)), K=tuple(map(float, K)), width=224,
        height=128,
    )  # fmt: skip


@pytest.fixture
def page():
    names = ["name", "recipe", "prompt", "trajectory_name", "seed_attribution", "seed_license", "model_name"]
    hostile = dict.fromkeys([*names, "output_license", "seed_source_url", "gpu_name", "run_id"], HOSTILE)
    world = WorldRecord(
        world_id="a" * 32, seed_uri="/home/somebody/private/photo.jpg", accepted=False, reject_reasons=(HOSTILE,),
        stage_s={HOSTILE: 1.5}, psnr_db=30.0, accepted_licenses=(HOSTILE,), **hostile,
    )  # fmt: skip
    return world_page(world, [frame(0, IDENTITY), frame(1, TURNED)], FILES, pivot=4.0, title=HOSTILE)


def test_text_of_the_catalog_is_text(page):
    elements = Elements(page).found
    assert [attributes.get("src") for tag, attributes in elements if tag == "img"] == ["poster.jpg"]
    scripts = [attributes for tag, attributes in elements if tag == "script"]
    assert [s.get("src") for s in scripts] == ["../../../assets/theme.js", None, "../../../assets/world.js"]
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on") or name == "style"]
    assert "\x1b" not in page
    assert "/home/somebody" not in page
    assert "photo.jpg" in page


def test_nothing_is_asked_of_another_server(page):
    links = [a for _, attributes in Elements(page).found for a in (attributes.get("src"), attributes.get("href")) if a]
    assert not [link for link in links if re.match(r"\w+:", link) and not link.startswith("data:,")]
    assert "default-src &#x27;none&#x27;" in page


def test_the_viewer_gets_cameras_and_files(page):
    values = json.loads(re.search(r'id="world">(.*?)</script>', page)[1])
    assert values["camera"] == {"width": 224, "height": 128, "fx": 215.0, "fy": 215.0}
    first, second = values["path"]
    assert first == [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]
    assert [second[3], second[7], second[11]] == [1, 2, 3]
    assert [second[2], second[6], second[10]] == [1, 0, 0]  # looks along +x
    light, whole = values["splats"]
    assert (light["wait"], whole["wait"]) == (False, True)
    assert whole["url"] == "../a%20b/whole%231.ply"
    assert 'href="../x/%22quoted%22.ply"' in page


def test_a_world_without_files_has_a_page_too():
    page = world_page(
        WorldRecord(world_id="b" * 32), [], WorldFiles(splats=[], poster=None, video=None, downloads=[]), pivot=2.0,
        title="Worlds",
    )  # fmt: skip
    assert "no Gaussians to show" in page
    assert "not computed" in page
