"""A real vLLM server of the zoo and its adapters, that can be killed and started again."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ZOO = Path(__file__).parents[2] / "examples" / "zoo"
ADAPTERS = sorted(path.name for path in (ZOO / "adapters").iterdir())
CONTEXT = 256


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class RealServer:
    """Experts are served under their names, the base as `base`."""

    def __init__(self, folder):
        self.port = free_port()
        self.log = folder / "server.log"
        self.process = None

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self):
        return f"{self.address}/v1"

    def start(self):
        """Comes back at once."""
        command = [
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
            *("--host", "127.0.0.1", "--port", str(self.port), "--model", str(ZOO / "base")),
            *("--served-model-name", "base", "--generation-config", "vllm", "--enforce-eager"),
            *("--dtype", "float32", "--max-model-len", str(CONTEXT), "--enable-lora"),
            *("--kv-cache-memory-bytes", str(1 << 28), "--disable-uvicorn-access-log"),
            "--no-enable-chunked-prefill",  # on a CPU, parts of sampled prompts end vLLM's core
            *("--max-loras", "9", "--max-cpu-loras", "16", "--max-lora-rank", "32"),
            *("--lora-modules", *(f"{name}={ZOO / 'adapters' / name}" for name in ADAPTERS)),
        ]
        local = {
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "VLLM_HOST_IP": "127.0.0.1",
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
            "HF_HUB_OFFLINE": "1",
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | local, start_new_session=True
            )

    def wait(self, seconds=300):
        """Until it answers."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.address}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.5)
        raise AssertionError(f"it does not start: {self.log.read_text()[-4000:]}")

    def answered(self):
        """How many requests it has answered since it was started."""
        with urllib.request.urlopen(f"{self.address}/metrics", timeout=30) as reply:
            text = reply.read().decode()
        counts = re.findall(r"^vllm:request_success_total\{.*\} (\S+)$", text, re.MULTILINE)
        return int(sum(map(float, counts)))

    def kill(self):
        """As the kernel does when there is no memory left."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def at(server, expert, **options):
    """`expert` asked there."""
    options = {"url": server.url, "deadline": 300, "concurrency": 32, **options}
    changes = {"engine": "server", "model": f"openai/{expert.name}", "options": options}
    return expert.model_copy(update={"adapter": None, "mixture": None, **changes})
