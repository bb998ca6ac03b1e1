"""moto's S3 over real HTTP, in a process of its own; one request at a time, so conditional writes are atomic.

Usage: `python -m tests.artifacts.s3_server PORT`. `s3_server()` starts it for tests.
"""

import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

from tests.services.farm import free_port

SETTINGS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def s3_server():
    """Start a server with one bucket; yields the environment that reaches it."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.artifacts.s3_server", str(port)],
        env={**os.environ, **SETTINGS},
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(urllib.request.Request(f"{address}/studies", method="PUT"))
                break
            except urllib.error.URLError:
                assert process.poll() is None
                time.sleep(0.1)
        yield {**SETTINGS, "AWS_ENDPOINT_URL": address}
    finally:
        process.kill()
        process.wait()


def main():
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    app, one_at_a_time = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def atomic(environ, start_response):
        with one_at_a_time:
            return list(app(environ, start_response))

    run_simple("127.0.0.1", int(sys.argv[1]), atomic, threaded=True)


if __name__ == "__main__":
    main()
