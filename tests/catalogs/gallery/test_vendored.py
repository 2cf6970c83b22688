"""The packed viewer is what its authors published, and the site's copy imports its own files only."""

import hashlib
import re

import pytest

from catalogs.gallery.vendored import FILES, FOLDER, LICENSES, for_site, published

MAX_TRACKED_BYTES = 1_500_000


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_files_are_those_of_their_package(file):
    assert hashlib.sha256(published(file)).hexdigest() == file.sha256
    text = for_site(file).decode()
    imported = re.findall(r"""^(?:import|export)\b[^;]*?\bfrom ['"]([^'"]+)['"];""", text, re.MULTILINE | re.DOTALL)
    assert all(name.startswith("./") and name[2:] in {other.name for other in FILES} for name in imported)


def test_the_folder_holds_these_and_their_licenses_and_is_small():
    assert {path.name for path in FOLDER.iterdir()} == {*(f"{file.name}.xz" for file in FILES), *LICENSES}
    assert all("Permission is hereby granted, free of charge" in (FOLDER / name).read_text() for name in LICENSES)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < MAX_TRACKED_BYTES
