"""A store for many machines: objects below a URL, with a local folder as read-through cache and workplace.

Objects: `blobs/<fp>/<build>/` (payload), `artifacts/<kind>/<name>/v<N>/manifest.json` (written if absent: only
this makes an artifact visible), `fingerprints/<fp>/<kind>/<name>/v<N>` (index, written before the manifest),
`leases/<fp>/`, `workspaces/<fp>/`, `aliases/`; `calls/` and `budgets/` are the annotators'. The local folder is
laid out like a local store, so what reads a store reads this one; its files come when wanted, checked by sha256.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from alpaca_farm_core.artifacts.bucket import Bucket, as_json
from alpaca_farm_core.artifacts.disk import readable_storage_errors
from alpaca_farm_core.artifacts.files import canonical_json, sha256_file, write_json, write_text_atomic
from alpaca_farm_core.artifacts.lease import Lease, is_leased, leased
from alpaca_farm_core.artifacts.manifest import MANIFEST, Artifact, Kind, Manifest
from alpaca_farm_core.artifacts.mirror import Mirror
from alpaca_farm_core.artifacts.store import (
    SHARED_AT,
    STORE_SCHEMA,
    STORE_VARIABLE,
    Store,
    check_name,
)
from alpaca_farm_core.errors import StoreError

CACHE_VARIABLE = "ALPACA_FARM_CACHE"


def cache_folder(url: str) -> Path:
    """Local folder of a shared store: below `$ALPACA_FARM_CACHE`, else the user's cache folder."""
    home = os.environ.get(CACHE_VARIABLE) or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    base = Path(home).expanduser().absolute()
    place = base if os.environ.get(CACHE_VARIABLE) else base / "alpaca-farm"
    return place / hashlib.sha256(url.encode()).hexdigest()[:16]


class SharedStore(Store):
    """The store at a URL; `root` is this machine's cache of it.

    Args:
        location: The URL; None takes `$ALPACA_FARM_STORE`.

    Raises:
        StoreError: the URL or the cache folder cannot be used, or a newer version wrote the store.
    """

    def __init__(self, location: str | Path | None = None) -> None:
        self._url = str(location or os.environ[STORE_VARIABLE]).rstrip("/")
        self.bucket = Bucket(self._url)
        self._held: dict[str, Lease] = {}
        self._also: list[Callable[[], object]] = []
        super().__init__(cache_folder(self._url))
        if not (self.calls / SHARED_AT).exists():
            write_json(self.calls / SHARED_AT, {"url": self._url})
        self.bucket.put_if_absent("store.json", as_json({"schema_version": STORE_SCHEMA}))
        schema = int(json.loads(self.bucket.read("store.json") or b'{"schema_version": 0}')["schema_version"])
        if schema > STORE_SCHEMA:
            raise StoreError(
                f"The store {self._url} was written by a newer version (schema {schema} > {STORE_SCHEMA}).",
                "Upgrade alpaca-farm-flows, or choose another place with --store.",
            )

    @property
    def location(self) -> str:
        """The URL."""
        return self._url

    # Reading -----------------------------------------------------------------------------------

    def builds(self, fingerprint: str) -> list[str]:
        """Places where a fingerprint was published and is visible, oldest first."""
        return sorted((place for place in self._listed(fingerprint) if self._pull_manifest(place)), key=self._age)

    def fingerprints(self, prefix: str) -> list[str]:
        """Published fingerprints that begin with `prefix`, sorted."""
        names = {key.split("/")[1] for key in self.bucket.list("fingerprints")}
        return sorted(name for name in names if name.startswith(prefix))

    def folders(self, kind: Kind | None = None) -> Iterator[str]:
        """Yield the folders of all manifests; files come with `check`."""
        self._sync()
        yield from super().folders(kind)

    def get(self, reference: str) -> Artifact:
        """Resolve a reference as `Store.get` does, and fetch the artifact's files."""
        self._sync()
        artifact = super().get(reference)
        self.check(artifact)
        return artifact

    def check(self, artifact: Artifact, payload: bool = True) -> None:
        """Fetch the files that are not here yet.

        Raises:
            ArtifactDamagedError: an object is gone or is not what was stored.
        """
        if not payload:
            return
        stored = artifact.manifest.volatile["stored"]
        unlisted = [(entry["path"], entry["size"], entry["sha256"]) for entry in stored["unlisted"]]
        for path, size, sha256 in [*((e.path, e.size, e.sha256) for e in artifact.manifest.files), *unlisted]:
            here = artifact.path / path
            if not here.is_file() or here.stat().st_size != size:
                with readable_storage_errors(self.root):
                    self.bucket.download(here, size, sha256, stored["prefix"])

    def _listed(self, fingerprint: str) -> set[str]:
        """Places of a fingerprint in the index; a publish in progress is among them."""
        prefix = f"fingerprints/{fingerprint}"
        return {f"artifacts/{key.removeprefix(prefix + '/')}" for key in self.bucket.list(prefix)}

    def _pull_manifest(self, place: str) -> bool:
        local = self.root / place / MANIFEST
        if not local.exists():
            content = self.bucket.read(f"{place}/{MANIFEST}")
            if content is None:
                return False
            write_text_atomic(local, content.decode("utf-8", errors="replace"))
        return True

    def _age(self, place: str) -> tuple[float, str]:
        try:
            volatile = json.loads((self.root / place / MANIFEST).read_text(encoding="utf-8"))["volatile"]
            return float(volatile["finished_at"]), place
        except (ValueError, KeyError):
            return 0.0, place  # damaged: `find` says so

    def _sync(self) -> None:
        """Make the local manifests those of the bucket."""
        places = {key.rpartition("/")[0] for key in self.bucket.list("artifacts") if key.endswith(f"/{MANIFEST}")}
        for place in sorted(places):
            self._pull_manifest(place)
        for manifest in self.root.glob(f"artifacts/*/*/v*/{MANIFEST}"):
            if manifest.parent.relative_to(self.root).as_posix() not in places:
                shutil.rmtree(manifest.parent)

    # Writing -----------------------------------------------------------------------------------

    @contextmanager
    def while_locked(self, action: Callable[[], object]) -> Iterator[None]:
        """Call `action` at each beat of the leases held here."""
        self._also.append(action)
        try:
            yield
        finally:
            self._also.remove(action)

    @contextmanager
    def lock(
        self, fingerprint: str, on_wait: Callable[[str], None] | None = None, or_published: bool = False
    ) -> Iterator[bool]:
        """Make one process of all machines work on a fingerprint, from the newest snapshot of its workspace."""
        before = self._listed(fingerprint) if or_published else set()
        mirror = Mirror(self.bucket, fingerprint, self.workspace(fingerprint))

        def beat() -> None:
            mirror.push()
            for action in list(self._also):
                action()

        with ExitStack() as stack:
            stack.enter_context(super().lock(fingerprint, on_wait))
            enough = (lambda: self._listed(fingerprint) != before) if or_published else (lambda: False)
            lease = stack.enter_context(leased(self.bucket, fingerprint, on_wait, beat, enough))
            if lease is None:
                yield False
                return
            stack.callback(self._held.pop, fingerprint)
            self._held[fingerprint] = lease
            mirror.pull()
            stack.callback(self._leave, mirror, fingerprint)
            yield True

    def _leave(self, mirror: Mirror, fingerprint: str) -> None:
        """Keep what an unfinished stage has done, or forget a finished one's."""
        try:
            self._held[fingerprint].require()
        except StoreError:
            return  # it is another machine's now
        if self.workspace(fingerprint).exists():
            mirror.push()
        else:
            mirror.clear()

    def is_busy(self, fingerprint: str) -> bool:
        """Tell whether some process of some machine works on a fingerprint now."""
        return super().is_busy(fingerprint) or is_leased(self.bucket, fingerprint)

    def publish(self, folder: Path, manifest: Manifest, name: str) -> Artifact:
        """Upload the files, then make them visible as the next version of `name` by one conditional write.

        The caller holds the fingerprint's lock; an upload that was cut off goes on where it was.

        Raises:
            StoreError: the lease was lost meanwhile; nothing became visible.
        """
        check_name(name)
        fingerprint = manifest.recipe.fingerprint
        prefix = f"blobs/{fingerprint}/{self._build_name(fingerprint)}"
        for entry in manifest.files:
            self.bucket.upload(folder / entry.path, entry.sha256, prefix)
        unlisted = [self._upload_unlisted(folder, path, prefix) for path in manifest.volatile["volatile_files"]]
        stored = {"prefix": prefix, "unlisted": unlisted}
        self._held[fingerprint].require()
        numbered = self._announce(manifest, name, stored)
        target = self.root / "artifacts" / manifest.kind / name / f"v{numbered.volatile['version']}"
        write_json(folder / MANIFEST, numbered.to_json())
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
        return Artifact(target, numbered)

    def _build_name(self, fingerprint: str) -> str:
        """One name for all attempts at a build, on whatever machine, so that each finds the files of the last."""
        key = f"workspaces/{fingerprint}/build"
        self.bucket.put_if_absent(key, uuid.uuid4().hex.encode())
        return (self.bucket.read(key) or b"lost").decode()

    def _upload_unlisted(self, folder: Path, path: str, prefix: str) -> dict[str, Any]:
        file = folder / path
        sha256 = sha256_file(file)
        self.bucket.upload(file, sha256, prefix)
        return {"path": path, "size": file.stat().st_size, "sha256": sha256}

    def _announce(self, manifest: Manifest, name: str, stored: dict[str, Any]) -> Manifest:
        home = f"{manifest.kind}/{name}"
        keys = self.bucket.list(f"artifacts/{home}")
        version = max((int(key.split("/")[3][1:]) for key in keys), default=0) + 1
        while True:
            own = {"name": name, "version": version, "stored": stored}
            numbered = replace(manifest, volatile={**manifest.volatile, **own})
            index = f"fingerprints/{manifest.recipe.fingerprint}/{home}/v{version}"
            self.bucket.put(index, b"-")
            text = canonical_json(numbered.to_json(), indent=1) + "\n"
            if self.bucket.put_if_absent(f"artifacts/{home}/v{version}/{MANIFEST}", text.encode("utf-8")):
                return numbered
            self.bucket.delete(index)
            version += 1

    def discard(self, folder: Path) -> None:
        """Remove an artifact or a workspace, in the bucket first; the manifest goes before the files."""
        place = folder.relative_to(self.root).as_posix()
        if place.startswith("artifacts/"):
            artifact = Artifact.read(folder)
            self.bucket.delete(f"{place}/{MANIFEST}")
            self.bucket.delete(f"fingerprints/{artifact.fingerprint}/{place.removeprefix('artifacts/')}")
            self.bucket.delete(artifact.manifest.volatile["stored"]["prefix"])
        else:
            self.bucket.delete(place)
        super().discard(folder)

    # Aliases -----------------------------------------------------------------------------------

    def tag(self, artifact: Artifact, alias: str) -> None:
        """Point `alias` at an artifact, for all machines."""
        super().tag(artifact, alias)
        self.bucket.put(f"aliases/{artifact.kind}/{artifact.name}/{alias}", f"{artifact.version}\n".encode())

    def aliases(self, kind: str, name: str) -> dict[str, int]:
        """Alias → version number, for one kind and name."""
        prefix = f"aliases/{kind}/{name}"
        shutil.rmtree(self.root / prefix, ignore_errors=True)
        for key in self.bucket.list(prefix):
            write_text_atomic(self.root / key, (self.bucket.read(key) or b"").decode())
        return super().aliases(kind, name)
