"""An OpenAI-compatible server for tests, that obeys as a tiny model would, or fails as it is told.

It says what a model called `plain` or `backwards` would: words made up from the prompt and, where
the temperature is above 0, from the seed. One called `parrot` repeats the prompt.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import NamedTuple

WORDS = [f"w{i}" for i in range(200)]
CONTEXT = 100
"""Words that a prompt may have."""


class Fault(NamedTuple):
    """How one request goes wrong."""

    status: int = 200
    body: object = None
    """Sent in place of an answer: bytes as they are, else as JSON; a function gets the answer."""
    headers: Mapping[str, str] = MappingProxyType({})
    seconds: float = 0.0
    """Before it answers."""
    close: bool = False
    """Before it answers."""
    pieces: int = 0
    """How many pieces of a stream are sent before these two."""
    before_each: float = 0.0
    """Seconds before each piece of a stream."""
    done: bool = True
    """Whether a stream says that it is over."""


FINE = Fault()


def refusal(status, message="you may not", **headers):
    error = {"error": {"message": message, "type": "test", "code": None}}
    return Fault(status, error, {name.replace("_", "-"): str(v) for name, v in headers.items()})


class Server:
    """Answers at `url`; `faults` are met by the requests that come, in turn."""

    def __init__(self):
        self.faults = deque()
        self.always = FINE
        """Once there are no more `faults`."""
        self.asked = []
        """The body of every request that came, with `path` and `authorization`."""
        self.answered = Counter()
        """By prompt: how often an answer was sent whole."""
        self.times = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._http = _Http(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self):
        return self.at("plain")

    def at(self, model):
        """The address of one of its models."""
        return f"http://127.0.0.1:{self._http.server_port}/{model}/v1"

    def prompts(self):
        return [body["messages"][-1]["content"] for body in self.asked]

    def close(self):
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @contextmanager
    def one_more(self, body):
        with self._lock:
            self.asked.append(body)
            self.times.append(time.monotonic())
            fault = self.faults.popleft() if self.faults else self.always
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield fault
        finally:
            with self._lock:
                self._at_once -= 1

    def sent(self, body):
        with self._lock:
            self.answered[body["messages"][-1]["content"]] += 1


class _Http(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request, client_address):
        pass  # the client went away: tests are about that


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        seen = {"path": self.path, "authorization": self.headers.get("Authorization"), **body}
        with self.owner.one_more(seen) as fault:
            if not fault.pieces:
                time.sleep(fault.seconds)
                if fault.close:
                    self.close_connection = True
                    return
            status, answer = complete(self.path.split("/")[1], body)
            if fault.body is not None:
                status = fault.status
                answer = fault.body(answer) if callable(fault.body) else fault.body
            if body.get("stream") and status == 200 and isinstance(answer, dict):
                whole = self.send_stream(events(answer, body), fault)
            else:
                self.send_whole(status, answer, fault.headers)
                whole = status == 200
        if whole and fault.body is None:
            self.owner.sent(body)

    def send_whole(self, status, answer, headers):
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        # In one piece: two small ones wait for each other (Nagle).
        self._headers_buffer.append(b"\r\n" + data)
        self.flush_headers()

    def send_stream(self, pieces, fault):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if not fault.done:
            pieces = [p for p in pieces if b'"finish_reason": "' not in p and p != b"[DONE]"]
        for i, piece in enumerate(pieces):
            if fault.pieces and i == fault.pieces:
                time.sleep(fault.seconds)
                if fault.close:
                    self.close_connection = True
                    return False
            time.sleep(fault.before_each)
            data = b"data: " + piece + b"\n\n"
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")
        return True


def events(answer, body):
    """An answer as a stream tells it: word by word."""

    def event(choices, **more):
        about = {k: v for k, v in answer.items() if k not in {"choices", "usage"}}
        about["object"] = "chat.completion.chunk"
        return json.dumps({**about, "choices": choices, **more}).encode()

    found = []
    choices = answer.get("choices")
    if not isinstance(choices, list) or not all("message" in choice for choice in choices):
        found.append(json.dumps(answer).encode())
        choices = []
    for choice in choices:
        index, text = choice["index"], choice["message"]["content"]
        found.append(
            event([{"index": index, "delta": {"role": "assistant"}, "finish_reason": None}])
        )
        for word in re.findall(r"\s*\S+|\s+$", text or ""):
            found.append(
                event([{"index": index, "delta": {"content": word}, "finish_reason": None}])
            )
    ends = [
        {"index": choice["index"], "delta": {}, "finish_reason": choice["finish_reason"]}
        for choice in choices
    ]
    if ends:
        found.append(event(ends))
    if answer.get("usage") and body.get("stream_options", {}).get("include_usage"):
        found.append(event([], usage=answer["usage"]))
    return [*found, b"[DONE]"]


def complete(model, body):
    """Status and answer of a model that does as it is told."""
    prompt = "\n".join(message["content"] for message in body["messages"])
    read = len(body["messages"]) + prompt.count(" ")
    if read > CONTEXT:
        told = f"a prompt of {read} tokens is more than the {CONTEXT} of this model"
        return 400, {"error": {"message": told, "type": "invalid_request_error", "code": None}}
    drawn = ""
    seed = body.get("seed")
    top_p = body.get("top_p", 1)
    if body["temperature"] > 1e-3 and top_p > 1e-3:
        drawn = f"{body['temperature']} {top_p} {seed}"
    rng = random.Random(hashlib.blake2b(f"{model}\0{prompt}\0{drawn}".encode()).digest())
    words = rng.choices(WORDS, k=rng.randint(4, 20))
    finish, limit = "stop", body["max_tokens"]
    if model == "parrot":
        words = prompt.split()
    if len(words) > limit:
        words, finish = words[:limit], "length"
    text = " ".join(words)
    for stop in body.get("stop", ()):
        if stop in text:
            text, finish = text.partition(stop)[0], "stop"
    return 200, {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": finish,
            }
        ],
        "usage": {
            "prompt_tokens": read,
            "completion_tokens": len(text.split()),
            "total_tokens": read + len(text.split()),
        },
    }
