"""Objects under one URL (s3://, gs://, az:// …): the few operations a shared store needs.

In: keys relative to the URL. Out: bytes, listings, files. The one conditional write is `put_if_absent`,
which every fsspec backend with an exclusive create offers (on S3 `If-None-Match: *`); all that must happen
once is built on it. Large files are parts of their own, so an upload goes on where it was cut off.
A bucket that has answered before may be out of reach for a while. Knows nothing of artifacts.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import fsspec

from alpaca_farm_core.artifacts.files import canonical_json, sha256_file
from alpaca_farm_core.errors import ArtifactDamagedError, StoreError

PART_BYTES = 64 * 2**20
"""Larger files are stored as parts of this size; a cut-off upload repeats at most one of them."""

OUTAGE_SECONDS = 120.0
"""A call waits so long for a bucket that is out of reach, trying again more and more seldom; the next do not wait."""

_FIRST_PAUSE, _LAST_PAUSE = 0.5, 15.0
_SERVER_ERRORS = (errno.EBUSY, errno.EREMOTEIO)  # 503 and 500, as s3fs tells them
_OUT_OF_REACH = re.compile(r"(Connect|Connection|Timeout|Disconnected|HTTPClient|TransportError|ServiceUnavailable)")
_LIBRARIES = re.compile(r"(botocore|aiohttp|google|azure|gcsfs)\.")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az"}


class Bucket:
    """Objects below a URL.

    Args:
        url: For example `s3://bucket/folder`. Credentials and endpoint come from the usual environment
            variables of the provider (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL` …).

    Raises:
        StoreError: the scheme is unknown or its package is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        scheme = self.url.partition("://")[0]
        try:
            # Listings must be what the server says now.
            self._fs: Any = fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True)
        except ImportError:
            raise StoreError(
                f"'{url}' needs a package that is not installed.",
                f"pip install 'alpaca-farm-flows[{_EXTRAS.get(scheme, scheme)}]'",
            ) from None
        except ValueError as error:
            raise StoreError(f"'{url}' is no place for a store: {error}.", "Use a folder or an s3:// URL.") from None
        self._root = self._fs._strip_protocol(self.url)
        self._answered = False

    def read(self, key: str) -> bytes | None:
        """Content of an object; None when there is none."""
        try:
            return bytes(self._patiently(lambda: self._fs.cat_file(self._path(key)), FileNotFoundError))
        except FileNotFoundError:
            return None

    def put(self, key: str, content: bytes) -> None:
        """Write an object, whether or not there is one."""
        self._patiently(lambda: self._fs.pipe_file(self._path(key), content))

    def put_if_absent(self, key: str, content: bytes) -> bool:
        """Write an object unless there is one; tell whether it was written. Of many callers one succeeds.

        Callers that could meet must write different contents.
        """
        if self._patiently(lambda: self._created(key, content)):
            return True
        return self.read(key) == content  # ours all the same, where the answer to an earlier try was lost

    def _created(self, key: str, content: bytes) -> bool:
        try:
            self._fs.pipe_file(self._path(key), content, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            if "ConditionalRequestConflict" in str(error) or "PreconditionFailed" in str(error):
                return False  # another writer of the same key is ahead
            raise
        return True

    def list(self, prefix: str) -> dict[str, int]:
        """Key → size in bytes of all objects whose key begins with the folder `prefix`."""
        found = self._patiently(lambda: self._fs.find(self._path(prefix), detail=True))
        start = len(self._root) + 1
        # s3fs lists the folder itself while its first object is being written.
        files = {path: entry for path, entry in sorted(found.items()) if entry["type"] == "file"}
        return {path[start:]: int(entry["size"]) for path, entry in files.items() if path[start:]}

    def delete(self, prefix: str) -> None:
        """Remove an object, or all below a folder."""
        for key in self.list(prefix):
            with suppress(FileNotFoundError):  # somebody else, or an earlier try
                self._patiently(partial(self._fs.rm_file, self._path(key)), FileNotFoundError)

    # Files -------------------------------------------------------------------------------------

    def upload(self, file: Path, sha256: str, prefix: str) -> None:
        """Store a file's parts below `prefix`/`sha256`; parts that are there already are not sent again."""
        size = file.stat().st_size
        present = self.list(f"{prefix}/{sha256}")
        with file.open("rb") as stream:
            for number, start in enumerate(range(0, max(size, 1), PART_BYTES)):
                key, length = _part(prefix, sha256, number), min(PART_BYTES, size - start)
                if present.get(key) != length:
                    stream.seek(start)
                    self.put(key, stream.read(length))

    def download(self, file: Path, size: int, sha256: str, prefix: str) -> None:
        """Fetch a stored file to a temporary name, check it, and rename it.

        Raises:
            ArtifactDamagedError: a part is gone or the content is not what was stored; nothing is left.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.{uuid.uuid4().hex}.part")
        try:
            with partial.open("wb") as stream:
                for number in itertools.count():  # parts of whatever size they were stored with
                    content = self.read(_part(prefix, sha256, number))
                    if content is None:
                        raise _damaged(f"{self.url}/{prefix}", file.name, "incomplete")
                    stream.write(content)
                    if stream.tell() >= size or not content:
                        break
                stream.flush()
                os.fsync(stream.fileno())
            if sha256_file(partial) != sha256:
                raise _damaged(f"{self.url}/{prefix}", file.name, "not what was stored")
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}" if key else str(self._root)

    def _patiently(self, action: Callable[[], Any], *told: type[Exception]) -> Any:
        """Do something, again and again while a bucket that has answered before is out of reach.

        Args:
            action: May be done more than once.
            told: Errors that are the caller's to handle.

        Raises:
            StoreError: it cannot be done; transient where the bucket is out of reach.
        """
        until, pause = time.monotonic() + OUTAGE_SECONDS, _FIRST_PAUSE
        while True:
            try:
                with self._readable_errors(told):
                    result = action()
            except StoreError as error:
                if error.transient and self._answered and time.monotonic() + pause < until:
                    time.sleep(pause * random.uniform(0.5, 1.0))
                    pause = min(2 * pause, _LAST_PAUSE)
                    continue
                self._answered = self._answered and not error.transient
                raise
            self._answered = True
            return result

    @contextmanager
    def _readable_errors(self, told: tuple[type[Exception], ...]) -> Iterator[None]:
        try:
            yield
        except told:
            raise
        except Exception as error:
            lost = _is_out_of_reach(error)
            ours = isinstance(error, OSError) or _LIBRARIES.match(f"{type(error).__module__}.")
            if isinstance(error, StoreError) or not (ours or lost):
                raise
            raise self._unusable(error, lost) from error

    def _unusable(self, error: Exception, lost: bool) -> StoreError:
        told = StoreError(
            f"The store {self.url} {'is out of reach' if lost else 'cannot be used'}: {error or type(error).__name__}.",
            "Check the network and the endpoint, and run the same again; finished work and checkpoints are kept."
            if lost
            else "Check credentials and that the bucket exists, and run the same again; finished work is kept.",
        )
        told.transient = lost
        return told


def _is_out_of_reach(error: BaseException | None) -> bool:
    """Tell whether the bucket did not answer, or answered that it cannot just now (500, 503)."""
    while error is not None:
        if isinstance(error, ConnectionError | TimeoutError):
            return True
        if isinstance(error, OSError) and error.errno in _SERVER_ERRORS:
            return True
        if _LIBRARIES.match(f"{type(error).__module__}.") and _OUT_OF_REACH.search(type(error).__name__):
            return True
        error = error.__cause__ or error.__context__
    return False


def as_json(value: Any) -> bytes:
    """Canonical JSON as bytes."""
    return canonical_json(value).encode("utf-8")


def _part(prefix: str, sha256: str, number: int) -> str:
    return f"{prefix}/{sha256}/{number:06d}"


def _damaged(place: str, name: str, how: str) -> ArtifactDamagedError:
    return ArtifactDamagedError(f"{place}: {name} is {how}.", "Run the flow again; the artifact is rebuilt.")
