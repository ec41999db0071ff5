"""The log of skipped clips, across processes and runs."""

import os
from multiprocessing.reduction import ForkingPickler

import pytest
import torch

from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.manifests.skipped import SkipLog, above_limit, allowed
from bridle_fairseq.utils.errors import InputError


@pytest.fixture
def manifest():
    return Manifest("/r", [f"{row}.wav" for row in range(200)], [10] * 200)


def test_row_is_counted_and_listed_once(manifest, tmp_path):
    skips = SkipLog(manifest, tmp_path / "new" / "skipped.tsv")
    assert skips.count == 0 and 7 not in skips and not os.path.exists(skips.list_path)
    for _ in range(2):
        skips.add(7, "two\tlines\nof reason")
        skips.add(3, "corrupt")
    assert skips.count == 2 and 7 in skips and 8 not in skips
    with open(skips.list_path) as file:
        assert file.read() == "7\t/r/7.wav\ttwo lines of reason\n3\t/r/3.wav\tcorrupt\n"
    assert skips.entries() == [(7, "/r/7.wav", "two lines of reason"), (3, "/r/3.wav", "corrupt")]


def test_examples_without_a_list(manifest):
    log = SkipLog(manifest)
    for row in range(4):
        log.add(row, "corrupt")
    with pytest.raises(InputError, match=r"such as /r/0.wav \(corrupt\); /r/1.wav \(corrupt\); /r/2.wav \(corrupt\)$"):
        log.check(0)


def test_counts_without_a_list(manifest):
    skips = SkipLog(manifest)
    skips.add(7, "corrupt")
    assert skips.count == 1 and skips.entries() == []
    with pytest.raises(InputError, match="1 of 200 clips"):
        skips.check(0)


@pytest.mark.parametrize(
    ("total", "ratio", "limit"),
    [(73, 0.01, 10), (5000, 0.01, 50), (40, 0.01, 10), (20, 0.01, 5), (3, 0.01, 0), (20, 0.5, 10), (73, 0.0, 0)],
)
def test_limit_is_a_share_and_a_count(total, ratio, limit):
    assert allowed(total, ratio) == limit
    assert above_limit(limit, total, ratio) is None
    assert f"more than the {limit} allowed (a share of {ratio:g}; " in above_limit(limit + 1, total, ratio)


def test_check_fails_above_the_limit(manifest, tmp_path):
    skips = SkipLog(manifest, tmp_path / "skipped.tsv")
    for row in range(5, 15):
        skips.add(row, "corrupt")
        skips.check(0.01)
    skips.add(15, "empty")
    skips.check(0.06)
    with pytest.raises(InputError) as error:
        skips.check(0.01)
    said = str(error.value)
    assert "11 of 200 clips had to be skipped, more than the 10 allowed (a share of 0.01; " in said
    assert "/r/5.wav (corrupt)" in said and skips.list_path in said and "\n" not in said


def test_other_ranks_count_earlier_runs_do_not(manifest, tmp_path):
    path = tmp_path / "skipped.tsv"
    earlier = SkipLog(manifest, path)
    for row in range(3):
        earlier.add(row, "corrupt")
    first, second = SkipLog(manifest, path), SkipLog(manifest, path)
    first.check(0)
    first.add(1, "corrupt")
    second.add(5, "corrupt")
    second.add(6, "corrupt")
    with pytest.raises(InputError, match="3 of 200"):
        first.check(0)
    assert first.count == 3
    listed = path.read_text().splitlines()
    assert len(listed) == 6 and len(set(listed)) == 5  # row 1 of the earlier run is listed again for this run
    assert [row for row, *_ in first.entries()] == [1, 5, 6]


def test_ranks_share_rows_after_a_restart(manifest, tmp_path):
    path = tmp_path / "skipped.tsv"
    for _ in range(2):
        ranks = [SkipLog(manifest, path) for _ in range(3)]
        for row, rank in enumerate(ranks):
            rank.add(row, "corrupt")
            rank.add(0, "corrupt")  # all ranks read the first batch
        for rank in ranks:
            with pytest.raises(InputError, match=r"3 of 200 .* such as /r/0.wav \(corrupt\); /r/1.wav"):
                rank.check(0)
    assert len(path.read_text().splitlines()) == 6
    assert [row for row, *_ in ranks[0].entries()] == [0, 1, 2]


def test_take_over_lists_rows_once_across_runs(manifest, tmp_path):
    path = tmp_path / "skipped.tsv"
    SkipLog(manifest, path).add(1, "corrupt")
    skips = SkipLog(manifest, path)
    skips.take_over([(1, "corrupt"), (2, "empty")])
    assert path.read_text() == "1\t/r/1.wav\tcorrupt\n2\t/r/2.wav\tempty\n"
    with pytest.raises(InputError, match=r"2 of 200 .* such as /r/1.wav \(corrupt\); /r/2.wav \(empty\)"):
        skips.check(0)


def test_examples_are_of_the_own_manifest(manifest, tmp_path):
    other = Manifest("/other", ["0.wav"], [10])
    skips = SkipLog(manifest, tmp_path / "s.tsv")
    SkipLog(other, tmp_path / "s.tsv").add(0, "corrupt")
    skips.add(1, "empty")
    with pytest.raises(InputError, match=r"such as /r/1.wav \(empty\); all"):
        skips.check(0)


def test_two_manifests_share_a_list(manifest, tmp_path):
    other = Manifest("/other", [f"{row}.wav" for row in range(200)], [10] * 200)
    first, second = SkipLog(manifest, tmp_path / "s.tsv"), SkipLog(other, tmp_path / "s.tsv")
    first.add(1, "corrupt")
    second.add(1, "corrupt")
    second.add(2, "corrupt")
    first.check(0.005)
    assert (first.count, second.count) == (1, 2) and len(second.entries()) == 3


def _skip(skips, rows):
    for row in rows:
        skips.add(row, f"reason {row} " + "x" * 500)


def test_processes_share_count_and_list(manifest, tmp_path):
    skips = SkipLog(manifest, tmp_path / "skipped.tsv")
    context = torch.multiprocessing.get_context("fork")
    workers = [context.Process(target=_skip, args=(skips, range(100))) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0] and skips.count == 100
    lines = (tmp_path / "skipped.tsv").read_text().splitlines()
    assert sorted(int(line.split("\t")[0]) for line in lines) == list(range(100))
    assert all(line.endswith("x" * 500) for line in lines)


def test_pickled_copy_shares_the_count(manifest):
    skips = SkipLog(manifest)
    copy = ForkingPickler.loads(ForkingPickler.dumps(skips))  # like the data set of a spawned worker
    copy.add(3, "corrupt")
    assert skips.count == 1 and 3 in skips


def test_lines_of_others_are_ignored(manifest, tmp_path):
    path = tmp_path / "skipped.tsv"
    lines = ["\u00b2\t/r/2.wav\tx", "9" * 5000 + "\t/r/3.wav\tx", "\u0663\t/r/3.wav\tx", "4", "5\t/r/5.wav\tcorrupt"]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    skips = SkipLog(manifest, path, start=0)
    assert skips.entries() == [(4, "", ""), (5, "/r/5.wav", "corrupt")]
    skips.check(0.1)
    assert skips.count == 1 and 5 in skips


def test_list_that_cannot_be_written_is_named(manifest):
    with pytest.raises(OSError) as failed:
        SkipLog(manifest, "/dev/full").add(7, "corrupt")
    assert failed.value.filename == "/dev/full"
