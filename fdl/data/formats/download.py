"""Fetching a publisher's file over HTTP without hanging: short time limits, a checksum, a file whole or absent."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from absl import logging

from fdl.data.formats.signatures import LENGTH, content_name
from fdl.environment import cache_dir
from fdl.types import UserError, one_line

CONNECT_SECONDS = 4.0
STALL_SECONDS = 10.0
GIVE_UP_SECONDS = 6.0  # on the first answer, looking up the name included: no socket limit covers that

MEND = "get the official file again, or choose another form with --set data.source=..."
"""What to do about a publisher's file that is not as it should be."""


@dataclasses.dataclass(frozen=True)
class Remote:
    """A file, where it is published, and what it must be."""

    url: str
    size: int
    sha256: str


class UnavailableError(Exception):
    """What was to be downloaded cannot be had: no network, no such host, another answer, no room to keep it."""


def damaged(path: Path, error: Exception) -> UserError:
    """Return the error to raise when a publisher's file cannot be unpacked."""
    size = path.stat().st_size if path.is_file() else 0
    return UserError(f"{path} ({size:,} bytes) is damaged: {one_line(error)}; {MEND}")


def sha256_of(path: Path) -> str:
    """Digest a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reach(url: str) -> None:
    """Check that the host offers the file, without waiting for all of it.

    Raises:
        UnavailableError: it does not, or not within GIVE_UP_SECONDS.
    """
    _open(url).close()


def fetch(remote: Remote, to: Path, attempts: int = 2) -> Path:
    """Download the file, check size and sha256, and put it at `to`, whole.

    A host that does not answer is given up at once; a transfer that breaks off is tried again, `attempts` in all.

    Raises:
        UnavailableError: in at most GIVE_UP_SECONDS where the host does not answer.
    """
    logging.info("downloading %s (%s bytes)", remote.url, f"{remote.size:,}")
    partial = to.with_name(to.name + ".part")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, attempts + 1):
            try:
                _transfer(_open(remote.url), partial, remote.size)
                break
            except OSError as error:  # requests' errors are OSErrors
                if attempt == attempts:
                    raise UnavailableError(f"{remote.url}: the transfer broke off ({_first_line(error)})") from error
        size, digest = partial.stat().st_size, sha256_of(partial)
        if (size, digest) != (remote.size, remote.sha256):
            with partial.open("rb") as file:
                known = content_name(file.read(LENGTH))
            what = f"{known or 'a file'} of {size:,} bytes with sha256 {digest[:12]}..."
            raise UnavailableError(
                f"{remote.url} gave {what}, expected {remote.size:,} bytes with sha256 {remote.sha256[:12]}..."
            )
        return partial.replace(to)
    except OSError as error:
        raise UnavailableError(f"{to} cannot be written ({error.strerror})") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def cached(remote: Remote, name: str, offline: bool) -> Path | None:
    """Return the file as fdl's cache holds it under `name`, downloaded where it is not there; None: it is not, and offline.

    Raises:
        UnavailableError: it cannot be downloaded.
    """
    path = cache_dir() / name
    if path.is_file() and sha256_of(path) == remote.sha256:
        return path
    return None if offline else fetch(remote, path)


def _open(url: str) -> Any:
    """Return the answer to a GET, headers read, body not; proxies as the environment has them."""
    import requests

    answer: list[Any] = []

    def ask() -> None:
        try:
            response = requests.get(url, stream=True, timeout=(CONNECT_SECONDS, STALL_SECONDS))
            response.raise_for_status()
            answer.append(response)
        except Exception as error:  # carried to the thread that waits
            answer.append(error)

    # Looking up a name has no time limit of its own, so another thread waits for it and may be left behind.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(GIVE_UP_SECONDS)
    host = urlsplit(url).netloc
    if not answer:
        raise UnavailableError(f"{host} did not answer within {GIVE_UP_SECONDS:g} s")
    if isinstance(answer[0], Exception):
        raise UnavailableError(f"{host} cannot be reached ({_first_line(answer[0])})") from answer[0]
    return answer[0]


def _transfer(response: Any, to: Path, size: int) -> None:
    with response, to.open("wb") as file:
        for block in response.iter_content(1 << 16):
            file.write(block)
            if file.tell() > size:  # it cannot be the file any more, however much is still to come
                return


def _first_line(error: Exception) -> str:
    """Return the innermost reason, on one line: requests wraps the system's message three deep."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    reason = getattr(error, "reason", None)
    text = str(reason or error).splitlines() or [type(error).__name__]
    return re.sub(r"^HTTPS?Connection(Pool)?\(.*?\): |^<.*? object at 0x\w+>: ", "", text[0])[:160]
