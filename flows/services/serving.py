"""`python -m flows.services.serving PORT`: Prefect's server on 127.0.0.1 until its input ends, deaf to signals."""

from __future__ import annotations

import signal
import sys
import threading

HELD_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM})


def main(port: int) -> None:
    """Serve until the end of input; exits with uvicorn's code when it cannot start."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
    import uvicorn

    application = "prefect.server.api.server:create_app"
    config = uvicorn.Config(application, factory=True, host="127.0.0.1", port=port, log_level="error", lifespan="on")
    server = uvicorn.Server(config)
    threading.Thread(target=_stop_at_end_of_input, args=(server,), daemon=True).start()
    server.run()


def _stop_at_end_of_input(server: object) -> None:
    sys.stdin.read()
    server.should_exit = True  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(int(sys.argv[1]))
