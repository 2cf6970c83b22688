"""Downloads a set of weights from its publisher, or says exactly what to download by hand and
where to put it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from lyra_core.errors import WeightsError
from lyra_core.extras import require
from lyra_core.identity import digest_file
from lyra_core.weights.registry import WeightSet, require_accepted, weight_set

RECORD_NAME = "fetched.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What was fetched.

    Attributes:
        directory: where the files lie, as in the repository.
        entry: what to give to `convert`.
        repo_id: the repository.
        revision: the commit.
    """

    directory: Path
    entry: Path
    repo_id: str
    revision: str


def fetch(
    name: str,
    dst: Path,
    *,
    accepted: Collection[str] = (),
    endpoint: str | None = None,
    token: str | bool | None = None,
) -> Fetched:
    """Downloads a set from the Hugging Face hub, of one commit, resuming where a run before
    stopped.

    Args:
        name: a set of the registry.
        dst: the directory to fill.
        accepted: restricted licenses that are accepted.
        endpoint: another hub than huggingface.co.
        token: for gated repositories; None uses the one of `hf auth login`.

    Raises:
        LicenseError: the license is restricted and was not accepted.
        MissingExtraError: huggingface_hub is not installed.
        WeightsError: unknown name, no network, gated or absent files; the message says what to do
            by hand.
    """
    item = weight_set(name)
    require_accepted([item.license], accepted)
    if not item.repo_id:
        raise WeightsError(f"{name} is not downloaded: {item.by_hand}")
    require("huggingface_hub", f"fetching {name}")
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    # Releases of the hub differ in their HTTP library; its own errors are what theirs derives from.
    failures: tuple[type[Exception], ...] = (
        *HfHubHTTPError.__bases__,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OSError,
    )
    dst = Path(dst)
    _require_own_directory(item, dst)
    try:
        api = huggingface_hub.HfApi(endpoint=endpoint, token=token)
        told = api.model_info(item.repo_id, revision=item.revision, files_metadata=True)
        commit = str(told.sha)
        api.snapshot_download(item.repo_id, revision=commit, allow_patterns=list(item.files), local_dir=dst)
    except failures as error:
        raise WeightsError(f"{name} could not be fetched: {_reason(error, item)}.\n" + by_hand(item, dst)) from error
    digests = {file.rfilename: str(file.lfs.sha256) for file in told.siblings or () if file.lfs is not None}
    _require_undamaged(item, dst, digests)
    fetched = Fetched(directory=dst, entry=_entry(item, dst), repo_id=item.repo_id, revision=commit)
    record = {"repo_id": item.repo_id, "revision": commit, "license": item.license}
    content = json.dumps({**_records(dst), name: record}, indent=1)
    (dst / RECORD_NAME).write_text(content + "\n", "utf-8")
    return fetched


def _reason(error: Exception, item: WeightSet) -> str:
    """Why the hub gave nothing, in one clause."""
    lines = str(error).strip().splitlines()
    status = getattr(getattr(error, "response", None), "status_code", None)
    name = type(error).__name__
    words = {
        401: f"the hub wants a login for {item.repo_id}, or has no such repository",
        403: f"the hub refuses access to {item.repo_id}",
        404: f"the hub has no {item.repo_id} at {item.revision}",
    }
    if name == "GatedRepoError":
        said = f"the terms of {item.repo_id} are not accepted by this account"
    elif status is not None:
        said = words.get(status, f"the hub answers with status {status}, try again later")
    else:
        return f"{name}: {lines[0] if lines else 'no reason given'}"
    return f"{said} ({name})"


def _require_undamaged(item: WeightSet, dst: Path, digests: Mapping[str, str]) -> None:
    """Compare the large files with the digests that the hub tells; its client compares sizes only.

    Raises:
        WeightsError: a file differs; it is removed, so that the next run fetches it.
    """
    for name, wanted in digests.items():
        path = dst / name
        if not path.is_file() or not any(fnmatchcase(name, pattern) for pattern in item.files):
            continue
        digest = digest_file(path)
        if digest != wanted:
            path.unlink()
            raise WeightsError(
                f"{path} arrived damaged (wanted sha256 {wanted[:12]}, found {digest[:12]}) and was removed; run the "
                "same command again"
            )


def by_hand(item: WeightSet, dst: Path) -> str:
    """What to download, from where, and where to put it."""
    patterns = " ".join(f"--include '{file}'" for file in item.files)
    page = f"https://huggingface.co/{item.repo_id}/tree/{item.revision}"
    note = f"\nNote: {item.by_hand}." if item.by_hand else ""
    return (
        f"By hand, on a machine with network: hf download {item.repo_id} {patterns} --local-dir "
        f"{dst}\n"
        f"or with a browser from {page}, keeping the folders, so that {dst / item.entry} exists.\n"
        f"A gated repository needs its terms accepted on that page, then: hf auth login{note}"
    )


def fetched_revision(path: Path, name: str) -> str:
    """The commit a set was fetched at, from the record `fetch` left in a directory above it, or
    ""."""
    for directory in (path, *path.parents):
        if name in (records := _records(directory)):
            return records[name]["revision"]
    return ""


def _records(directory: Path) -> dict[str, dict[str, str]]:
    """What was fetched into a directory, by name of the set."""
    path = directory / RECORD_NAME
    if not path.is_file():
        return {}
    try:
        return {str(name): dict(record) for name, record in json.loads(path.read_text("utf-8")).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise WeightsError(f"{path} is malformed: {error}; remove it and fetch again") from error


def _require_own_directory(item: WeightSet, dst: Path) -> None:
    """Repositories use the same file names: a second one would overwrite the first."""
    foreign = {record["repo_id"] for record in _records(dst).values()} - {item.repo_id}
    if foreign:
        raise WeightsError(
            f"{dst} holds files of {', '.join(sorted(foreign))}; fetch {item.name} into another directory"
        )


def _entry(item: WeightSet, dst: Path) -> Path:
    entry = dst / item.entry
    complete = (entry / ".metadata").is_file() if item.format == "distributed checkpoint" else entry.exists()
    if not complete:
        raise WeightsError(
            f"{item.repo_id} was fetched, but {entry} is not there or not complete.\n" + by_hand(item, dst)
        )
    return entry
