"""lyra doctor: is this machine ready?"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from flows.cli.output import AsJson, choose_json, console, human_bytes, print_json, styled

PACKAGES = ("torch", "ray", "prefect", "numba", "av", "pyarrow", "duckdb", "s3fs")
MIN_FREE_BYTES = 2 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at; level is "ok", "warning" or "error"."""

    name: str
    level: str
    found: str
    do: str = ""


def doctor(
    out: Annotated[str | None, typer.Option(help="Also check that worlds can be stored there.")] = None,
    as_json: AsJson = False,
) -> int:
    """Look at Python, packages, GPU, memory, disk, storage and the Prefect server, and say what to mend.

    Example: lyra doctor --out s3://bucket/worlds
    """
    choose_json(as_json)
    from flows.settings import load_settings

    settings = load_settings({"out": out})
    checks: list[Callable[[], Finding]] = [
        _python,
        *(lambda package=package: _package(package) for package in PACKAGES),
        _gpu,
        _memory,
        lambda: _disk(str(settings.home_path)),
        lambda: _store(settings.out),
        lambda: _prefect(settings.home_path, settings.prefect_api_url),
    ]
    findings = [check() for check in checks]
    has_errors = any(finding.level == "error" for finding in findings)
    if as_json:
        print_json({"ready": not has_errors, "findings": [asdict(finding) for finding in findings]})
        return int(has_errors)
    screen = console()
    styles = {"ok": "green", "warning": "yellow", "error": "red"}
    for finding in findings:
        screen.print(styled((f"{finding.level:<7}", styles[finding.level]), f" {finding.name:<10} {finding.found}"))
        if finding.do:
            screen.print(styled(f"                   -> {finding.do}"))
    return int(has_errors)


def _python() -> Finding:
    good = (3, 11) <= sys.version_info[:2] <= (3, 12)
    return Finding(
        name="python",
        level="ok" if good else "error",
        found=platform.python_version(),
        do="" if good else "use Python 3.11 or 3.12",
    )


def _package(name: str) -> Finding:
    try:
        return Finding(name=name, level="ok", found=importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(
            name=name,
            level="error",
            found="not installed",
            do="pip install -c constraints.txt lyra-worlds",
        )


def _gpu() -> Finding:
    from flows.workforce import count_gpus

    count = count_gpus()
    if not count:
        return Finding(
            name="gpu",
            level="ok",
            found="none: worlds are made on the CPU (recipes parallax, mini)",
        )
    try:
        version = importlib.metadata.version("gsplat")
    except importlib.metadata.PackageNotFoundError:
        return Finding(
            name="gpu",
            level="warning",
            found=f"{count}, but gsplat is missing",
            do="pip install 'lyra-worlds[gpu]'",
        )
    return Finding(name="gpu", level="ok", found=f"{count}, gsplat {version}")


def _memory() -> Finding:
    import psutil

    free = psutil.virtual_memory().available
    low = free < MIN_FREE_BYTES
    return Finding(
        name="memory",
        level="warning" if low else "ok",
        found=f"{human_bytes(free)} available",
        do="close other programs, or use --workers 1" if low else "",
    )


def _disk(home: str) -> Finding:
    from pathlib import Path

    folder = Path(home)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    low = free < MIN_FREE_BYTES
    return Finding(
        name="disk",
        level="warning" if low else "ok",
        found=f"{human_bytes(free)} free at {folder}",
        do="free some space, or set LYRA_HOME to another disk" if low else "",
    )


def _store(url: str) -> Finding:
    from lyra_core.errors import StoreError
    from lyra_core.formats.store import open_store

    try:
        store = open_store(url)
        store.check_writable()
        store.require_conditional_create()
    except StoreError as error:
        return Finding(
            name="store",
            level="error",
            found=str(error),
            do="see the sentence; then: lyra doctor --out URL",
        )
    return Finding(name="store", level="ok", found=f"{url} is writable and creates objects exclusively")


def _prefect(home: object, api_url: str | None) -> Finding:
    from pathlib import Path

    from flows.server import answers, running_server

    if api_url is not None:
        good = answers(api_url)
        return Finding(
            name="prefect ui",
            level="ok" if good else "error",
            found=f"{api_url} {'answers' if good else 'does not answer'}",
            do="" if good else "start that server, or unset PREFECT_API_URL to use a local one",
        )
    server = running_server(Path(str(home)))
    return Finding(
        name="prefect ui",
        level="ok",
        found=server.ui_url if server else "not running; lyra run starts it by itself",
    )
