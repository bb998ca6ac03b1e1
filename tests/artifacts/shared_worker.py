"""A machine of its own for the tests of shared stores: `python -m tests.artifacts.shared_worker ACTION URL LOG …`."""

import os
import sys
import threading
import time
from pathlib import Path

from alpaca_farm_core.artifacts import bucket, lease
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.base import Config
from alpaca_farm_core.pipeline.run import run_stage
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult
from tests.pipeline import toy

LARGE = bytes(range(256)) * 256  # 64 KiB, 64 parts


class NoConfig(Config):
    pass


def note(log, line):
    with open(log, "a") as stream:
        stream.write(f"{line}\n")


def crowd(url, log, threads):
    """Many attempts at one stage, each with a disk of its own."""

    def slow(context: StageContext) -> StageResult:
        note(log, "ran")
        time.sleep(1.5)
        (context.output / "x.txt").write_text("x")
        return StageResult(metrics={})

    stage = Stage("slow", 1, NoConfig, {}, "dataset", slow)
    base = Path(os.environ["ALPACA_FARM_CACHE"])

    def attempt(number, store):
        done = run_stage(stage, NoConfig(), {}, store=store, name="slow")
        note(log, f"got {done.artifact.reference} {(done.artifact.path / 'x.txt').read_text()}")

    stores = []
    for number in range(threads):
        os.environ["ALPACA_FARM_CACHE"] = str(base / str(number))
        stores.append(Store(url))
    running = [threading.Thread(target=attempt, args=pair) for pair in enumerate(stores)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def upload(url, log, pause):
    """Publish a file of many parts, slowly."""
    bucket.PART_BYTES = 1024
    put = bucket.Bucket.put

    def slowly(self, key, content):
        put(self, key, content)
        if key.startswith("blobs/"):
            note(log, "part")
            time.sleep(pause)

    bucket.Bucket.put = slowly
    lease.SILENCE_SECONDS = 2.0

    def large(context: StageContext) -> StageResult:
        (context.output / "large.bin").write_bytes(LARGE)
        return StageResult(metrics={})

    run_stage(Stage("large", 1, NoConfig, {}, "dataset", large), NoConfig(), {}, store=Store(url), name="large")


def chain(url, log, factor):
    """Two stages, the first of which another machine may have made."""
    store = Store(url)
    data = run_stage(toy.NUMBERS, toy.NumbersConfig(), {}, store=store, name="numbers")
    config = toy.ScaleConfig(factor=factor)
    scaled = run_stage(toy.SCALE, config, {"numbers": data.artifact}, store=store, name="scaled")
    note(log, f"{data.cached} {scaled.cached} {scaled.artifact.reference}")


if __name__ == "__main__":
    action, url, log, number = sys.argv[1:]
    if action == "crowd":
        crowd(url, log, int(number))
    elif action == "upload":
        upload(url, log, float(number))
    else:
        chain(url, log, float(number))
