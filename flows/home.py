"""The home folder on this machine: plans, logs, the local Prefect server's database. Private to its user."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from lyra_core.errors import ConfigError

# What lyra makes in its home; the home itself may be a folder that holds other things, and is left as it is.
FOLDERS = ("prefect", "plans", "logs", "scratch")
# A socket's path has at most 107 bytes on Linux, and Ray's is its folder and
# /ray/session_2026-11-28_14-46-10_123456_1234567/sockets/plasma_store.
MAX_RAY_FOLDER_BYTES = 107 - 68
SHORT_FOLDER = "/tmp"


def open_home(home: Path) -> Path:
    """The home, made where missing, with folders that only this user can look into.

    Raises:
        ConfigError: it cannot be made or written; the message says why and what to do.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in FOLDERS:
            folder = home / name
            folder.mkdir(mode=0o700, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(13, "permission denied", str(folder))
            if is_shared(folder) and folder.stat().st_uid == os.getuid():
                folder.chmod(0o700)  # made by an older version
    except OSError as error:
        raise ConfigError(
            f"home: wanted a folder for plans, logs and the local Prefect server, found {home} with "
            f"'{(error.strerror or str(error)).lower()}' at {error.filename or home}; set LYRA_HOME to a folder "
            f"that you can write"
        ) from error
    return home


def private_file(path: Path) -> Path:
    """A file that only its owner can read, made empty where missing.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        path.touch(mode=0o600)
        with contextlib.suppress(PermissionError):  # another user's file in a shared home
            path.chmod(0o600)
    except OSError as error:
        raise ConfigError(
            f"home: wanted to write {path}, found '{(error.strerror or str(error)).lower()}'; free space there, or set "
            f"LYRA_HOME to another folder"
        ) from error
    return path


def is_shared(path: Path) -> bool:
    """Whether others than the owner may do anything with it."""
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def ray_folder(environment: Mapping[str, str]) -> str:
    """The folder below which a local Ray cluster keeps its sockets."""
    return environment.get("RAY_TMPDIR") or environment.get("TMPDIR") or tempfile.gettempdir()


def is_too_long(folder: str) -> bool:
    """Whether sockets of Ray in a folder would have longer names than the system allows."""
    return len(os.fsencode(folder)) > MAX_RAY_FOLDER_BYTES


def shorten_ray_folder(environment: MutableMapping[str, str]) -> None:
    """Send Ray to /tmp where TMPDIR is too long for its sockets; must run before Ray starts.

    Raises:
        ConfigError: RAY_TMPDIR itself is too long, or /tmp cannot be written.
    """
    folder = ray_folder(environment)
    if not is_too_long(folder):
        return
    limit = f"Ray's sockets need a folder whose name has at most {MAX_RAY_FOLDER_BYTES} bytes"
    if environment.get("RAY_TMPDIR"):
        raise ConfigError(f"RAY_TMPDIR: {limit}, found {folder}; set it to a shorter one, or unset it")
    if not os.access(SHORT_FOLDER, os.W_OK | os.X_OK):
        raise ConfigError(
            f"TMPDIR: {limit}, found {folder}, and {SHORT_FOLDER} cannot be written; set RAY_TMPDIR to a shorter "
            f"folder, or use --ray off"
        )
    environment["RAY_TMPDIR"] = SHORT_FOLDER
