"""A scripted judge over real HTTP, in the shape of OpenAI's chat completions.

Its taste is a function of the two outputs that it reads from the prompt (as the built-in annotators lay it
out); its faults are scripted by the running number of the request. In a test:

    with JudgeServer(taste=shorter, fault=first(3, status(429))) as judge:
        ... ExecutionConfig(base_url=judge.base_url)

By hand, for another process: `python -m tests.annotators.judge_server --taste shorter --port 8123`.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Taste = Callable[[str, str], int]
_OUTPUTS = re.compile(r"## Output \(a\)\n(.*)\n\n## Output \(b\)\n(.*)\n\n## Which output is better\?", re.DOTALL)
_LIST = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s", re.MULTILINE)


def shorter(a: str, b: str) -> int:
    """1 when the first output is the shorter one (or as short), else 2."""
    return 1 if len(a) <= len(b) else 2


def longer(a: str, b: str) -> int:
    return 1 if len(a) >= len(b) else 2


def lists(a: str, b: str) -> int:
    """Prefers the output with more list items; then the shorter one."""
    items_a, items_b = len(_LIST.findall(a)), len(_LIST.findall(b))
    return shorter(a, b) if items_a == items_b else (1 if items_a > items_b else 2)


def first_shown(a: str, b: str) -> int:
    """A judge with nothing but position bias."""
    return 1


TASTES: dict[str, Taste] = {"shorter": shorter, "longer": longer, "lists": lists, "first": first_shown}


@dataclass(frozen=True)
class Reply:
    """What the server does instead of, or as, a right answer.

    `text` replaces the judge's words; `raw` the whole body; `cut` sends only half of the body; `hang_s`
    waits before answering; `trickle_s` sends a byte each so many seconds; `reset` drops the connection.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None
    refusal: str | None = None
    finish_reason: str = "stop"
    raw: bytes | None = None
    content_type: str = "application/json"
    cut: bool = False
    hang_s: float = 0.0
    trickle_s: float = 0.0
    reset: bool = False


Script = Callable[[int], "Reply | None"]


def status(code: int, error_code: str = "", message: str = "scripted fault", **headers: str) -> Reply:
    """An HTTP error in OpenAI's shape; header names are written with underscores."""
    error = {"message": message, "type": "scripted", "code": error_code or None, "param": None}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=code, headers=named, raw=json.dumps({"error": error}).encode())


HALF = Reply(cut=True)
HTML = Reply(raw=b"<html>a proxy says hello</html>", content_type="text/html")
NO_CHOICES = Reply(raw=b'{"object": "chat.completion", "choices": []}')
NOT_JSON = Reply(raw=b'{"object": "chat.compl')
NOT_UTF8 = Reply(raw=b'{"choices": [{"message": {"content": "\xff\xfe"}}]}')
RESET = Reply(reset=True)


def always(reply: Reply) -> Script:
    return lambda number: reply


def first(n: int, reply: Reply) -> Script:
    """The first `n` requests get `reply`."""
    return lambda number: reply if number < n else None


def every(n: int, reply: Reply) -> Script:
    """Requests 0, n, 2n … get `reply`."""
    return lambda number: reply if number % n == 0 else None


class JudgeServer:
    """The server; `bodies` are all requests so far, `headers` and `paths` theirs.

    `in_flight` counts those being answered, `peak` the most of them at once.
    """

    def __init__(
        self, taste: Taste = shorter, fault: Script | None = None, latency_s: float = 0.0, port: int = 0
    ) -> None:
        self.taste = taste
        self.fault = fault or (lambda number: None)
        self.latency_s = latency_s
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.n_answered = 0
        self.peak = 0
        self.in_flight = 0
        self._lock = threading.Lock()
        self._http = _Server(("127.0.0.1", port), _handler_of(self))
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> JudgeServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def arrive(self, body: dict[str, Any], headers: dict[str, str], path: str) -> int:
        """Record a request; return its running number."""
        with self._lock:
            self.bodies.append(body)
            self.headers.append(headers)
            self.paths.append(path)
            self.in_flight += 1
            self.peak = max(self.peak, self.in_flight)
            return len(self.bodies) - 1

    def leave(self, answered: bool) -> None:
        with self._lock:
            self.in_flight -= 1
            self.n_answered += answered

    def judge(self, body: Mapping[str, Any]) -> str:
        """Read the outputs from the prompt and speak by taste, in the form that the prompt asks for."""
        prompt = body["messages"][-1]["content"]
        found = _OUTPUTS.search(prompt)
        if found is None:
            return "I see no outputs."
        best = self.taste(found[1], found[2])
        if '"better"' in prompt:
            return json.dumps({"explanation": "scripted taste", "better": best})
        return f"Output ({'ab'[best - 1]})"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients of these tests hang up on purpose."""


def _handler_of(judge: JudgeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            number = judge.arrive(body, {name.lower(): value for name, value in self.headers.items()}, self.path)
            answered = False
            try:
                time.sleep(judge.latency_s)
                answered = self._send(body, judge.fault(number) or Reply())
            finally:
                judge.leave(answered)

        def _send(self, body: Mapping[str, Any], reply: Reply) -> bool:
            time.sleep(reply.hang_s)
            if reply.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
                return False
            payload = reply.raw if reply.raw is not None else _completion(body, judge, reply)
            head = [f"HTTP/1.1 {reply.status} scripted", f"Content-Type: {reply.content_type}"]
            head += [f"{name}: {value}" for name, value in reply.headers.items()]
            head += [f"Content-Length: {len(payload)}", "", ""]
            self.wfile.write("\r\n".join(head).encode())
            if reply.cut:
                self.wfile.write(payload[: len(payload) // 2])
                self.close_connection = True
                return False
            for start in range(0, len(payload), 1 if reply.trickle_s else len(payload)):
                self.wfile.write(payload[start : start + 1] if reply.trickle_s else payload)
                time.sleep(reply.trickle_s)
            return reply.status == 200 and reply.raw is None

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    return Handler


def _completion(body: Mapping[str, Any], judge: JudgeServer, reply: Reply) -> bytes:
    text = reply.text if reply.text is not None else judge.judge(body)
    message = {"role": "assistant", "content": None if reply.refusal else text, "refusal": reply.refusal}
    answer = {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": 0,
        "model": f"{body['model']}-build7",
        "system_fingerprint": "fp_scripted",
        "choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason, "logprobs": None}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 4, "total_tokens": 104},
    }
    return json.dumps(answer).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description="A scripted judge over HTTP.")
    parser.add_argument("--taste", choices=sorted(TASTES), default="shorter")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds per answer")
    options = parser.parse_args()
    with JudgeServer(TASTES[options.taste], latency_s=options.latency, port=options.port) as judge:
        print(judge.base_url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
