"""What people name on the command line: folders, links, patterns, odd names, and what is no file at all."""

from __future__ import annotations

import os
import unicodedata

import pytest
from PIL import Image

from lyra_core.errors import ManifestError
from lyra_core.formats.image import _FORMATS
from tasks.image_names import IMAGE_SUFFIXES
from tasks.manifest import BadRow, read_seeds

NOTICES: list[str] = []


def uris(*sources) -> list[str]:
    NOTICES.clear()
    return [row.seed_uri for row in read_seeds([str(source) for source in sources], NOTICES.append)]


def names(*sources) -> list[str]:
    return [uri.rsplit("/", 1)[1] for uri in uris(*sources)]


def test_a_folder_gives_its_images_by_name_and_tells_of_the_rest(make_seeds):
    folder = make_seeds("b.png", "a.jpg")
    for other in ("notes.txt", "IMG_1.HEIC", "b.jpg.crdownload", "Thumbs.db", ".hidden.jpg", "._b.png", ".DS_Store"):
        (folder / other).write_text("x")
    assert names(folder) == ["a.jpg", "b.png"]
    (notice,) = NOTICES
    assert notice == (
        f"{folder}: skipped 1 photograph of formats that are not decoded here (IMG_1.HEIC): convert them to JPEG; "
        "skipped 2 files that are no images: b.jpg.crdownload, notes.txt"
    )


def test_globs_images_and_folders_are_numbered_in_one_sequence(make_seeds):
    folder = make_seeds("a.png", "b.png")
    rows = list(read_seeds([str(folder / "b.png"), f"{folder}/*.png"]))
    assert [(r.seed_uri.rsplit("/", 1)[1], r.ordinal) for r in rows] == [("b.png", 0), ("a.png", 1), ("b.png", 2)]


def test_url_prefix():
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.pipe("/seeds-prefix/one.png", b"1")
    fs.pipe("/seeds-prefix/skip.bin", b"1")
    fs.pipe("/seeds-prefix/odd[1].png", b"1")
    assert uris("memory://seeds-prefix") == ["memory:///seeds-prefix/odd[1].png", "memory:///seeds-prefix/one.png"]
    assert NOTICES == ["memory://seeds-prefix: skipped 1 file that is no image: skip.bin"]
    assert uris("memory://seeds-prefix/odd[1].png") == ["memory://seeds-prefix/odd[1].png"]
    assert uris("memory://seeds-prefix/on*.png") == ["memory:///seeds-prefix/one.png"]


def test_every_format_of_the_decoder_is_found_in_folders():
    Image.init()
    decoded = {suffix for suffix, kind in Image.registered_extensions().items() if kind in _FORMATS}
    assert decoded - IMAGE_SUFFIXES == set()


def test_links_are_followed_and_those_to_nothing_are_kept(make_seeds, tmp_path):
    blobs = make_seeds("x.png", folder="blobs")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "a.png").symlink_to(blobs / "x.png")
    (snapshot / "gone.png").symlink_to(blobs / "nowhere")
    (snapshot / "loop.png").symlink_to("loop.png")
    assert names(snapshot) == ["a.png", "gone.png", "loop.png"]


def test_what_exists_wins_over_patterns(make_seeds, monkeypatch):
    folder = make_seeds("IMG[1].jpg", "IMG1.jpg", "what?.jpg", "whatx.jpg")
    trip = make_seeds("a.png", folder="[2024] trip")
    monkeypatch.chdir(folder)
    assert names("IMG[1].jpg", "what?.jpg") == ["IMG[1].jpg", "what?.jpg"]
    assert uris(trip) == [f"{trip}/a.png"]
    assert uris(f"{trip}/*.png") == [f"{trip}/a.png"]
    assert names("IMG?.jpg") == ["IMG1.jpg"]


def test_web_addresses_are_no_patterns():
    address = "https://host.invalid/a[1].jpg?w=1080&q=80*"
    assert uris(address) == [address]


def test_odd_names(make_seeds):
    odd = ["a b.jpg", "a#b.jpg", "100%25.jpg", "a*b.jpg", "we::ird.jpg", "12:30.jpg", "-dash.jpg", "em😀ji.jpg"]
    odd.append("new\nline.jpg")
    folder = make_seeds(*odd)
    assert sorted(names(folder)) == sorted(odd)
    for name in odd:
        assert uris(folder / name) == [f"{folder}/{name}"]
    (folder / "a b.jpg").rename(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg"))
    assert "caf\udce9.jpg" in names(folder)


def test_file_urls_and_unicode_forms(make_seeds):
    folder = make_seeds(unicodedata.normalize("NFD", "café.png"), folder="my photos")
    (found,) = uris(folder.as_uri())
    assert uris(folder / unicodedata.normalize("NFC", "café.png")) == [found]


def test_a_camera_card_names_its_folders(make_seeds, tmp_path):
    make_seeds(folder="DCIM")
    make_seeds("a.jpg", folder="DCIM/100CANON")
    with pytest.raises(ManifestError, match=r"holds no image; it holds folders \(100CANON\): name one of these"):
        uris(tmp_path / "DCIM")


def test_nothing_there(tmp_path):
    for source in ("nowhere", "m.csv", "no*where"):
        with pytest.raises(ManifestError, match="does not exist"):
            uris(tmp_path / source)
    # A name with an image's suffix is a seed that is missing: a reject when it is read.
    assert names(tmp_path / "gone.jpg") == ["gone.jpg"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestError, match="holds no image"):
        uris(tmp_path / "empty")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(ManifestError, match="is a link to something that does not exist"):
        uris(tmp_path / "link")
    with pytest.raises(ManifestError, match="found an empty name"):
        uris("")


@pytest.mark.parametrize("name", ["pipe", "pipe.csv"])
def test_pipes_and_devices_are_refused_unread(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ManifestError, match="is a named pipe"):
        uris(tmp_path / name)
    with pytest.raises(ManifestError, match="is a device"):
        uris("/dev/zero")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("foo://z/y", "Protocol not known: foo"),
        ("http://[bad/a.jpg", "is no URL"),
        ("memory://nowhere/at-all", "does not exist"),
    ],
)
def test_addresses_that_cannot_be_used_are_one_sentence(source, message):
    with pytest.raises(ManifestError, match=message):
        uris(source)


def test_one_bad_name_among_others_costs_itself_only(make_seeds, tmp_path):
    rows = list(read_seeds([str(tmp_path / "nowhere"), "foo://z", str(make_seeds("a.png"))]))
    assert [isinstance(row, BadRow) for row in rows] == [True, True, False]
