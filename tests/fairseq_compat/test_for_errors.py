"""Sentences for known errors. Their way through fairseq's commands is tested in tests/integration/test_bad_input.py."""

import errno
import multiprocessing
import os
import subprocess
import sys

import pytest
from torch.multiprocessing import ProcessExitedException

from fairseq_compat.for_errors import RunError, explain, sentences

# Texts of torch 2.13.
GLOO = (
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [10.0.0.7]:59601: Connection reset by peer."
)
WORKER = (
    "DataLoader worker (pid 71) is killed by signal: Bus error. It is possible that dataloader's workers are out of"
)
KNOWN = {
    "ours": (RunError("no room"), "no room", 2),
    "gloo": (RuntimeError(f"{GLOO} This is\ntypically"), "Read error [10.0.0.7]:59601: Connection reset by peer", 1),
    "gloo, no answer": (
        RuntimeError("[gloo/b.cc:81] Timed out waiting 1800000ms for recv"),
        "Timed out",
        1,
    ),
    "store": (type("DistNetworkError", (RuntimeError,), {})("Connection was likely closed."), "lost its connection", 1),
    "shared memory": (RuntimeError(WORKER), "expected a larger one (docker run --shm-size=8g), or dataset.num_wor", 2),
    "shared tensor": (
        RuntimeError("unable to write to file </torch_7>: No space left on device"),
        "/dev/shm",
        2,
    ),
    "rank that ended": (ProcessExitedException("process 1 terminated", 1, 71, 2), "", 2),
    "rank that was killed": (ProcessExitedException("process 1 got SIGKILL", 1, 71, -9), "process 1 got SIGKILL", 1),
}


@pytest.mark.parametrize("kind", KNOWN)
def test_known_error_has_a_sentence_and_a_code(kind):
    error, part, code = KNOWN[kind]
    sentence, exit_code = explain(error)
    assert part in sentence and exit_code == code and (bool(part) or sentence == "")


@pytest.mark.parametrize(
    ("number", "part"), [(errno.ENOSPC, "too little shared memory"), (errno.EMFILE, "limit of open files (ulimit -n)")]
)
def test_lock_that_cannot_be_made_is_known(monkeypatch, number, part):
    def fail(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("multiprocessing.synchronize._multiprocessing.SemLock", fail)
    with pytest.raises(OSError, match=os.strerror(number)) as raised:
        multiprocessing.get_context("fork").Lock()
    sentence, code = explain(raised.value)
    assert part in sentence and ("/dev/shm" in sentence) == (number == errno.ENOSPC) and code == 2


UNKNOWN = [
    RuntimeError("connection of the estimator to the encoder"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (gloo)"),
    OSError(errno.ENOSPC, "No space left on device"),
    ValueError("x"),
]


@pytest.mark.parametrize("error", UNKNOWN)
def test_other_errors_keep_their_traceback(error):
    assert explain(error) == ("", 0)
    with pytest.raises(type(error)), sentences():
        raise error


def test_sentence_is_one_line_on_stderr(capfd):
    with pytest.raises(SystemExit) as end, sentences():
        raise RunError("no\nroom")
    assert end.value.code == 2 and capfd.readouterr().err == "fairseq: error: no room\n"


def test_interrupt_is_one_line(capfd):
    with pytest.raises(SystemExit) as end, sentences():
        raise KeyboardInterrupt
    assert end.value.code == 130 and capfd.readouterr().err == "fairseq: interrupted\n"


@pytest.mark.parametrize("where", ["imports", "training", "another command"])
def test_interrupt_of_a_training_command_is_one_line(where):
    name = "fairseq-generate" if where == "another command" else "fairseq-hydra-train"
    script = f"""
import contextlib, signal, sys
from fairseq_compat.for_errors import end_imports_at_interrupt, sentences
sys.argv[0] = "bin/{name}"
signal.signal(signal.SIGINT, signal.default_int_handler)
end_imports_at_interrupt(None)
with sentences() if {where == "training"} else contextlib.nullcontext():
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        print("unwound")
        raise
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ("unwound" in done.stdout) == (where != "imports")
    assert (done.stderr == "fairseq: interrupted\n" and done.returncode == 130) == (where != "another command")
