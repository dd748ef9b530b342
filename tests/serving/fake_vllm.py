"""A stand-in for vLLM that a test can kill: it takes vLLM's flags, obeys as the `letters` of
`relay_job` would, and keeps a log of every request that came and every answer that left.

    python fake_vllm.py --model DIR --port N [vLLM's flags] [--fake KEY=VALUE ...]

Its log (`--fake log=PATH`) has one JSON array a line, safe on disk before anything follows from it:
``["came", pid, key]``, ``["left", pid, key]``. What is logged as left was handed to the operating
system whole, which delivers it whatever becomes of the process.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def arguments():
    parser = argparse.ArgumentParser("fake_vllm")
    parser.add_argument("--model", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--enable-lora", action="store_true")
    parser.add_argument("--lora-modules", nargs="*", type=json.loads, default=[])
    for flag in ("max-lora-rank", "max-loras", "max-cpu-loras"):
        parser.add_argument(f"--{flag}", type=int)
    parser.add_argument("--gpu-memory-utilization", type=float)
    parser.add_argument("--kv-cache-memory-bytes", type=int)
    parser.add_argument("--fake", action="append", default=[])
    given = parser.parse_args()
    given.fake = dict(item.split("=", 1) for item in given.fake)
    return given


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def letter(name, prompt):
    """What the expert called `name`, which knows one letter, says (see `relay_job`)."""
    *told, question = prompt.removesuffix("\nAnswer:").split("\n")
    word = question.removeprefix("Question: ")
    so_far = max((line.split(": ", 1)[1] for line in told), key=len, default="")
    return so_far + name if word[len(so_far) : len(so_far) + 1] == name else so_far or "-"


class Log:
    def __init__(self, path):
        self._file = path and os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, *entry):
        if self._file is not None:
            os.write(self._file, json.dumps(entry).encode() + b"\n")
            os.fsync(self._file)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    given = None
    log = None
    done = 0

    def log_message(self, *args):
        pass

    def send(self, body, kind="application/json"):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self._headers_buffer.append(b"\r\n" + data)
        self.flush_headers()

    def do_GET(self):
        given = self.given
        if self.path == "/health":
            if "sick" in given.fake and Path(given.fake["sick"]).exists():
                self.send_error(503)
            else:
                self.send(b"")
        elif self.path == "/v1/models":
            names = [given.served_model_name, *(lora["name"] for lora in given.lora_modules)]
            names = [name for name in names if name != given.fake.get("forget")]
            self.send({"data": [{"id": name, "max_model_len": 256} for name in names]})
        elif self.path == "/metrics":
            done = f'vllm:request_success_total{{finished_reason="stop"}} {Handler.done}\n'
            self.send(done.encode(), "text/plain")
        else:
            self.send_error(404)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            self.send_error(404)
            return
        prompt = body["messages"][-1]["content"]
        key = hashlib.blake2b(f"{body['model']}\0{prompt}".encode(), digest_size=8).hexdigest()
        self.log.write("came", os.getpid(), key)
        time.sleep(float(self.given.fake.get("seconds", 0)))
        text = letter(body["model"], prompt)
        if "drift" in self.given.fake:
            text += f" {time.time_ns()}"
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(text)}
        self.send(
            {
                "id": "x",
                "object": "chat.completion",
                "created": 1,
                "model": body["model"],
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": text},
                        "finish_reason": "stop",
                    }
                ],
                "usage": {**usage, "total_tokens": len(prompt) + len(text)},
            }
        )
        self.log.write("left", os.getpid(), key)
        Handler.done += 1


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


def watch(parent):
    """Ends this and its supervisor when the tests have gone."""
    while Path(f"/proc/{parent}").exists():
        time.sleep(1)
    os.kill(os.getppid(), signal.SIGTERM)


def main():
    given = arguments()
    fake = given.fake
    if "parent" in fake:
        threading.Thread(target=watch, args=[int(fake["parent"])], daemon=True).start()
    say(f"INFO: loading {given.model}")
    if "child" in fake:  # as vLLM's engine core: it would outlive this process
        code = (
            "import time, os; os.setsid(); print('child', os.getpid(), flush=True); time.sleep(600)"
        )
        subprocess.Popen([sys.executable, "-c", code])
    if "broken" in fake and not Path(fake.get("mended", "/none")).exists():
        raise RuntimeError(fake["broken"])
    if "once" in fake:  # it starts once, and never again
        if Path(fake["once"]).exists():
            raise RuntimeError("it has been started before")
        Path(fake["once"]).touch()
    while "held" in fake and Path(fake["held"]).exists():
        time.sleep(0.02)
    if "forever" in fake:
        time.sleep(600)
    time.sleep(float(fake.get("start", 0)))
    Handler.given, Handler.log = given, Log(fake.get("log"))
    server = Server((given.host, given.port), Handler)
    say("INFO: serving")
    if "die" in fake:
        threading.Timer(float(fake["die"]), os._exit, [7]).start()
    server.serve_forever(0.05)


if __name__ == "__main__":
    main()
