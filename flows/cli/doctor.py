"""lyra doctor: is this machine ready?"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.output import AsJson, choose_json, console, human_bytes, print_json, styled
from lyra_core.escape import for_shell

if TYPE_CHECKING:
    from flows.settings import Settings

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
    """Look at Python, packages, GPU, memory, disk, storage, proxies and the Prefect server, and say what to mend.

    Example: lyra doctor --out s3://bucket/worlds
    """
    choose_json(as_json)
    from flows.settings import load_settings, loopback_sent_to_proxy

    by_proxy = loopback_sent_to_proxy(os.environ)  # before load_settings mends it for this process
    settings = load_settings({"out": out})
    checks: list[Callable[[], Finding]] = [
        _python,
        *(lambda package=package: _package(package) for package in PACKAGES),
        _gpu,
        _memory,
        lambda: _home(settings),
        lambda: _disk(settings),
        lambda: _proxy(by_proxy),
        lambda: _ray(settings),
        lambda: _store(settings.out),
        lambda: _prefect(settings),
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
            do="pip install 'lyra-worlds[factory]'",
        )


def _gpu() -> Finding:
    from flows.worker_plan import count_gpus

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


def _home(settings: Settings) -> Finding:
    from flows.home import is_shared, open_home
    from lyra_core.errors import ConfigError

    try:
        home = open_home(settings.home_path)
    except ConfigError as error:
        return Finding(name="home", level="error", found=str(error), do="export LYRA_HOME=/a/folder/of/yours")
    shared = is_shared(home)
    return Finding(
        name="home",
        level="ok",
        found=f"{home} is writable{', and others may list it: its folders are private' if shared else ''}",
        do=f"chmod 700 {for_shell(home)}, if nobody else needs it" if shared else "",
    )


def _proxy(by_proxy: list[str]) -> Finding:
    if not by_proxy:
        return Finding(name="proxy", level="ok", found="none stands before this machine's own servers")
    return Finding(
        name="proxy",
        level="warning",
        found=f"a proxy is set and no_proxy lacks {', '.join(by_proxy)}; lyra reaches them directly all the same",
        do=f'for other programs: export no_proxy="{",".join(by_proxy)},$no_proxy"',
    )


def _ray(settings: Settings) -> Finding:
    from flows.home import MAX_RAY_FOLDER_BYTES, is_too_long, ray_folder
    from flows.settings import ray_address_source

    if settings.ray_address != "local":
        source = ray_address_source(settings)
        return Finding(
            name="cluster",
            level="warning" if source else "ok",
            found=f"workers run on the Ray cluster at {settings.ray_address}{source}",
            do="unset RAY_ADDRESS, unless that cluster is meant" if source else "",
        )
    folder = ray_folder(os.environ)
    if not is_too_long(folder):
        return Finding(name="cluster", level="ok", found=f"a private Ray cluster of this machine, below {folder}")
    return Finding(
        name="cluster",
        level="warning",
        found=f"{folder} has more than the {MAX_RAY_FOLDER_BYTES} bytes that sockets of Ray allow; /tmp is used",
        do="export RAY_TMPDIR=/a/short/folder, if /tmp is not the place",
    )


def _disk(settings: Settings) -> Finding:
    from lyra_core.errors import ConfigError

    try:
        folder = settings.home_path.absolute()
    except ConfigError as error:
        return Finding(name="disk", level="error", found=str(error))
    while not os.path.isdir(folder):  # noqa: PTH112  False also where it may not be looked at
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


def _prefect(settings: Settings) -> Finding:
    from flows.server import answers, running_server
    from lyra_core.errors import ConfigError

    api_url = settings.prefect_api_url
    if api_url is not None:
        good = answers(api_url)
        return Finding(
            name="prefect ui",
            level="ok" if good else "error",
            found=f"{api_url} {'answers' if good else 'does not answer'}",
            do="" if good else "start that server, or unset PREFECT_API_URL to use a local one",
        )
    try:
        server = running_server(settings.home_path)
    except ConfigError:
        server = None  # no home is a finding of its own
    return Finding(
        name="prefect ui",
        level="ok",
        found=server.ui_url if server else "not running; lyra run starts it by itself",
    )
