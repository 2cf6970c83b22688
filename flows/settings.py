"""Where things run, by configuration only: lyra.toml < environment < flags. Nothing else reads the environment."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from flows.recipes import DEFAULT_RECIPE
from lyra_core.errors import ConfigError

PREFIX = "LYRA_"
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Settings(BaseModel):
    """Everything that decides where and how worlds are made, and nothing that changes them.

    Each field is a key of lyra.toml and, as LYRA_<FIELD>, an environment variable.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: str = Field("./worlds", description="where worlds are stored: a path or any fsspec URL")
    recipe: str = Field(DEFAULT_RECIPE, description="see: lyra recipes")
    executor: Literal["ray", "inline"] = Field("ray", description="inline: one worker in this process, no isolation")
    ray_address: str = Field("local", description="local: a private cluster; otherwise an existing cluster's address")
    workers: int | None = Field(None, ge=1, le=100_000, description="default: one per GPU, or by cores and memory")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    cpus_per_worker: float = Field(1, gt=0)
    gpus_per_world: int = Field(1, ge=1, le=64, description="GPUs of one machine that make each world together (lyra2)")
    world_deadline_s: float = Field(3600, gt=0, description="a world that takes longer is a hang")
    load_deadline_s: float = Field(1800, gt=0)
    store_deadline_s: float = Field(
        600.0, gt=0, description="storage that fails is waited for this long; then the batch ends without rejects"
    )
    model_path: str = Field("", description="folders of your own models, recipes, stages and formats, joined by ':'")
    home: Path = Field(Path("~/.lyra"), description="caches, the local Prefect server's database and logs")
    scratch: str | None = Field(None, description="finished chunks of worlds in the making; default: home/scratch")
    prefect_api_url: str | None = Field(None, description="an existing Prefect server; default: a local one")

    @field_validator("out")
    @classmethod
    def _without_tilde(cls, value: str) -> str:
        """A path as lyra.toml may have it: no shell has expanded its ~."""
        return os.path.expanduser(value)  # noqa: PTH111  pathlib would fold the slashes of a URL

    @field_validator("model_path")
    @classmethod
    def _without_tildes(cls, value: str) -> str:
        return os.pathsep.join(os.path.expanduser(part) for part in value.split(os.pathsep))  # noqa: PTH111

    @property
    def home_path(self) -> Path:
        """The home folder with ~ expanded.

        Raises:
            ConfigError: it is below ~ and this user has no home directory.
        """
        try:
            return self.home.expanduser()
        except RuntimeError as error:
            raise ConfigError(
                f"home: wanted a folder, found {self.home} and no home directory of this user ({error}); "
                f"set LYRA_HOME to a folder of yours"
            ) from error

    @property
    def scratch_folder(self) -> str:
        """Where workers keep unfinished worlds; ~ is left for each worker to expand."""
        return str(self.home / "scratch") if self.scratch is None else self.scratch


def load_settings(flags: Mapping[str, Any] | None = None, folder: Path | None = None) -> Settings:
    """Merge lyra.toml of a folder, LYRA_* variables and the flags that were given (None means not given).

    PREFECT_API_URL is honoured as well as LYRA_PREFECT_API_URL, and RAY_ADDRESS as well as LYRA_RAY_ADDRESS.

    Raises:
        ConfigError: unreadable lyra.toml, unknown key, or a value that does not fit.
    """
    reach_loopback_directly(os.environ)
    values: dict[str, Any] = {}
    file = (folder or Path()) / "lyra.toml"
    if file.is_file():
        try:
            values |= tomllib.loads(file.read_text(encoding="utf-8-sig"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise ConfigError(f"{file}: wanted TOML, found {error}; correct the line or remove the file") from error
    values |= from_env(os.environ)
    values |= {key: value for key, value in (flags or {}).items() if value is not None}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"setting '{key}': {first['msg']}, found {first.get('input')!r} (lyra.toml < LYRA_{key.upper()} < flags); "
            f"settings: {', '.join(Settings.model_fields)}"
        ) from error


def from_env(environment: Mapping[str, str]) -> dict[str, str]:
    """The settings that environment variables hold; unrelated LYRA_ variables are ignored."""
    values = {
        field: environment[PREFIX + field.upper()]
        for field in Settings.model_fields
        if environment.get(PREFIX + field.upper())
    }
    if environment.get("PREFECT_API_URL"):
        values.setdefault("prefect_api_url", environment["PREFECT_API_URL"])
    if environment.get("RAY_ADDRESS"):
        values.setdefault("ray_address", environment["RAY_ADDRESS"])
    return values


def use_model_path(settings: Settings) -> None:
    """Make modules of one's own (models, recipes, stages, formats) importable in this process."""
    folders = [folder for folder in settings.model_path.split(os.pathsep) if folder]
    sys.path.extend(folder for folder in folders if folder not in sys.path)


def reach_loopback_directly(environment: MutableMapping[str, str]) -> None:
    """Keep this process, and those it starts, from asking a proxy for the servers of this very machine."""
    missing = loopback_sent_to_proxy(environment)
    if missing:
        listed = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
        # Programs read the one or the other.
        environment["no_proxy"] = environment["NO_PROXY"] = ",".join(filter(None, (listed, *missing)))


def loopback_sent_to_proxy(environment: Mapping[str, str]) -> list[str]:
    """This machine's own names that no_proxy lacks while a proxy is set."""
    if not any(environment.get(name) for name in (*PROXIES, *(name.upper() for name in PROXIES))):
        return []
    listed = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    names = {name.strip() for name in listed.split(",")}
    return [] if "*" in names else [name for name in LOOPBACK if name not in names]


def ray_address_source(settings: Settings) -> str:
    """Where an address of a Ray cluster is from, for errors: '' unless the shell exported it."""
    if os.environ.get("RAY_ADDRESS") != settings.ray_address or settings.ray_address == "local":
        return ""
    return ", from the environment variable RAY_ADDRESS: unset it, or use --ray local for a cluster of this machine"


def set_prefect_environment(settings: Settings, api_url: str) -> None:
    """Point Prefect in this process at a server; must run before prefect is imported, which reads these once."""
    os.environ["PREFECT_API_URL"] = api_url
    os.environ.setdefault("PREFECT_HOME", str(settings.home_path / "prefect"))
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    # The CLI has its own progress; the UI keeps the log lines.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
