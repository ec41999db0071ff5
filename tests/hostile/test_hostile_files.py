"""Files from strangers are read or refused in one sentence: no other exception, no hang, no memory."""

import random
import shutil
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from formats import READERS, write_all
from memory import forget_peaks, peak_megabytes
from mutations import mutate

from bridle_fairseq.utils.errors import InputError

sys.path.pop(0)
RUNS, LONGEST, MOST_MEGABYTES = 60, 10, 500


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    folder = tmp_path_factory.mktemp("valid")
    write_all(folder)
    return folder


class HangError(BaseException):
    """No reader catches it."""


def hang(*_):
    raise HangError


@pytest.mark.parametrize("name", READERS)
def test_mutated_files_are_read_or_refused(name, valid, tmp_path) -> None:
    forget_peaks()
    choose, refused, before = random.Random(f"{name} 1"), 0, peak_megabytes()
    if name != "manifest":  # whose clips are not there
        shutil.copytree(valid / name, tmp_path / "valid")
        READERS[name](tmp_path / "valid")
    former = signal.signal(signal.SIGALRM, hang)
    try:
        for run in range(RUNS):
            folder = tmp_path / f"{run}"
            shutil.copytree(valid / name, folder)
            done = mutate(folder, choose)
            signal.alarm(LONGEST)
            try:
                READERS[name](folder)
            except InputError as error:
                assert len(str(error)) < 1000 + len(str(folder)) and str(error).isprintable(), f"run {run}: {done}"
                refused += 1
            except BaseException as error:
                raise AssertionError(f"run {run}, {done}: {type(error).__name__}: {error}") from error
            finally:
                signal.alarm(0)
            shutil.rmtree(folder)
    finally:
        signal.signal(signal.SIGALRM, former)
    assert refused > RUNS // 6
    assert peak_megabytes() - before < MOST_MEGABYTES
