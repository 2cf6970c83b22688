"""The form of an address that may be shown and stored: without passwords, tokens and signatures, in plain UTF-8.

Seeds may lie behind signed URLs. Whoever holds such a URL may read the object, so only the plan file (readable by its
owner) and the worker that reads the seed see it whole; catalogs, logs, messages and reports see its public form. Two
signatures of one object have one public form, which is also how a seed is recognised from one run to the next.
"""

from __future__ import annotations

import hashlib
import os
import re
from urllib.parse import unquote_plus

# Parameters that sign or unlock, whole names: AWS, Google, Azure, CloudFront, Akamai, Alibaba, common tokens.
_SECRET = re.compile(
    r"(x-(amz|goog|oss|cos|obs)-.*"
    r"|.*(signature|token|secret|passw(or)?d|credential|api-?_?key|access-?_?key).*"
    r"|sig|sign|hmac|auth|authorization|pwd|policy|expires?|expiry|exp|ttl|jwt|hdnea|hdnts"
    r"|key-pair-id|googleaccessid|awsaccesskeyid|ossaccesskeyid|q-.*"
    r"|s[evprt]|spr|sip|sdd|saoid|suoid|scid|sks|ske|skv|skt|skoid|sktid)",
    re.IGNORECASE,
)
# May name the object or unlock it: what tells two objects apart stays, as a digest.
_DOUBTFUL = re.compile(r"key|hash|md5|session|verify", re.IGNORECASE)
_RANDOM = re.compile(r"[A-Za-z0-9+/=_~%.-]{32,}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>()\[\]{},]+")
_CHAIN = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_QUERIED = frozenset({"http", "https", "ftp", "ftps", "webdav", "webdavs", "abfs", "abfss", "az", "sftp"})


def public_uri(uri: str) -> str:
    """An address without user, password, signature and fragment; a plain path stays as it is.

    Parameters of a query that name the object (`?id=12`) stay; those that sign it go; values that look random become
    a short digest. Bytes that are
    not UTF-8 are spelt out (`caf\\xe9.jpg`).
    """
    text = uri if uri.isascii() else printable(uri)
    if "://" not in text:
        return text
    return "::".join(_public_part(part) if "://" in part else part for part in _CHAIN.split(text))


def without_secrets(text: str) -> str:
    """A message or a traceback with every URL in it in its public form."""
    if "://" not in text:
        return printable(text)
    return _URL.sub(lambda found: public_uri(found[0]), printable(text))


def printable(text: str) -> str:
    """Text that UTF-8 can hold: bytes of a file name that are no UTF-8 are spelt out."""
    if text.isascii():
        return text
    try:
        return os.fsencode(text).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _public_part(uri: str) -> str:
    protocol, _, rest = uri.partition("://")
    authority, slash, path = rest.partition("/")
    query_at = authority.find("?")
    if query_at >= 0:  # no path: host?query
        authority, slash, path = authority[:query_at], "", authority[query_at:] + slash + path
    user, at, host = authority.rpartition("@")
    # A bare name before the @ is a container on Azure (abfss://container@account), but a token in a web address.
    if at and (":" in user or protocol.lower() in ("http", "https")):
        authority = host
    if protocol.lower() in _QUERIED:
        path = _without_signature(path.partition("#")[0])
    return f"{protocol}://{authority}{slash}{path}"


def _without_signature(path: str) -> str:
    path, mark, query = path.partition("?")
    if not mark:
        return path
    kept = [shown for part in query.split("&") if (shown := _shown(part))]
    return f"{path}?{'&'.join(kept)}" if kept else path


def _shown(parameter: str) -> str:
    """A parameter as it may be shown: whole, with a digest for its value, or not at all."""
    name, equals, value = parameter.partition("=")
    plain = unquote_plus(name)
    if _SECRET.fullmatch(plain) or (not equals and len(name) >= 16):
        return ""
    if _DOUBTFUL.fullmatch(plain) or (_RANDOM.fullmatch(value) and not _UUID.fullmatch(value)):
        return f"{name}=~{hashlib.sha256(value.encode()).hexdigest()[:8]}"
    return parameter
