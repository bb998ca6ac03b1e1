"""A scripted Batch API over real HTTP, beside the scripted judge's chat completions.

`POST /v1/files`, `POST /v1/batches`, `GET /v1/batches…`, `GET /v1/files/ID/content`, in OpenAI's shape. A batch
is done after `looks` looks at it; `outcome(number)` may replace the result of the call on line `number`.
Everything else is the judge's. `submitted` holds the calls of each batch.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.annotators.judge_server import JudgeServer, Reply, _completion, _handler_of, _Server

Outcome = Callable[[int], "Mapping[str, Any] | None"]


def failed(status: int, code: str = "") -> dict[str, Any]:
    """A result line's response for a call that the provider could not answer."""
    return {"status_code": status, "body": {"error": {"message": "scripted", "code": code or None, "type": "scripted"}}}


class BatchServer(JudgeServer):
    """The judge's server with batches; `die_after_create` makes it hang up right after making a batch."""

    def __init__(self, outcome: Outcome | None = None, looks: int = 2, status: str = "completed") -> None:
        super().__init__()
        self.outcome = outcome or (lambda number: None)
        self.looks = looks
        self.status = status
        self.drop_lines = 0
        self.die_after_create = False
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.submitted: list[list[dict[str, Any]]] = []
        self.n_looks = 0
        self._batch_lock = threading.Lock()
        self._http.server_close()
        self._http = _Server(("127.0.0.1", 0), _batch_handler_of(self))
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def make(self, body: Mapping[str, Any]) -> dict[str, Any]:
        with self._batch_lock:
            lines = [json.loads(line) for line in self.files[body["input_file_id"]].splitlines()]
            self.submitted.append(lines)
            batch = {
                "id": f"batch_{len(self.batches)}",
                "object": "batch",
                "status": "validating",
                "metadata": body["metadata"],
                "looks": 0,
                "lines": lines,
            }
            self.batches[batch["id"]] = batch
            return self.shown(batch)

    def look(self, batch_id: str) -> dict[str, Any]:
        with self._batch_lock:
            batch = self.batches[batch_id]
            batch["looks"] += 1
            self.n_looks += 1
            if batch["looks"] >= self.looks and batch["status"] not in ("completed", "failed", "expired"):
                self.finish(batch)
            return self.shown(batch)

    def finish(self, batch: dict[str, Any]) -> None:
        batch["status"] = self.status
        if self.status == "failed":
            batch["errors"] = {"data": [{"message": "the model does not exist", "code": "model_not_found"}]}
            return
        good, bad = [], []
        for number, line in enumerate(batch["lines"][: len(batch["lines"]) - self.drop_lines]):
            response = self.outcome(number)
            if response is None:
                body = json.loads(_completion(line["body"], self, Reply()))
                response = {"status_code": 200, "body": body}
            (good if response["status_code"] == 200 else bad).append(
                json.dumps({"id": f"r{number}", "custom_id": line["custom_id"], "response": response, "error": None})
            )
        for name, rows in (("output_file_id", good), ("error_file_id", bad)):
            if rows:
                batch[name] = f"file_{name}_{batch['id']}"
                self.files[batch[name]] = "\n".join(rows).encode()

    @staticmethod
    def shown(batch: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in batch.items() if key not in ("looks", "lines")}


def _batch_handler_of(server: BatchServer) -> type[BaseHTTPRequestHandler]:
    class Handler(_handler_of(server)):  # type: ignore[misc]
        def do_POST(self) -> None:
            if self.path == "/v1/files":
                content = self.rfile.read(int(self.headers["Content-Length"]))
                boundary = self.headers["Content-Type"].split("boundary=")[1].encode()
                parts = [part for part in content.split(b"--" + boundary) if b'name="file"' in part]
                name = f"file_{len(server.files)}"
                server.files[name] = parts[0].split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
                self._json({"id": name, "object": "file", "purpose": "batch", "bytes": 1, "created_at": 0,
                            "filename": "x", "status": "processed"})  # fmt: skip
            elif self.path == "/v1/batches":
                batch = server.make(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                if server.die_after_create:
                    self.close_connection = True
                    self.connection.close()
                    return
                self._json(batch)
            else:
                super().do_POST()

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path == "/v1/batches":
                rows = [server.shown(batch) for batch in server.batches.values()]
                self._json({"object": "list", "data": rows[::-1], "has_more": False})
            elif path.startswith("/v1/batches/"):
                self._json(server.look(path.rsplit("/", 1)[1]))
            else:
                self._bytes(server.files[path.split("/")[3]], "application/octet-stream")

        def _json(self, value: Any) -> None:
            self._bytes(json.dumps(value).encode(), "application/json")

        def _bytes(self, payload: bytes, kind: str) -> None:
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(payload)}\r\n\r\n"
            self.wfile.write(head.encode() + payload)

    return Handler


def wait_for(what: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something has happened."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.005)
