"""A judge's server for benchmarks: answers each request after a fixed time, as many at once as come.

`python -m tests.benchmarks.latency_server --latency 0.2 --share 0.1 --status 429` prints its base URL. GET /count
gives the number of requests and of answers as JSON; GET /reset sets both to zero. One event loop and no HTTP
library, so that the server takes as little as possible of the machine that is being measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from random import Random

ANSWER = json.dumps(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 0,
        "model": "bench",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Output (a)"}, "finish_reason": "stop"},
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 4, "total_tokens": 104},
    }
).encode()
FAULT = json.dumps({"error": {"message": "scripted fault", "type": "scripted", "code": None}}).encode()


class Server:
    def __init__(self, latency_s: float, share: float, status: int, seed: int) -> None:
        self.latency_s, self.share, self.status = latency_s, share, status
        self.random = Random(seed)
        self.n_requests = self.n_answers = 0

    def reply(self, path: str) -> tuple[float, bytes]:
        """What to send for a request, and when."""
        if path == "/count":
            return 0.0, _response(200, json.dumps({"requests": self.n_requests, "answers": self.n_answers}).encode())
        if path == "/reset":
            self.n_requests = self.n_answers = 0
            return 0.0, _response(200, b"{}")
        self.n_requests += 1
        if self.random.random() < self.share:
            return self.latency_s, _response(self.status, FAULT)
        self.n_answers += 1
        return self.latency_s, _response(200, ANSWER)


def _response(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} scripted\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Connection(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self.server, self.buffer = server, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n")[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            self.buffer = self.buffer[end + 4 + length :]
            wait, payload = self.server.reply(head.split(b" ", 2)[1].decode())
            asyncio.get_running_loop().call_later(wait, self.send, payload)

    def send(self, payload: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(payload)


async def serve(server: Server, port: int) -> None:
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: Connection(server), "127.0.0.1", port, backlog=2048)
    print(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1", flush=True)
    await listening.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description="A judge's server for benchmarks.")
    parser.add_argument("--latency", type=float, default=0.2, help="seconds per answer")
    parser.add_argument("--share", type=float, default=0.0, help="share of requests that get a fault")
    parser.add_argument("--status", type=int, default=429, help="status of the fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=0)
    o = parser.parse_args()
    asyncio.run(serve(Server(o.latency, o.share, o.status, o.seed), o.port))


if __name__ == "__main__":
    main()
