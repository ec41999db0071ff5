"""A short soak with a fixed seed loses nothing; and a soak notices what it must notice."""

import contextlib
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ATTACKS = ("train-kills", "rank-kills", "corpus-kills", "disks", "pairs", "audio", "images", "video", "formats")


@pytest.fixture(scope="module")
def modules():
    """The soak's modules, which are imported by name; they are forgotten afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        known = set(sys.modules)
        import tally
        import watch

        yield tally, watch
        for name in set(sys.modules) - known:
            del sys.modules[name]


@pytest.fixture(scope="module")
def soak(modules, forker, tmp_path_factory):
    """Name of an attack -> what was tried, what was lost; and what the soak printed."""
    folder = tmp_path_factory.mktemp("soak")
    words = ["--short", "--seed", "12", "--table", folder / "table.json", "--findings", folder / "findings"]
    spec = importlib.util.spec_from_file_location("soak", HERE / "__main__.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    terminated, environment = signal.getsignal(signal.SIGTERM), dict(os.environ)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            program.main(list(map(str, words)), forker)
    finally:
        signal.signal(signal.SIGTERM, terminated)
        os.environ.clear()
        os.environ.update(environment)
    assert (folder / "table.json").exists(), printed.getvalue()
    return json.loads((folder / "table.json").read_text()), printed.getvalue()


@pytest.mark.parametrize("attack", ATTACKS)
def test_short_soak_loses_nothing(soak, attack):
    totals, printed = soak
    tried, lost, _ = totals[attack]
    assert sum(tried.values()) > 0
    assert lost == {}, printed


def audited(tmp_path, program):
    notes, allowed = tmp_path / "notes", tmp_path / "allowed"
    allowed.mkdir()
    env = dict(os.environ, SOAK_NOTES=str(notes), SOAK_ALLOWED=str(allowed), PYTHONPATH=str(HERE))
    subprocess.run([sys.executable, "-c", f"import audit; {program}"], env=env, cwd=allowed, check=True)
    return notes.read_text().splitlines() if notes.exists() else []


@pytest.mark.parametrize(
    ("program", "column"),
    [
        ("import os; os.system('true')", "executed"),
        ("import subprocess; subprocess.run(['true'])", "executed"),
        ("import socket; socket.socket().connect_ex(('127.0.0.1', 9))", "executed"),
        ("open('../outside', 'w')", "outside"),
        ("open('../allowed2', 'w')", "outside"),
        ("import os; os.mkdir('../outside')", "outside"),
        ("import os; open('a', 'w'); os.rename('a', '../outside')", "outside"),
    ],
)
def test_audit_notes_what_a_reader_must_not_do(tmp_path, program, column):
    assert [note.partition(" ")[0] for note in audited(tmp_path, program)] == [column]


def test_audit_allows_the_output_folder(tmp_path):
    program = "import os; open('a', 'w'); os.mkdir('b'); os.rename('a', 'b/a'); open(os.devnull, 'w'); open('b/a')"
    assert audited(tmp_path, program) == []


LEAK = """
import os, pathlib, reader
reader.main = lambda words: print("error: ", os.environ["SOAK_SECRET"]) or 2
pathlib.Path("command.json").write_text("[]")
assert reader.attempt("command", pathlib.Path("."))[0] == "refused"
"""


def test_reader_notes_a_secret_in_a_refusal(tmp_path, monkeypatch):
    monkeypatch.setenv("SOAK_SECRET", "canary")
    assert "leaked the command printed a variable of the environment" in audited(tmp_path, LEAK)


READER = """
import json, os, sys, time
for line in sys.stdin:
    path = json.loads(line)["path"]
    if path.endswith("hang"): time.sleep(100)
    while path.endswith("endless"): pass
    if path.endswith("crash"): os.abort()
    large = 501 if path.endswith("large") else 1
    result = "traceback" if path.endswith("traceback") else "ok"
    print(json.dumps({"result": result, "text": result, "megabytes": large}), flush=True)
"""


class Shop:
    """Stands for a workshop."""

    canary = "canary"

    def __init__(self, folder):
        self.scratch, self.notes = folder, folder / "notes"

    def fresh(self, name):
        return self.scratch / name

    def collect(self, result, *places):
        pass


def test_watched_reader_notices_hangs_crashes_memory_and_tracebacks(modules, monkeypatch, tmp_path):
    _, watch = modules
    program = tmp_path / "reader.py"
    program.write_text(READER)
    monkeypatch.setattr(watch, "PROGRAM", program)
    monkeypatch.setattr(watch, "SECONDS", 0.2)
    reader = watch.WatchedReader(Shop(tmp_path))
    names = ("fine", "hang", "endless", "crash", "large", "traceback", "fine")
    columns = [[problem.column for problem in reader.read("audio", tmp_path / name).problems] for name in names]
    reader.close()
    assert columns == [[], ["hang"], ["hang"], ["traceback"], ["memory"], ["traceback"], []]


def test_tally_saves_a_finding_once_with_the_line_that_repeats_it(modules, tmp_path):
    tally, _ = modules
    (tmp_path / "file.wav").write_bytes(b"RIFF")
    total = tally.Tally("audio", tmp_path / "findings")
    for number in (3, 4):
        result = tally.Result()
        result.tried["files"] += 1
        result.add("hang", "no end in 10 s", tmp_path / "file.wav")
        total.add(result, 7, number)
    (folder,) = (tmp_path / "findings").iterdir()
    assert "tests/soak --seed 7 --only audio --number 3\n" in (folder / "finding.txt").read_text()
    assert (folder / "file.wav").read_bytes() == b"RIFF"
    totals = tally.merge([[total.record()], [total.record()]])
    assert totals["audio"][1] == {"hang": 4}
    assert "| audio  | 4 files | 0    | 0        | 0      | 0       | 0         | 4    |" in tally.table(totals)
