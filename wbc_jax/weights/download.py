"""Download of published weights: streamed, resumed, verified by SHA-256, and only then given its name."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from wbc_jax.errors import UsageError, WeightsError

MAX_DOWNLOAD_BYTES = 2 * 2**30
"""Most bytes accepted from a server; torchvision's largest trunk here, resnet152, has 0.24 GB."""

_CHUNK_BYTES = 1 << 20
_SCHEMES = ("http", "https")
_NETWORK_ERRORS = (
    urllib.error.URLError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
)
Progress = Callable[[int, int | None], None]
Release = Literal["v1", "v2"]


@dataclass(frozen=True)
class PublishedWeights:
    """A file of torchvision's ImageNet weights (research terms of ImageNet apply).

    Attributes:
        file_name: carries the first 8 hex digits of the file's SHA-256.
        top1_percent: published ImageNet-1K top-1 accuracy.
    """

    file_name: str
    top1_percent: float

    @property
    def url(self) -> str:
        return f"https://download.pytorch.org/models/{self.file_name}"

    @property
    def sha256_prefix(self) -> str:
        return self.file_name.removesuffix(".pth").rpartition("-")[2]


PUBLISHED: dict[tuple[str, Release], PublishedWeights] = {
    ("resnet18", "v1"): PublishedWeights("resnet18-f37072fd.pth", 69.758),
    ("resnet34", "v1"): PublishedWeights("resnet34-b627a593.pth", 73.314),
    ("resnet50", "v1"): PublishedWeights("resnet50-0676ba61.pth", 76.130),
    ("resnet50", "v2"): PublishedWeights("resnet50-11ad3fa6.pth", 80.858),
    ("resnet101", "v1"): PublishedWeights("resnet101-63fe2227.pth", 77.374),
    ("resnet101", "v2"): PublishedWeights("resnet101-cd907fc2.pth", 81.886),
    ("resnet152", "v1"): PublishedWeights("resnet152-394f9c45.pth", 78.312),
    ("resnet152", "v2"): PublishedWeights("resnet152-f82ba261.pth", 82.284),
    ("densenet121", "v1"): PublishedWeights("densenet121-a639ec97.pth", 74.434),
    ("densenet169", "v1"): PublishedWeights("densenet169-b2777c0a.pth", 75.600),
    ("densenet201", "v1"): PublishedWeights("densenet201-c1103571.pth", 76.896),
}
"""Architecture and release (v1: original recipe, v2: torchvision's newer recipe) to the published file."""


def fetch_pretrained(
    arch: str, folder: Path, release: Release = "v1", progress: Progress | None = None
) -> Path:
    """torchvision's ImageNet weights of a trunk in `folder`, downloaded unless they are there already.

    Raises:
        UsageError: torchvision publishes no such weights.
        WeightsError: as `fetch`.
    """
    published = PUBLISHED.get((arch, release))
    if published is None:
        raise UsageError(
            f"torchvision publishes no {release} weights of {arch!r}",
            expected=", ".join(f"{name} {version}" for name, version in PUBLISHED),
            where="arch",
        )
    target = Path(folder) / published.file_name
    return fetch(published.url, published.sha256_prefix, target, progress=progress)


def fetch(
    url: str,
    sha256: str,
    destination: Path,
    *,
    max_bytes: int = MAX_DOWNLOAD_BYTES,
    timeout_s: float = 30.0,
    attempts: int = 3,
    progress: Progress | None = None,
) -> Path:
    """Download `url` to `destination` and return it, unless it is there already with the right digest.

    Bytes go to `<destination>.part`. A broken connection leaves that file, and the next attempt (of this call
    or a later one) continues it; a file whose digest is wrong is deleted.

    Args:
        url: http or https, also after redirects.
        sha256: hex digest of the file, or at least its first 8 digits (as in torchvision's file names).
        destination: final file name; its folder is made.
        max_bytes: refuse a larger file.
        timeout_s: longest silence of the server, seconds.
        attempts: connections tried before giving up.
        progress: called with (bytes so far, total bytes or None).

    Raises:
        UsageError: another scheme, or a malformed digest.
        WeightsError: no connection, an HTTP error, too many bytes, no space, or a wrong digest.
    """
    digest = _checked_digest(sha256)
    _check_scheme(url, "url")
    destination = Path(destination)
    if destination.exists():
        _check_existing(destination, digest)
        return destination
    part = destination.with_name(f"{destination.name}.part")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        resumed = _download(url, part, max_bytes, timeout_s, attempts, progress)
        if not _digest(part).startswith(digest) and resumed:
            part.unlink()  # what was there may have been the beginning of something else: once from the start
            _download(url, part, max_bytes, timeout_s, attempts, progress)
        found = _digest(part)
        if not found.startswith(digest):
            part.unlink()
            raise WeightsError(
                f"the downloaded file has SHA-256 {found}; it was deleted",
                expected=f"a digest that begins with {digest}",
                where=url,
                remedy="try again; if it stays so, the file was changed or a proxy answers in its place",
            )
        os.replace(part, destination)
    except OSError as error:
        raise WeightsError(f"cannot write the download: {error.strerror}", where=str(part)) from error
    return destination


class _SameSchemes(urllib.request.HTTPRedirectHandler):
    """Redirects stay on http(s), and https is not given up."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        _check_scheme(newurl, f"redirect of {req.full_url}")
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            raise UsageError("a redirect from https to http", expected="https", where=newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_scheme(url: str, where: str) -> None:
    if urlsplit(url).scheme.lower() not in _SCHEMES:
        raise UsageError(
            f"cannot download from {url!r}",
            expected="an http:// or https:// address",
            where=where,
            remedy="for a local file give its path as input instead",
        )


def _checked_digest(sha256: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{8,64}", sha256.lower()):
        raise UsageError(
            f"not a SHA-256: {sha256!r}", expected="64 hex digits, or at least the first 8", where="sha256"
        )
    return sha256.lower()


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_existing(path: Path, digest: str) -> None:
    found = _digest(path)
    if not found.startswith(digest):
        raise WeightsError(
            f"a file of that name exists with SHA-256 {found}",
            expected=f"a digest that begins with {digest}",
            where=str(path),
            remedy="move it away or choose another destination; it is not overwritten",
        )


def _download(
    url: str, part: Path, max_bytes: int, timeout_s: float, attempts: int, progress: Progress | None
) -> bool:
    """Fill `part`, in as many connections as allowed; whether bytes from an earlier call were used."""
    resumed = part.exists() and part.stat().st_size > 0
    problem = ""
    for attempt in range(1, attempts + 1):
        try:
            _receive(url, part, max_bytes, timeout_s, progress)
            return resumed
        except WeightsError:  # too large: nothing of it is worth keeping
            part.unlink(missing_ok=True)
            raise
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and part.exists():  # nothing lies beyond the part on disk
                resumed = True
                if _is_complete(error, part):
                    return resumed
                part.unlink()
                problem = "the part on disk does not belong to this file"
            elif error.code < 500 or attempt == attempts:
                raise _unreachable(url, f"HTTP {error.code} {error.reason}", attempt) from error
            else:
                problem = f"HTTP {error.code}"
        except _NETWORK_ERRORS as error:
            problem = str(getattr(error, "reason", None) or error)
        if attempt < attempts:
            time.sleep(0.2 * 2 ** (attempt - 1))
    raise _unreachable(url, problem, attempts)


def _is_complete(error: urllib.error.HTTPError, part: Path) -> bool:
    size = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
    return size is not None and int(size[1]) == part.stat().st_size


def _receive(url: str, part: Path, max_bytes: int, timeout_s: float, progress: Progress | None) -> None:
    """One connection: continue `part` where the server allows it, else start again."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "wbc-jax", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    opener = urllib.request.build_opener(_SameSchemes())
    with opener.open(request, timeout=timeout_s) as response:
        continued = response.status == 206 and response.headers.get("Content-Range", "").startswith(
            f"bytes {start}-"
        )
        done = start if continued else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length is not None and length.isdigit() else None
        if total is not None and total > max_bytes:
            raise _too_large(url, total, max_bytes)
        with part.open("ab" if continued else "wb") as stream:
            while chunk := response.read(_CHUNK_BYTES):
                done += len(chunk)
                if done > max_bytes:  # a server may promise less than it sends, or promise nothing
                    raise _too_large(url, done, max_bytes)
                stream.write(chunk)
                if progress is not None:
                    progress(done, total)
            stream.flush()
            os.fsync(stream.fileno())
    if total is not None and done < total:  # read(n) ends quietly when the connection does
        raise ConnectionError(f"the connection ended after {done} of {total} bytes")


def _too_large(url: str, size: int, max_bytes: int) -> WeightsError:
    return WeightsError(
        f"the server offers {size} bytes or more",
        expected=f"at most {max_bytes} bytes",
        where=url,
        remedy="check the address: trunk weights have less than 0.3 GB",
    )


def _unreachable(url: str, problem: str, attempts: int) -> WeightsError:
    return WeightsError(
        f"download failed after {attempts} attempt{'s' if attempts > 1 else ''}: {problem}",
        where=url,
        remedy="check the connection and repeat: what was received is kept; or fetch the file by other "
        "means and give its path",
    )
