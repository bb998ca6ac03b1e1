"""The workspace of a stage in progress, kept in a bucket, so that another machine goes on from it.

In: a local workspace. Out: its files below `workspaces/<fp>/files` and a list of them, `state.json`, written
last. Whoever gets the stage's lease next takes that list, unless the list is its own. A snapshot is taken at
each beat of the lease and at the end; files that vanish meanwhile leave the snapshot before in force.
"""

from __future__ import annotations

import json
import shutil
import threading
import uuid
from pathlib import Path

from alpaca_farm_core.artifacts.bucket import Bucket, as_json
from alpaca_farm_core.artifacts.files import read_json, sha256_file, write_json
from alpaca_farm_core.errors import ArtifactDamagedError

_MARK = ".mirror"
_UNSHARED = (".tmp", ".lock", ".part", _MARK)


class Mirror:
    """Copies one workspace to the bucket and back."""

    def __init__(self, bucket: Bucket, fingerprint: str, workspace: Path) -> None:
        self._bucket, self._workspace = bucket, workspace
        self._prefix = f"workspaces/{fingerprint}"
        self._sent: dict[str, tuple[int, int, str]] = {}  # path → size, time, sha256
        self._busy = threading.Lock()

    def pull(self) -> None:
        """Bring the local workspace to the newest snapshot, if another machine took it.

        A snapshot that is damaged is not used: the stage then begins with what is here.
        """
        content = self._bucket.read(f"{self._prefix}/state.json")
        if content is None:
            return
        snapshot = json.loads(content)
        mark = self._workspace / _MARK
        if mark.exists() and read_json(mark) == snapshot["id"]:
            return
        coming = self._workspace.with_name(f".{self._workspace.name}.coming")
        shutil.rmtree(coming, ignore_errors=True)
        coming.mkdir(parents=True)
        try:
            for path, (size, sha256) in snapshot["files"].items():
                self._bucket.download(coming / path, size, sha256, f"{self._prefix}/files")
        except ArtifactDamagedError:
            shutil.rmtree(coming)
            return
        write_json(coming / _MARK, snapshot["id"])
        shutil.rmtree(self._workspace, ignore_errors=True)
        coming.rename(self._workspace)

    def push(self) -> None:
        """Take a snapshot if anything changed since the last one."""
        with self._busy:
            files = {path: path.stat() for path in self._files()} if self._workspace.is_dir() else {}
            now = {str(p.relative_to(self._workspace)): (s.st_size, s.st_mtime_ns) for p, s in files.items()}
            if not now or now == {path: entry[:2] for path, entry in self._sent.items()}:
                return
            try:
                self._send(now)
            except FileNotFoundError:  # the stage replaced a checkpoint meanwhile; the next beat takes the new one
                return

    def clear(self) -> None:
        """Forget the snapshots: the artifact is published."""
        with self._busy:
            self._bucket.delete(f"{self._prefix}/state.json")
            self._bucket.delete(self._prefix)

    def _send(self, now: dict[str, tuple[int, int]]) -> None:
        sent: dict[str, tuple[int, int, str]] = {}
        for path, (size, changed) in now.items():
            known = self._sent.get(path)
            if known is not None and known[:2] == (size, changed):
                sent[path] = known
                continue
            file = self._workspace / path
            sha256 = sha256_file(file)
            self._bucket.upload(file, sha256, f"{self._prefix}/files")
            sent[path] = (file.stat().st_size, changed, sha256)
        identity = uuid.uuid4().hex
        listed = {path: [size, sha256] for path, (size, _, sha256) in sent.items()}
        write_json(self._workspace / _MARK, identity)
        self._bucket.put(f"{self._prefix}/state.json", as_json({"id": identity, "files": listed}))
        for old in {e[2] for e in self._sent.values()} - {e[2] for e in sent.values()}:
            self._bucket.delete(f"{self._prefix}/files/{old}")
        self._sent = {path: (now[path][0], now[path][1], entry[2]) for path, entry in sent.items()}

    def _files(self) -> list[Path]:
        found = (path for path in sorted(self._workspace.rglob("*")) if path.is_file())
        return [p for p in found if not any(part.endswith(_UNSHARED) for part in p.relative_to(self._workspace).parts)]
