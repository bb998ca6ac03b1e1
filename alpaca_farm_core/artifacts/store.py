"""The store: the one cache of stage results, on a local folder; `Store(url)` gives the one for many machines.

Layout: `artifacts/<kind>/<name>/v<N>/` (payload and manifest), `fingerprints/<fp>` (one line per
build: where it lies), `aliases/<kind>/<name>/<alias>`, `workspaces/<fp>/` (stages in progress),
`locks/`, `calls/` (API answers). Publishing appends to `fingerprints/<fp>` first and renames the
folder last, so a crash in between leaves a line that points nowhere, which readers pass over.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from alpaca_farm_core.artifacts.disk import readable_storage_errors
from alpaca_farm_core.artifacts.files import fsync_folder, fsync_tree, read_json, write_json, write_text_atomic
from alpaca_farm_core.artifacts.locks import exclusive, is_held
from alpaca_farm_core.artifacts.manifest import KINDS, MANIFEST, Artifact, Kind, Manifest
from alpaca_farm_core.errors import (
    ArtifactDamagedError,
    ArtifactNotFoundError,
    DataError,
    StoreError,
    UsageError,
)

STORE_SCHEMA = 1
STORE_VARIABLE = "ALPACA_FARM_STORE"
SHARED_AT = "store.json"
"""File in the call cache's folder of a store for many machines: its URL, for whoever keeps a budget there."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def default_location() -> Path:
    """The store's place when none is given: `$ALPACA_FARM_STORE`, else one folder per user."""
    named = os.environ.get(STORE_VARIABLE)
    if named:
        return Path(named).expanduser().absolute()
    data_home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data_home) / "alpaca-farm"


class Store:
    """Artifacts, workspaces, aliases and locks under one root folder.

    Args:
        location: Folder of the store, or a URL (s3://…, then this makes a `SharedStore`); None takes
            `$ALPACA_FARM_STORE`, else `default_location()`.

    Raises:
        StoreError: the place cannot be used, or a newer version wrote it.
    """

    def __new__(cls, location: str | Path | None = None, *args: Any) -> Store:
        """Choose the class by the place."""
        if cls is Store and is_url(location or os.environ.get(STORE_VARIABLE)):
            from alpaca_farm_core.artifacts.shared import SharedStore

            return super().__new__(SharedStore)
        return super().__new__(cls)

    def __init__(self, location: str | Path | None = None) -> None:
        self.root = Path(location).expanduser().absolute() if location else default_location()
        with readable_storage_errors(self.root):
            self._open()

    def _open(self) -> None:
        marker = self.root / "store.json"
        self.root.mkdir(parents=True, exist_ok=True)
        if not marker.exists():
            write_json(marker, {"schema_version": STORE_SCHEMA})
        schema = int(read_json(marker)["schema_version"])
        if schema > STORE_SCHEMA:
            raise StoreError(
                f"The store {self.root} was written by a newer version (schema {schema} > {STORE_SCHEMA}).",
                "Upgrade alpaca-farm-flows, or choose another folder with --store.",
            )

    @property
    def location(self) -> str:
        """What opens this store again: `Store(store.location)`, in another process or on another machine."""
        return str(self.root)

    @property
    def calls(self) -> Path:
        """Folder of the API-call cache."""
        return self.root / "calls"

    # Reading -----------------------------------------------------------------------------------

    def find(
        self, fingerprint: str, on_damage: Callable[[str], None] | None = None, payload: bool = True
    ) -> Artifact | None:
        """Return the newest sound artifact of a fingerprint, or None.

        Sound means: manifest present, of this fingerprint, and every file of its stated size.
        A damaged one is reported to `on_damage` and never returned. `payload=False` says that only the
        manifest is wanted, which saves a store of many machines the download.
        """
        for place in reversed(self.builds(fingerprint)):
            if not (self.root / place).exists():
                continue  # a publish that never finished, or an artifact removed by gc
            try:
                artifact = Artifact.read(self.root / place)
                self.check(artifact, payload)
            except (ArtifactDamagedError, DataError) as error:
                if on_damage is not None:
                    on_damage(error.headline)
                continue
            if artifact.fingerprint == fingerprint:
                return artifact
        return None

    def check(self, artifact: Artifact, payload: bool = True) -> None:
        """Check that an artifact's files are here with their stated sizes.

        Raises:
            ArtifactDamagedError: naming the first file that is not.
        """
        check_sizes(artifact)

    def builds(self, fingerprint: str) -> list[str]:
        """Places (relative to the root) where a fingerprint was ever published, oldest first."""
        index = self._index(fingerprint)
        return index.read_text(encoding="utf-8").split("\n")[:-1] if index.exists() else []

    def artifacts(self, kind: Kind | None = None, on_damage: Callable[[str], None] | None = None) -> Iterator[Artifact]:
        """Yield every artifact with a readable manifest, by kind, name and version; report the others."""
        for folder in self.folders(kind):
            try:
                yield Artifact.read(Path(folder))
            except (ArtifactDamagedError, DataError) as error:
                if on_damage is not None:
                    on_damage(error.headline)

    def folders(self, kind: Kind | None = None) -> Iterator[str]:
        """Yield the folders that have a manifest, by kind, name and version."""
        home = f"{self.root}/artifacts"
        for one in [kind] if kind else _names_in(home):
            for name in _names_in(f"{home}/{one}"):
                for version in versions_in(f"{home}/{one}/{name}"):
                    folder = f"{home}/{one}/{name}/v{version}"
                    if os.path.exists(f"{folder}/{MANIFEST}"):
                        yield folder

    def get(self, reference: str) -> Artifact:
        """Resolve `[kind/]name[@vN|@alias]` or a fingerprint prefix (8 or more digits).

        Raises:
            ArtifactNotFoundError: nothing matches, or more than one thing does.
        """
        if re.fullmatch(r"[0-9a-f]{8,64}", reference):
            return self._by_prefix(reference)
        place, _, selector = reference.partition("@")
        kind, name = place.split("/", 1) if "/" in place else ("*", place)
        usable = _is_name(name) and (kind == "*" or kind in KINDS)
        folders = [f for f in self.root.glob(f"artifacts/{kind}/{name}") if f.is_dir()] if usable else []
        if not folders:
            raise ArtifactNotFoundError(f"There is no artifact '{reference}'.", "See `alpaca-farm artifacts list`.")
        if len(folders) > 1:
            kinds = sorted(folder.parent.name for folder in folders)
            raise ArtifactNotFoundError(
                f"'{name}' exists as {', '.join(kinds)}.", f"Write for example {kinds[0]}/{name}."
            )
        return self._select(folders[0], selector or "latest")

    def _select(self, folder: Path, selector: str) -> Artifact:
        versions = versions_in(folder)
        aliases = self.aliases(folder.parent.name, folder.name)
        if selector == "latest" and versions:
            return Artifact.read(folder / f"v{versions[-1]}")
        if re.fullmatch(r"v\d+", selector) and int(selector[1:]) in versions:
            return Artifact.read(folder / selector)
        if selector in aliases:
            return Artifact.read(folder / f"v{aliases[selector]}")
        known = ", ".join([*(f"v{v}" for v in versions), *sorted(aliases), "latest"])
        raise ArtifactNotFoundError(f"{folder.parent.name}/{folder.name} has no '{selector}'.", f"It has: {known}.")

    def _by_prefix(self, prefix: str) -> Artifact:
        found = [artifact for name in self.fingerprints(prefix) if (artifact := self.find(name))]
        if len(found) != 1:
            problem = "matches several artifacts" if found else "matches no artifact"
            raise ArtifactNotFoundError(f"The fingerprint {prefix} {problem}.", "See `alpaca-farm artifacts list`.")
        return found[0]

    def fingerprints(self, prefix: str) -> list[str]:
        """Published fingerprints that begin with `prefix`, sorted."""
        return sorted(p.name for p in (self.root / "fingerprints").glob(f"{prefix}*"))

    # Writing -----------------------------------------------------------------------------------

    @contextmanager
    def lock(
        self, fingerprint: str, on_wait: Callable[[str], None] | None = None, or_published: bool = False
    ) -> Iterator[bool]:
        """Make one process at a time work on a fingerprint.

        Args:
            fingerprint: Of the stage.
            on_wait: Called once with who works on it, if somebody does.
            or_published: The wait may also end, without the lock, when another machine has published.

        Yields:
            Whether the lock is held; always, unless `or_published`.
        """
        with readable_storage_errors(self.root), exclusive(self.lock_file(fingerprint), on_wait):
            yield True

    def lock_file(self, fingerprint: str) -> Path:
        """The lock file of a fingerprint."""
        return self.root / "locks" / f"{fingerprint}.lock"

    def is_busy(self, fingerprint: str) -> bool:
        """Tell whether some process works on a fingerprint now."""
        return is_held(self.lock_file(fingerprint))

    def workspace(self, fingerprint: str) -> Path:
        """Folder of a stage in progress; the same fingerprint finds the same folder again."""
        return self.root / "workspaces" / fingerprint

    def publish(self, folder: Path, manifest: Manifest, name: str) -> Artifact:
        """Turn `folder` into the next version of `name` by one atomic rename.

        The caller holds the fingerprint's lock. `folder` must lie on the store's file system.
        """
        check_name(name)
        home = self.root / "artifacts" / manifest.kind / name
        home.mkdir(parents=True, exist_ok=True)
        with exclusive(self.root / "locks" / f"name-{manifest.kind}-{name}.lock"):
            note = self.root / "locks" / f"newest-{manifest.kind}-{name}"
            version = _newest_version(home, note) + 1
            target = home / f"v{version}"
            numbered = replace(manifest, volatile={**manifest.volatile, "name": name, "version": version})
            fsync_tree(folder)
            write_json(folder / MANIFEST, numbered.to_json())
            self._append_build(numbered.recipe.fingerprint, target)
            folder.rename(target)
            fsync_folder(home)
            note.write_text(f"{version} {home.stat().st_mtime_ns}\n", encoding="utf-8")
        return Artifact(target, numbered)

    def _append_build(self, fingerprint: str, target: Path) -> None:
        index = self._index(fingerprint)
        index.parent.mkdir(parents=True, exist_ok=True)
        with index.open("a", encoding="utf-8") as stream:
            stream.write(f"{target.relative_to(self.root)}\n")
            stream.flush()
            os.fsync(stream.fileno())
        fsync_folder(index.parent)

    def _index(self, fingerprint: str) -> Path:
        return self.root / "fingerprints" / fingerprint

    def discard(self, folder: Path) -> None:
        """Remove the folder of an artifact or a workspace; readers see all of it or nothing."""
        trash = folder.with_name(f".trash-{folder.name}")
        folder.rename(trash)
        shutil.rmtree(trash)

    # Aliases -----------------------------------------------------------------------------------

    def tag(self, artifact: Artifact, alias: str) -> None:
        """Point `alias` at an artifact.

        Raises:
            UsageError: the alias is reserved or not a plain word.
        """
        check_name(alias)
        if alias == "latest" or re.fullmatch(r"v\d+", alias):
            raise UsageError(f"'{alias}' is reserved.", "Choose another word; 'latest' and vN are kept by the store.")
        with readable_storage_errors(self.root):
            write_text_atomic(self.root / "aliases" / artifact.kind / artifact.name / alias, f"{artifact.version}\n")

    def aliases(self, kind: str, name: str) -> dict[str, int]:
        """Alias → version number, for one kind and name."""
        folder = self.root / "aliases" / kind / name
        if not folder.is_dir():
            return {}
        return {path.name: int(path.read_text(encoding="utf-8")) for path in sorted(folder.iterdir()) if path.is_file()}


def check_sizes(artifact: Artifact) -> None:
    """Check that every payload file is there with its stated size.

    Raises:
        ArtifactDamagedError: naming the first file that is not.
    """
    for entry in artifact.manifest.files:
        path = artifact.path / entry.path
        size = path.stat().st_size if path.is_file() else None
        if size != entry.size:
            found = "missing" if size is None else f"{size} bytes instead of {entry.size}"
            raise ArtifactDamagedError(
                f"{artifact.path}: {entry.path} is {found}.", "Run the flow again; the artifact is rebuilt."
            )


def is_url(location: str | Path | None) -> bool:
    """Tell a URL from a folder."""
    return location is not None and "://" in str(location)


def _newest_version(home: Path, note: Path) -> int:
    """Newest version in a name's folder, 0 if none: as noted, so that many versions cost nothing, or of a listing.

    The note holds while nothing has come into the folder or left it since: by the folder's time of change.
    """
    noted = note.read_text(encoding="utf-8").split() if note.is_file() else []
    if noted[1:] == [str(home.stat().st_mtime_ns)]:
        return int(noted[0])
    return max(versions_in(home), default=0)


def versions_in(folder: Path | str) -> list[int]:
    """Version numbers present in a name's folder, ascending."""
    return sorted(int(name[1:]) for name in _names_in(folder) if name[0] == "v" and name[1:].isdigit())


def _names_in(folder: Path | str) -> list[str]:
    """What a folder holds, sorted; nothing where it does not exist."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def check_name(name: str) -> None:
    """Refuse names that are not plain words.

    Raises:
        UsageError: naming the characters that are allowed.
    """
    if not _is_name(name):
        raise UsageError(f"'{name}' is not a usable name.", "Use lowercase letters, digits, '.', '-' and '_'.")


def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None
