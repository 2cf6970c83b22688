"""From a name somebody wrote to the file it stands for: other systems' separators, Unicode forms, file:// URLs."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from urllib.parse import urlsplit

from lyra_core.geometry.camera_files import is_camera_file
from lyra_core.public_uri import public_uri
from lyra_core.seed_source import is_web, local_path
from tasks.manifest_rows import RowError, shortened

_WINDOWS = re.compile(r"([A-Za-z]:[\\/]|\\\\)")


def as_on_disk(path: str) -> str:
    """The spelling under which a file exists: as given, with slashes for backslashes, or in another Unicode form.

    A path that exists in no spelling is returned as given.
    """
    if (path.isascii() and "\\" not in path) or os.path.lexists(path):
        return path
    spellings = [path, path.replace("\\", "/")] if "\\" in path else [path]
    for spelling in spellings:
        for form in (spelling, unicodedata.normalize("NFC", spelling), unicodedata.normalize("NFD", spelling)):
            if os.path.lexists(form):
                return form
    return _walked(spellings[-1]) or path


def _walked(path: str) -> str | None:
    """The path with each part as its folder spells it, for names whose parts differ in their Unicode form."""
    if path.isascii():
        return None
    spelled = "/" if path.startswith("/") else ""
    for part in filter(None, path.split("/")):
        forms = (part, unicodedata.normalize("NFC", part), unicodedata.normalize("NFD", part))
        spelled = next((f"{spelled}{form}" for form in forms if os.path.lexists(f"{spelled}{form}")), "")
        if not spelled:
            return None
        spelled += "/"
    return spelled.rstrip("/")


class ManifestFolder:
    """The folder (or URL prefix) a manifest lies in, which its relative names begin at."""

    def __init__(self, manifest: str) -> None:
        """Args: manifest: an absolute path or a URL; a query is no part of the folder."""
        if is_web(manifest):
            parts = urlsplit(manifest)
            manifest = f"{parts.scheme}://{parts.netloc}{parts.path}"
        self.path = posixpath.dirname(manifest)
        self.is_local = "://" not in manifest

    def seed(self, named: str) -> str:
        """The path or URL of a seed.

        Raises:
            RowError: a name that leaves the folder, or one of another machine.
        """
        path = local_path(named)
        if ".." in (path or named).replace("\\", "/").split("/"):
            raise RowError(
                f"'seed' must stay inside the manifest's folder, found {shortened(named)}; name it without '..'"
            )
        if path is None:
            return named
        if self.is_local and _WINDOWS.match(path) and not os.path.lexists(f"{self.path}/{path}"):
            raise RowError(
                f"'seed' wants a path of this machine, found the Windows path {shortened(named)}; "
                "name it relative to the manifest"
            )
        if path.startswith("/"):
            return as_on_disk(path)
        return as_on_disk(f"{self.path}/{path}") if self.is_local else f"{self.path}/{path}"

    def camera_path(self, named: str) -> str:
        """A preset as it is; a camera file beside the manifest by its whole path.

        Raises:
            RowError: a camera file that is not on this machine.
        """
        path = local_path(named)
        is_relative = path is not None and is_camera_file(path) and not path.startswith(("/", "~/"))
        if path is None or (is_relative and not self.is_local):
            where = "a URL" if path is None else f"a name beside the manifest at {public_uri(self.path)}"
            raise RowError(
                f"'camera_path' wants a preset or a camera file of this machine, found {where}: {shortened(named)}; "
                "download it and name it by its whole path"
            )
        if not is_camera_file(path):
            return named
        return as_on_disk(f"{self.path}/{path}" if is_relative else path)
