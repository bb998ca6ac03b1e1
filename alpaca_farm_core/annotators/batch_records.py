"""Batches that are under way at a provider, on disk, so that a killed run finds them again.

One JSON file per batch beside the call cache, written before the batch is sent: what was asked (call
keys), under which token, and, once it is known, the provider's id.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from alpaca_farm_core.artifacts.files import read_json, write_json
from alpaca_farm_core.errors import StoreError


@dataclass(frozen=True)
class BatchRecord:
    """One batch: our token for it, where it was sent, its calls, and the provider's id ("" = not known yet)."""

    token: str
    url: str
    keys: tuple[str, ...]
    batch_id: str = ""

    def with_id(self, batch_id: str) -> BatchRecord:
        """Return the record with the provider's id."""
        return replace(self, batch_id=batch_id)


class BatchRecords:
    """The records of one cache.

    Args:
        folder: Where they lie; made when the first is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def pending(self, url: str) -> list[BatchRecord]:
        """Return what is under way at an endpoint, oldest first.

        Raises:
            StoreError: a record is damaged.
        """
        records = [self._read(path) for path in sorted(self._folder.glob("*.json"))]
        return [record for record in records if record.url == url]

    def write(self, record: BatchRecord) -> None:
        """Write a record, durably, before going on."""
        write_json(self._folder / f"{record.token}.json", asdict(record))

    def remove(self, records: Iterable[BatchRecord]) -> None:
        """Forget batches whose answers are committed."""
        for record in records:
            (self._folder / f"{record.token}.json").unlink(missing_ok=True)

    def _read(self, path: Path) -> BatchRecord:
        try:
            data = read_json(path)
            return BatchRecord(**{**data, "keys": tuple(data["keys"])})
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(
                f"The record of a batch {path} is damaged: {error}.",
                "Move it away: the batch is then asked for again, and paid for again.",
            ) from None
