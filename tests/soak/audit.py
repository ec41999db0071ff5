"""Notes what a process must not do when it reads a stranger's file: start programs, use the network, write elsewhere.

Run before a command (``before`` of tests/integration/forker.py) or imported. Notes go to the file ``$SOAK_NOTES``.
Writing is allowed below the folders of ``$SOAK_ALLOWED``, separated by colons.
"""

import os
import resource
import sys

NOTES = os.environ.get("SOAK_NOTES", "")
ALLOWED = tuple(filter(None, os.environ.get("SOAK_ALLOWED", "").split(":")))
PROGRAMS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn", "os.startfile")
NETWORK = ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request")
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
OWN_WORKER = "bridle_fairseq.data.video.worker"  # decodes video


def note(column, text):
    with open(NOTES, "a") as file:
        file.write(f"{column} {text}\n")


def outside(path):
    """Whether a path is one that must not be written; descriptors and devices are none."""
    if not isinstance(path, str | bytes | os.PathLike):
        return False
    path = os.path.realpath(os.fsdecode(path))
    inside = any(path == place or path.startswith(f"{place}/") for place in (*ALLOWED, "/dev", "/proc"))
    return not inside and path != NOTES


def hook(event, arguments):
    if event in PROGRAMS:
        if not (event == "subprocess.Popen" and OWN_WORKER in str(arguments[1])):
            note("executed", f"{event} {arguments[:2]}"[:500])
    elif event in NETWORK:
        ranks = "127.0.0.1" in str(arguments) and "WORLD_SIZE" in os.environ
        unix = event == "socket.connect" and isinstance(arguments[-1], str | bytes)  # workers of data loaders
        if not (ranks or unix):
            note("executed", f"{event} {arguments[-1:]}"[:500])
    elif event == "open":
        path, mode, flags = arguments
        if isinstance(flags, int) and flags & WRITING and outside(path):
            note("outside", f"open {path!r} {mode}")
    elif event in CHANGES:
        paths = arguments[:2] if event in ("os.rename", "os.link", "os.symlink") else arguments[:1]
        in_folder = event != "os.truncate" and arguments[-1] != -1  # relative to an open folder, as shutil.rmtree does
        for path in paths:
            if outside(path) and not (in_folder and not os.path.isabs(path)):
                note("outside", f"{event} {path!r}")


if NOTES:
    sys.dont_write_bytecode = True  # a fork does not read PYTHONDONTWRITEBYTECODE
    sys.addaudithook(hook)
if os.environ.get("SOAK_LIMIT"):  # of the size of files: stands for a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["SOAK_LIMIT"]),) * 2)
