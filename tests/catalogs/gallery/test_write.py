"""The index of thousands of worlds, in a browser: fast, searched, filtered and sorted as it says."""

import json

import pytest

from catalogs.gallery.vendored import FILES
from catalogs.gallery.write import world_folder, write_assets, write_index
from lyra_core.formats.store import open_store
from tests.browser import served

COUNT = 5_000


def row(number: int) -> dict[str, object]:
    return {
        "world_id": f"{number:032x}",
        "name": "<script>document.title='taken'</script>" if number == 7 else f"world {number}",
        "prompt": "a harbour at dusk, nets and boats" if number % 100 == 0 else "a meadow",
        "recipe": "mini" if number % 2 else "lyra2",
        "accepted": number % 4 != 3,
        "psnr_db": 15.0 + 20.0 * (number * 7919 % COUNT) / COUNT,
        "coverage_frac": 1.0,
        "floor_rmse_m": None if number % 3 else 0.01 * (number % 10),
        "width": 224,
        "height": 128,
        "num_splats": 1000 + number,
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    store = open_store(folder, fsync=False)
    write_assets(store, "Five thousand & <more>")
    write_index(store, [row(number) for number in range(COUNT)], {}, "for a test")
    return folder


def test_files(site):
    assert world_folder("ab" * 16) == f"w/ab/{'ab' * 16}/"
    assert {path.name for path in (site / "data").iterdir()} == {"site.js", *(f"rows-{n:03d}.js" for n in range(6))}
    assert all((site / "assets" / file.name).stat().st_size > 4_000 for file in FILES)
    assert "<title>Five thousand &amp; &lt;more&gt;</title>" in (site / "index.html").read_text()
    head = json.loads((site / "data/site.js").read_text().removeprefix("lyraSite(").removesuffix(");\n"))
    assert (head["count"], len(head["parts"])) == (COUNT, 6)
    first = json.loads((site / head["parts"][0]).read_text().removeprefix("lyraRows(0,").removesuffix(");\n"))
    assert len(first) == 120
    assert first[0][0] >= first[-1][0] >= 0


def names(browser) -> list[str]:
    return browser.ask("[...document.querySelectorAll('.card .name')].map(e => e.textContent)")


def count(browser) -> str:
    return browser.ask("document.getElementById('count').textContent")


def where(browser, text: str) -> str:
    """Type a condition; returns the line that counts, or the problem."""
    browser.ask(
        f"(() => {{ const e = document.getElementById('where'); e.value = {json.dumps(text)}; "
        "document.getElementById('tools').requestSubmit(); })()"
    )
    return browser.ask(
        "document.getElementById('problem').hidden ? document.getElementById('count').textContent "
        ": document.getElementById('problem').textContent"
    )


def test_the_index_of_five_thousand_worlds(site, browser):
    browser.size(1280, 900)
    with served(site) as address:
        browser.open(f"{address}/index.html")
        usable = browser.wait("document.querySelectorAll('.card').length === 60")
        whole = browser.wait("document.documentElement.dataset.ready === 'all'")
        assert usable < 2.0
        assert usable + whole < 10.0
        assert count(browser) == "5,000 worlds"
        best = max((row(number) for number in range(COUNT) if number % 4 != 3), key=lambda r: r["psnr_db"])
        assert names(browser)[0] == best["name"]

        rows = [row(number) for number in range(COUNT)]

        def shown(keep) -> str:
            return f"{sum(map(keep, rows)):,} of 5,000 worlds"

        assert where(browser, "accepted AND psnr_db > 30") == shown(lambda r: r["accepted"] and r["psnr_db"] > 30)
        assert where(browser, "NOT accepted and recipe = 'mini'") == shown(
            lambda r: not r["accepted"] and r["recipe"] == "mini"
        )
        assert where(browser, "floor_rmse_m IS NULL") == shown(lambda r: r["floor_rmse_m"] is None)
        # Unknown values meet no condition.
        known = [r for r in rows if r["floor_rmse_m"] is not None]
        assert (
            where(browser, "floor_rmse_m != 0.03")
            == f"{sum(r['floor_rmse_m'] != 0.03 for r in known):,} of 5,000 worlds"
        )
        assert where(browser, "name LIKE 'WORLD 12_'") == shown(
            lambda r: r["name"][:-1] == "world 12" and len(r["name"]) == 9
        )
        assert where(browser, "accepted = false AND num_splats <= 1010") == "2 of 5,000 worlds"
        for text, problem in {
            "psnr > 3": 'wanted a column, found "psnr"',
            "psnr_db > high": 'psnr_db is a number, found "high"',
            "psnr_db >": "wanted a value after >, found the end",
            "accepted OR ssim > 1": 'wanted AND between conditions, found "OR"',
            "name = 'x'; DROP": 'wanted column operator value, found ";"',
        }.items():
            assert where(browser, text).startswith(problem), text

        assert where(browser, "") == "5,000 worlds"
        browser.press("/", "Slash")
        browser.call("Input.insertText", text="DUSK harbour")
        browser.wait("document.getElementById('count').textContent === '50 of 5,000 worlds'")
        browser.press("Escape")
        browser.press("ArrowRight")
        assert browser.ask("document.activeElement.className") == "card"

        # A name is a text, whatever it looks like.
        browser.open("about:blank")
        browser.open(f"{address}/index.html#q=script&sort=name&order=up")
        browser.wait("document.documentElement.dataset.ready === 'all'")
        assert names(browser) == ["<script>document.title='taken'</script>"]
        assert browser.ask("document.title") == "Five thousand & <more>"
        assert [url for url in browser.requests if not url.startswith((address, "data:"))] == []
        assert browser.problems == []


def test_the_index_opens_from_the_disk(site, browser):
    browser.open((site / "index.html").as_uri())
    browser.wait("document.documentElement.dataset.ready === 'all'")
    assert count(browser) == "5,000 worlds"
    assert browser.problems == []


def test_an_empty_catalog(tmp_path, browser):
    store = open_store(tmp_path, fsync=False)
    write_assets(store, "Nothing")
    write_index(store, [], {}, "")
    with served(tmp_path) as address:
        browser.open(f"{address}/index.html")
        browser.wait("!document.getElementById('empty').hidden")
        assert browser.problems == []
