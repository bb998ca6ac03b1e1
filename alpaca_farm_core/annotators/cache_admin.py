"""Looking after a call cache: what is in it, taking answers out on request, carrying them elsewhere.

In: a cache. Out: figures, or files of one answer a line. Removes nothing unless told what to remove.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.annotators.calls import Answer
from alpaca_farm_core.annotators.imported import IMPORTED
from alpaca_farm_core.annotators.prices import usd
from alpaca_farm_core.artifacts.files import read_jsonl, write_jsonl
from alpaca_farm_core.errors import DataError

_COMMIT = 1000


def stats(cache: CallCache) -> dict[str, Any]:
    """Count answers and money.

    Returns:
        n_answers, bytes on disk, `models` (per model as the server named it: answers, refusals, price), and
        from the ledger `accounts` and `spending` (per account, annotator and model); dollars throughout.
    """
    models: dict[str, dict[str, Any]] = defaultdict(lambda: {"answers": 0, "refused": 0, "unpriced": 0, "usd": 0.0})
    n = 0
    for answers in cache.walk():
        for answer in answers.values():
            n += 1
            row = models[answer.model or answer.finish_reason or "unknown"]
            row["answers"] += 1
            row["refused"] += answer.refused
            row["unpriced"] += answer.price_usd is None
            row["usd"] += answer.price_usd or 0.0
    with cache.readable_errors():
        accounts = cache.ledger.accounts()
        spending = cache.ledger.spending()
        size = sum(path.stat().st_size for path in cache.folder.rglob("*") if path.is_file())
    fields = ("account", "annotator", "model", "answers", "usd", "unpriced", "prompt_tokens", "completion_tokens")
    return {
        "folder": str(cache.folder),
        "n_answers": n,
        "bytes": size,
        "models": {name: models[name] for name in sorted(models)},
        "accounts": {
            name: {
                "spent_usd": usd(balance.spent),
                "lost_usd": usd(balance.lost),
                "held_usd": usd(balance.held),
                "n_lost": balance.n_lost,
            }
            for name, balance in accounts.items()
        },
        "spending": [dict(zip(fields, (*row[:4], usd(row[4]), *row[5:]), strict=True)) for row in spending],
    }


def prune(cache: CallCache, model: str = "", refused: bool = False, imported: bool = False, dry: bool = True) -> Any:
    """Count, and unless `dry` remove, answers that match all that is asked for.

    Args:
        cache: Where.
        model: Name of the model as the server gave it; "" = any.
        refused: Only refusals.
        imported: Only imported labels.
        dry: Remove nothing.

    Returns:
        n and usd of what matched.
    """
    keys, dollars = [], 0.0
    for answers in cache.walk():
        for key, answer in answers.items():
            fits = not model or answer.model == model
            fits = fits and (not refused or answer.refused) and (not imported or answer.finish_reason == IMPORTED)
            if fits:
                keys.append(key)
                dollars += answer.price_usd or 0.0
    if not dry:
        cache.remove(keys)
    return {"n": len(keys), "usd": dollars}


def export_answers(cache: CallCache, path: Path) -> int:
    """Write all answers to a JSONL file, one with its key a line; return how many."""
    n = 0

    def rows() -> Iterator[Mapping[str, Any]]:
        nonlocal n
        for answers in cache.walk():
            for key, answer in answers.items():
                n += 1
                yield {"key": key, "answer": answer.to_json()}

    write_jsonl(path, rows())
    return n


def import_answers(cache: CallCache, path: Path) -> dict[str, int]:
    """Keep the answers of a file written by `export_answers`; what is there already stays as it is.

    Returns:
        Counts of answers: new, known.

    Raises:
        DataError: not such a file; the line is named. What stood before that line may have been kept.
    """
    counts = {"new": 0, "known": 0}
    batch: dict[str, Answer] = {}
    for number, row in enumerate(read_jsonl(path), start=1):
        key = _key(path, number, row)
        batch[key] = _answer(path, number, row)
        if len(batch) == _COMMIT:
            _add(cache, batch, counts)
            batch = {}
    _add(cache, batch, counts)
    return counts


def _add(cache: CallCache, batch: Mapping[str, Answer], counts: dict[str, int]) -> None:
    known = cache.read(batch)
    cache.commit({key: answer for key, answer in batch.items() if key not in known})
    counts["known"] += len(known)
    counts["new"] += len(batch) - len(known)


def _key(path: Path, number: int, row: Mapping[str, Any]) -> str:
    key = row.get("key")
    if not isinstance(key, str) or not key:
        raise DataError(f"{path}, answer {number}: no key.", "Import a file made by `alpaca-farm cache export`.")
    return key


def _answer(path: Path, number: int, row: Mapping[str, Any]) -> Answer:
    try:
        answer = Answer.from_json(row["answer"])
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path}, answer {number}: {error}.", "Import a file made by `alpaca-farm cache export`."
        ) from None
    if not isinstance(answer.text, str) or not isinstance(answer.price_usd, int | float | None):
        raise DataError(f"{path}, answer {number}: text or price is none.", "Repair that line.")
    return answer
