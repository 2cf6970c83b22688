"""Reads seeds wherever they lie, and says of whatever a disk, a server or a client raises whose fault it is.

A SeedError is the seed's own: nothing is there, it is no file, it is too large. A SourceError is its storage's: no
answer, no access, a broken connection, a client that is not installed. The first rejects the seed; after the second
the next run asks again.
"""

from __future__ import annotations

import errno
import hashlib
import random
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from lyra_core.errors import MissingExtraError, SeedError, SourceError
from lyra_core.extras import require_client
from lyra_core.public_uri import public_uri, without_secrets

MAX_SEED_BYTES = 1 << 30
TRIES = 4
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 10.0
CONNECT_S, SILENCE_S, WHOLE_S = 15.0, 60.0, 600.0
READ_BLOCK = 4 << 20
AGAIN = "; the same command asks for it again when it is next run"
_DETAIL = 160
_CHAIN = re.compile(r"://.*::([A-Za-z][A-Za-z0-9+.-]*://|[^:]*\.(zip|tar|tgz|gz|7z)\b|/)")
_JITTER = random.SystemRandom()
_BUSY = frozenset({408, 425, 429})
_LOST_ERRNO = frozenset(
    {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN}
)
# By name, because these classes belong to clients that may not be installed (aiohttp, botocore, urllib3, httpx).
_LOST_CLASSES = frozenset(
    {
        "ClientConnectionError", "HTTPClientError", "EndpointConnectionError", "ConnectionError",
        "ProtocolError", "TransportError", "TimeoutError",
    }
)  # fmt: skip
_BROKEN_CLASSES = frozenset({"ClientPayloadError", "ResponseStreamingError"})
_CREDENTIAL_CLASSES = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "DefaultCredentialsError"}
)

T = TypeVar("T")


def local_path(uri: str) -> str | None:
    """The path of a local file, percent-encoding of file:// URLs undone; None for any other URL."""
    protocol, separator, rest = uri.partition("://")
    if not separator:
        return uri
    if protocol.lower() not in ("file", "local"):
        # "photos/a://b" is a path whose first part is no protocol.
        return None if protocol.replace("+", "").replace("-", "").replace(".", "").isalnum() else uri
    path = rest.removeprefix("localhost") if rest.startswith("localhost/") else rest
    return path if "%" not in path or Path(path).exists() else unquote(path, errors="surrogateescape")


def read_seed_bytes(uri: str) -> bytes:
    """The bytes of a seed.

    Raises:
        SeedError: nothing there, no file, or larger than 1 GiB. SourceError: its storage is at fault.
    """

    def read() -> bytes:
        with open_seed(uri) as stream:
            return b"".join(_blocks(stream))

    return ask(uri, read)


def digest_seed(uri: str) -> str:
    """SHA-256 of a seed's bytes, hex, read in blocks.

    A server that keeps failing is left alone for a while, so that a long manifest does not wait for it row by row.

    Raises:
        SeedError, SourceError: as read_seed_bytes.
    """

    def digest() -> str:
        sha256 = hashlib.sha256()
        with open_seed(uri) as stream:
            for block in _blocks(stream):
                sha256.update(block)
        return sha256.hexdigest()

    return ask(uri, digest, outages=_outages)


def seed_info(uri: str) -> Mapping[str, Any]:
    """What the storage of a remote seed tells about it (size, etag, ...), asked for once.

    Raises:
        SeedError, SourceError: as read_seed_bytes.
    """

    def info() -> Mapping[str, Any]:
        filesystem, path = open_filesystem(uri)
        entry: Mapping[str, Any] = filesystem.info(path)
        return entry

    return ask(uri, info, tries=1, outages=_silences)


@contextmanager
def open_seed(uri: str) -> Iterator[Any]:
    """The seed as a stream of bytes; what is no file (a pipe, a device, a folder) is refused before it is opened."""
    path = local_path(uri)
    if path is not None:
        require_file(path)
        with Path(path).open("rb") as local:
            yield local
        return
    if is_chain(uri):
        require_client(uri, f"reading {public_uri(uri)}")
        import fsspec

        for part in uri.split("::"):
            inner = None if part.startswith(("zip://", "tar://")) else local_path(part)
            if inner is not None:
                require_file(inner)
        with fsspec.open(uri, "rb") as stream:
            yield stream
        return
    filesystem, remote = open_filesystem(uri)
    # One plain GET: no HEAD, which signed URLs refuse, and a body that ends early is an error.
    options = {"block_size": 0, "size": 1} if is_web(uri) else {}
    with filesystem.open(remote, "rb", **options) as stream:
        yield stream


def open_filesystem(uri: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, with bounded waits, and the path in it."""
    require_client(uri, f"reading {public_uri(uri)}")
    import fsspec

    options: dict[str, object] = {}
    if is_web(uri):
        from aiohttp import ClientTimeout

        timeout = ClientTimeout(total=WHOLE_S, sock_connect=CONNECT_S, sock_read=SILENCE_S)
        options = {"client_kwargs": {"timeout": timeout}}
    elif uri.startswith(("s3://", "s3a://")):
        # Other processes write too; and tries are counted here, not multiplied by those of two clients.
        options = {"use_listings_cache": False, "config_kwargs": {"retries": {"total_max_attempts": 1}}}
    if is_chain(uri):
        opened: tuple[Any, str] = fsspec.core.url_to_fs(uri, **options)
        return opened
    # Not url_to_fs, which takes every "::" for a chain, also that of [::1] and of an object's name.
    kind = fsspec.get_filesystem_class(uri.partition("://")[0])
    filesystem = kind(**{**kind._get_kwargs_from_urls(uri), **options})
    if "config_kwargs" in options:
        filesystem.retries = 1
    return filesystem, filesystem._strip_protocol(uri)


def is_web(uri: str) -> bool:
    """Whether an address is http:// or https://."""
    return uri[:8].lower().startswith(("http://", "https://"))


def is_chain(uri: str) -> bool:
    """Whether a URL is fsspec's chain of file systems, such as zip://a.jpg::https://host/photos.zip."""
    return not is_web(uri) and _CHAIN.search(uri) is not None


def require_file(path: str) -> None:
    """Refuse what can be opened but never read to its end.

    Raises:
        SeedError: a folder, a named pipe, a device or a socket. OSError: nothing there, or no access.
    """
    mode = Path(path).stat().st_mode
    if not stat.S_ISREG(mode):
        raise SeedError(f"{what_it_is(mode)} instead of an image file")


def what_it_is(mode: int) -> str:
    """A file's kind in words."""
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"))
    return next((name for is_kind, name in kinds if is_kind(mode)), "a device")


def ask(uri: str, work: Callable[[], T], *, tries: int = TRIES, outages: Outages | None = None) -> T:
    """Do something with the storage of a seed; what it raises becomes a SeedError or a SourceError about this seed.

    Refused connections, timeouts, broken bodies, 429 and 5xx are tried again with growing waits.

    Args:
        uri: the seed.
        work: what to do.
        tries: at most.
        outages: remembers servers that fail: silent ones are not asked for a while, others only once a seed.
    """
    if outages is not None:
        outages.require_hope(uri)
        tries = 1 if outages.is_failing(uri) else tries
    for attempt in range(1, tries + 1):
        try:
            answer = work()
        except (SourceError, MissingExtraError):
            raise
        except Exception as error:  # whatever a client raises is told about this seed and ends nothing else
            fault = _judge(error, uri)
            if not fault.is_passing or attempt == tries:
                if outages is not None and fault.is_passing:
                    outages.count(uri, is_silent=fault.is_silent)
                raise fault.error(uri, attempt) from error
            time.sleep(_wait_s(attempt, error))
        else:
            if outages is not None:
                outages.forget(uri)
            return answer
    raise AssertionError("unreachable")


def explained(error: Exception, uri: str) -> SeedError | SourceError:
    """What an exception of a file system or its client means for the seed or manifest it was raised about."""
    return _judge(error, uri).error(uri, 1)


@dataclass(frozen=True, slots=True)
class _Fault:
    """What an exception means: who is to blame, and whether another try may help at once."""

    found: str
    remedy: str
    is_seeds: bool = False
    is_passing: bool = False
    is_silent: bool = False

    def error(self, uri: str, tries: int) -> SeedError | SourceError:
        text = f"seed {public_uri(uri)}: wanted an image file, found {self.found}"
        if self.is_seeds:
            return SeedError(f"{text}; {self.remedy}")
        often = f" in {tries} tries" if tries > 1 else ""
        return SourceError(f"{text}{often}; {self.remedy}{AGAIN}")


def _judge(error: Exception, uri: str) -> _Fault:
    """The meaning of whatever a file system or its client raised."""
    is_local = local_path(uri) is not None
    if isinstance(error, SeedError):
        return _Fault(str(error), "name a photograph", is_seeds=True)
    if isinstance(error, FileNotFoundError) and not is_local and "bucket does not exist" in str(error):
        return _Fault("no such bucket", "correct its name", is_seeds=True)
    status = _http_status(error)
    if status is not None:
        return _judge_status(status)
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        what = "a folder" if isinstance(error, IsADirectoryError) else "nothing there"
        return _Fault(f"{what} (HTTP 404)" if is_web(uri) else what, "restore it or drop it", is_seeds=True)
    if isinstance(error, PermissionError) and is_local:
        return _Fault("a file this user may not read", "give read access or drop it", is_seeds=True)
    classes = {kind.__name__ for cause in _causes(error) for kind in type(cause).__mro__}
    if isinstance(error, PermissionError) or classes & _CREDENTIAL_CLASSES:
        return _Fault(f"no access ({_detail(error)})", "check the credentials of this storage")
    if isinstance(error, ImportError):
        return _Fault(f"no client for this protocol ({_detail(error)})", "install the package it names")
    if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL):
        return _Fault(f"a name that cannot be opened ({error.strerror})", "correct it", is_seeds=True)
    if classes & _BROKEN_CLASSES:
        return _Fault("a connection that broke off", "check the network and the server", is_passing=True)
    if classes & _LOST_CLASSES or any(getattr(cause, "errno", None) in _LOST_ERRNO for cause in _causes(error)):
        answer = f"no answer ({_detail(error)})"
        return _Fault(answer, "check the network and the server", is_passing=True, is_silent=True)
    if isinstance(error, ValueError):
        return _Fault(
            f"an address that cannot be used ({_detail(error)})",
            "name a path, or an https://, s3:// or other fsspec URL",
            is_seeds=True,
        )
    return _Fault(f"an error of its storage ({_detail(error)})", "look at the address and the storage")


def _judge_status(status: int) -> _Fault:
    if status in (404, 410):
        return _Fault(f"nothing there (HTTP {status})", "restore it or drop it", is_seeds=True)
    if status in (401, 403, 407):
        return _Fault(f"no access (HTTP {status})", "check the credentials, or sign the URL again if it has expired")
    if status in _BUSY or status >= 500:
        state = "too many requests" if status == 429 else "a server error" if status >= 500 else "a busy server"
        return _Fault(f"{state} (HTTP {status})", "wait, or look at the server", is_passing=True)
    return _Fault(f"a refusal (HTTP {status})", "correct the address", is_seeds=True)


def _causes(error: BaseException) -> list[BaseException]:
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes and len(causes) < 8:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    return causes


def _http_status(error: BaseException) -> int | None:
    """The HTTP status an exception or one of its causes stands for: aiohttp, botocore, requests and httpx styles."""
    for cause in _causes(error):
        response = getattr(cause, "response", None)
        if isinstance(response, Mapping):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            status = getattr(response, "status_code", None) or getattr(cause, "status", None)
        if isinstance(status, int) and 400 <= status < 600:
            return status
    return None


def _detail(error: BaseException) -> str:
    text = " ".join(without_secrets(str(error)).split()) or type(error).__name__
    return text if len(text) <= _DETAIL else f"{text[:_DETAIL]}..."


def _wait_s(attempt: int, error: Exception) -> float:
    wait = FIRST_WAIT_S * 2 ** (attempt - 1) * _JITTER.uniform(0.8, 1.2)
    asked = (getattr(error, "headers", None) or {}).get("Retry-After", "")
    return min(LONGEST_WAIT_S, max(wait, float(asked))) if str(asked).isdigit() else wait


def _blocks(stream: Any) -> Iterator[bytes]:
    size = 0
    while block := stream.read(READ_BLOCK):
        size += len(block)
        if size > MAX_SEED_BYTES:
            raise SeedError(f"more than {MAX_SEED_BYTES >> 30} GiB, which is no photograph")
        yield block


@dataclass(slots=True)
class Outages:
    """Which servers kept failing, so that the rows behind the first few do not wait for them.

    One that answers may still have the next photograph: it is asked for each, without waiting. One that is silent costs
    a timeout each time, so it is left alone for a while.

    Attributes:
        patience: seeds in a row that a server may fail before that.
        pause_s: how long a silent server is left alone.
        failures: of each server, how many in a row, when the last was, and whether that was silence.
    """

    patience: int = 3
    pause_s: float = 30.0
    failures: dict[str, tuple[int, float, bool]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def require_hope(self, uri: str) -> None:
        """Refuse to ask a server that has just failed several seeds in a row.

        Raises:
            SourceError: it is left alone for now.
        """
        if not self.failures or local_path(uri) is not None:
            return
        count, last_s, was_silent = self.failures.get(_server(uri), (0, 0.0, False))
        if was_silent and count >= self.patience and time.monotonic() - last_s < self.pause_s:
            raise SourceError(
                f"seed {public_uri(uri)}: not asked for, because {_server(uri)} failed {count} seeds in a row just "
                f"before; check the network and the server{AGAIN}"
            )

    def is_failing(self, uri: str) -> bool:
        """Whether a server failed several seeds in a row."""
        return bool(self.failures) and self.failures.get(_server(uri), (0,))[0] >= self.patience

    def count(self, uri: str, *, is_silent: bool) -> None:
        """One more seed failed."""
        with self.lock:
            before = self.failures.get(_server(uri), (0,))[0]
            self.failures[_server(uri)] = (before + 1, time.monotonic(), is_silent)

    def forget(self, uri: str) -> None:
        """The server works."""
        if self.failures:
            with self.lock:
                self.failures.pop(_server(uri), None)


def _server(uri: str) -> str:
    """Protocol and host (or bucket) of a URL."""
    protocol, _, rest = public_uri(uri).partition("://")
    return f"{protocol}://{rest.partition('/')[0]}"


# Servers that do not tell about a seed may still hand it out: signed URLs are often for GET only.
_outages, _silences = Outages(), Outages()
