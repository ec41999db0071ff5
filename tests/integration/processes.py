"""Commands in processes of their own, as forks of the process of forker.py."""

import contextlib
import json
import os
import random
import shlex
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TIMEOUT = 300


class Job:
    """A running command, in one process or in several ranks."""

    def __init__(self, forker, pids, log):
        self.forker, self.pids, self.log_path, self.codes = forker, pids, log, {}

    def running(self):
        for pid in set(self.pids) - set(self.codes):
            code = self.forker.ask({"poll": pid})
            if code is not None:
                self.codes[pid] = code
        return len(self.codes) < len(self.pids)

    def wait(self):
        """Wait for the end; return the exit codes of all ranks."""
        deadline = time.monotonic() + TIMEOUT
        while self.running():
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"still running after {TIMEOUT} s:\n{self.log()[-3000:]}")
            time.sleep(0.02)
        return [self.codes[pid] for pid in self.pids]

    def kill(self):
        """Send SIGKILL to all ranks."""
        for pid in set(self.pids) - set(self.codes):
            os.kill(pid, signal.SIGKILL)
            self.codes[pid] = self.forker.ask({"wait": pid})

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""


class Forker:
    """The process of forker.py, which starts commands on request."""

    def __init__(self):
        environment = dict(os.environ, OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "forker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=HERE,
        )

        self.lock = threading.Lock()

    def ask(self, request):
        """Send a request; return the answer."""
        with self.lock:
            print(json.dumps(request), file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())

    def end(self):
        """End the process, also while others hold its standard input: its forks have copies."""
        with self.lock:
            print(file=self.process.stdin, flush=True)
            self.process.stdin.close()
            self.process.wait(timeout=30)

    def start(self, argv, folder, ranks=1, env=None, before=None, programs=None, errors=None):
        """Start a command in a folder. Several ranks get the environment that torchrun sets.

        ``errors``, ``before``, ``programs``: see forker.py.
        """
        folder.mkdir(parents=True, exist_ok=True)
        log, pids = folder / "log", []
        port = free_port() if ranks > 1 else None
        for rank in range(ranks):
            variables = {}
            if ranks > 1:
                variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks}
                variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            variables = {**(env or {}), **{key: str(value) for key, value in variables.items()}}
            request = {"argv": [str(a) for a in argv], "cwd": str(folder), "log": str(log)}
            more = {"errors": errors, "before": before, "programs": programs}
            request |= {"env": variables, **{name: value and str(value) for name, value in more.items()}}
            pids.append(self.ask({"run": request}))
        return Job(self, pids, log)

    @contextlib.contextmanager
    def relay(self):
        """The port at which relay.py asks for commands, in the meantime."""
        ask = self.ask

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                pid = ask({"run": json.loads(self.rfile.readline())})
                while (code := ask({"poll": pid})) is None:
                    time.sleep(0.02)
                self.wfile.write(f"{code}\n".encode())

        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield server.server_address[1]
            server.shutdown()

    @contextlib.contextmanager
    def programs(self, folder):
        """Fill a folder with Python and the installed commands, which are forks, too, in the meantime.

        A command that starts others finds them beside its Python. It must not be killed: they would go on.
        """
        python = shlex.quote(sys.executable)
        with self.relay() as port:
            relay = f"{python} -SE {shlex.quote(str(HERE / 'relay.py'))} {port}"
            names = {name: f"{relay} {name}" for name in ("fairseq-hydra-train", "bridle")}
            for name, command in {**names, "python": python}.items():
                (folder / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
                (folder / name).chmod(0o755)
            yield folder


def free_port():
    """A free port below the ephemeral range.

    An ephemeral port could be assigned to a parallel test before rank 0 listens on it, and the other ranks would hang.
    """
    for port in random.SystemRandom().sample(range(15000, 32000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("none of 100 ports is free")
