"""The report counts what is in the catalog, shows text as text, and needs nothing but itself."""

import io
import re

from PIL import Image

from catalogs.commit import commit
from catalogs.rejects import reject
from catalogs.report import report_page
from lyra_core.records import Artifact, RejectRecord

HOSTILE = "<script>alert(1)</script>"


def fill(store, sample):
    sink = io.BytesIO()
    Image.new("RGB", (64, 36), (200, 40, 40)).save(sink, format="JPEG")
    for index in range(30):
        record = sample.world(
            index, name=HOSTILE if index == 0 else f"world {index}", wall_s=10.0, texture_frac=index / 30,
            reject_reasons=(f"psnr_db {index} < 15",) if index % 4 == 3 else (), package_version="0.1.0",
        )  # fmt: skip
        record = sample.store_payload(store, record)
        put = store.put_bytes(f"{record.folder}preview.jpg", b"no picture" if index == 1 else sink.getvalue())
        preview = Artifact(role="preview", key=put.key, media_type="image/jpeg", bytes=put.bytes, sha256=put.sha256)
        commit(store, record.with_artifacts([*record.artifacts, preview], store.root), sample.cameras(record.world_id))
    for ordinal in range(3):
        reason = f"the image has {ordinal} pixels {HOSTILE}"
        reject(store, RejectRecord(run_id="r", ordinal=ordinal, stage="seed", reason=reason, seed_uri=f"x/{ordinal}"))


def figures(page: str) -> dict[str, str]:
    return dict(re.findall(r"<div><dt>(.+?)</dt><dd>(.+?)</dd></div>", page))


def test_what_it_counts(local, sample):
    fill(local, sample)
    page = report_page(local, title=HOSTILE)
    found = figures(page)
    assert (found["worlds"], found["accepted"], found["rejects"]) == ("30", "23 (77%)", "3")
    assert (found["a world"], found["an accepted world"]) == ("10.0 s", "13.0 s")
    assert re.search(r"<td>psnr_db # &lt; #</td><td class=\"number\">7</td>", page)
    assert re.search(r"<td>seed</td><td></td><td>the image has # pixels .+?</td><td class=\"number\">3</td>", page)
    assert '<td>video</td><td class="number">45.0</td><td class="number">1.50</td>' in page
    assert page.count('<img src="data:image/jpeg;base64,') == 24 - page.count("no picture</div>")
    assert 'aria-label="histogram of psnr_db"' in page
    assert "revisit_db" not in page  # nobody measured it
    bars = [float(height) for height in re.findall(r'class="ok"[^>]+height="([\d.]+)"', page)]
    assert max(bars) <= 70.0


def test_text_is_text_and_nothing_is_asked_of_others(local, sample, tmp_path, browser):
    fill(local, sample)
    page = report_page(local, title=HOSTILE)
    assert "<script" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    browser.size(1000, 800)
    browser.open((tmp_path / "report.html").as_uri())
    browser.wait("document.readyState === 'complete'")
    assert browser.ask("document.title") == HOSTILE
    assert browser.ask("document.documentElement.scrollWidth") <= 1000
    assert browser.ask("[...document.images].every(i => i.naturalWidth > 0)")
    assert browser.problems == []


def test_an_empty_catalog(local):
    found = figures(report_page(local, title="Empty"))
    assert (found["worlds"], found["a world"], found["an accepted world"]) == ("0", "-", "-")
