"""The splat viewer that travels with the package: Spark and three.js as published, packed, with their licenses.

`vendor/*.xz` are the files of the npm packages @sparkjsdev/spark and three, byte for byte; a test compares their
SHA-256. When a site is written they are unpacked, and the names that they import each other by become relative, because
a page with a strict content policy has no import map.
"""

from __future__ import annotations

import lzma
from dataclasses import dataclass
from pathlib import Path

from lyra_core.errors import FormatError

FOLDER = Path(__file__).parent / "vendor"
LICENSES = ("LICENSE-spark.txt", "LICENSE-three.txt")
_IMPORTS = {"three": "./three.module.js", "three/addons/postprocessing/Pass.js": "./Pass.js"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendored:
    """One file of a published package: its name, package with version, SHA-256, and how often it imports others."""

    name: str
    package: str
    sha256: str
    imports: int


FILES = (
    Vendored(
        name="spark.module.min.js",
        package="@sparkjsdev/spark 2.2.0",
        sha256="96869fab4f2164d5d267b1df1e1b636c05e6499973cb8dddec23387919b38526",
        imports=3,
    ),
    Vendored(
        name="three.core.js",
        package="three 0.187.0",
        sha256="613e370f76638fdef83926642bf256dc9615684922de1ce1f63a8583e5d78578",
        imports=0,
    ),
    Vendored(
        name="three.module.js",
        package="three 0.187.0",
        sha256="104f56145899722094556490d787aae0617cc2fc3382f31df02d724ea1aee341",
        imports=0,
    ),
    Vendored(
        name="Pass.js",
        package="three 0.187.0",
        sha256="444b409c235ead986893c472e720da1b779a56985c7d10b279c7944b52bd61c5",
        imports=1,
    ),
)


def published(file: Vendored) -> bytes:
    """The bytes of a file as its package has them.

    Raises:
        FormatError: the packed file is missing or damaged.
    """
    path = FOLDER / f"{file.name}.xz"
    try:
        return lzma.decompress(path.read_bytes())
    except (OSError, lzma.LZMAError) as error:
        raise FormatError(
            f"{path}: wanted {file.name} of {file.package}, found {error}; install the package again"
        ) from error


def for_site(file: Vendored) -> bytes:
    """The same with relative imports, as the pages load it.

    Raises:
        FormatError: the packed file is damaged, or imports something else than it did.
    """
    text = published(file).decode("utf-8")
    found = 0
    for name, path in _IMPORTS.items():
        for quote in "'\"":
            wanted = f"from {quote}{name}{quote}"
            # An example in a comment names the package too.
            lines = text.split("\n") if wanted in text else []
            changed = [
                line.replace(wanted, f"from {quote}{path}{quote}") if not line.lstrip().startswith("*") else line
                for line in lines
            ]
            if lines:
                found += sum(before != after for before, after in zip(lines, changed, strict=True))
                text = "\n".join(changed)
    if found != file.imports:
        raise FormatError(f"{file.name} of {file.package}: wanted {file.imports} imports of others, found {found}")
    return text.encode("utf-8")
