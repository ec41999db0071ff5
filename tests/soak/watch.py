"""Damaged files, read by a process that is watched: time, memory, and what audit.py notes."""

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

from tally import Result
from workshop import computing_seconds

SECONDS = 10  # of computing for a file; on a busy machine it may wait longer for its turn
PATIENCE = 6  # times these seconds, whatever it does
MEGABYTES = 500  # over the base of the reader
STARTED = 180  # seconds, on a busy machine
PROGRAM = Path(__file__).with_name("reader.py")


class WatchedReader:
    """The process of reader.py; it is started again after a crash or a hang. It may write where a case may."""

    def __init__(self, shop):
        self.shop, self.process = shop, None

    def _start(self):
        places = f"{self.shop.scratch / 'tmp'}:{self.shop.scratch / 'case' / 'out'}"
        env = dict(os.environ, SOAK_NOTES=str(self.shop.notes), SOAK_ALLOWED=places, OMP_NUM_THREADS="1")
        self.errors = self.shop.scratch / "reader.log"
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors.open("w"),
            env=env,
            bufsize=0,
            start_new_session=True,
        )
        self._ask("command", self.shop.fresh("nothing"), STARTED)  # fails at once, and is there then

    def _ask(self, kind, path, seconds):
        """The answer; None if there is none in time; the exit code if the process ended."""
        self.process.stdin.write(json.dumps({"kind": kind, "path": str(path)}).encode() + b"\n")
        data, begin, computed = b"", time.monotonic(), computing_seconds(self.process.pid)
        while not data.endswith(b"\n"):
            if not select.select([self.process.stdout], [], [], seconds / 20)[0]:
                busy = computing_seconds(self.process.pid) - computed
                if busy > seconds or time.monotonic() - begin > PATIENCE * seconds:
                    return None
                continue
            received = self.process.stdout.read(1 << 16)
            if not received:
                return self.process.wait()
            data += received
        return json.loads(data)

    def read(self, kind, path, evidence=None):
        """A :class:`Result` of reading a file or folder; ``evidence`` is what a finding saves."""
        result, evidence = Result(), evidence or path
        if self.process is None:
            self._start()
        answer = self._ask(kind, path, SECONDS)
        if answer is None:
            result.add("hang", f"no end after {SECONDS} s of computing or {PATIENCE * SECONDS} s", evidence)
            self.close()
        elif isinstance(answer, int):
            result.add("traceback", f"the process ended with {answer}: {self.errors.read_text()[-2000:]}", evidence)
            self.process = None
        else:
            result.tried[answer["result"]] += 1
            result.megabytes = answer["megabytes"]
            if answer["result"] == "traceback":
                result.add("traceback", answer["text"], evidence)
            if answer["megabytes"] > MEGABYTES:
                result.add("memory", f"{answer['megabytes']:.0f} MB over the base", evidence)
            if self.shop.canary in answer["text"]:
                result.add("leaked", answer["text"], evidence)
        self.shop.collect(result, *([path] if kind == "command" else []))
        return result

    def close(self):
        if self.process is not None:
            os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None
