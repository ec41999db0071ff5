"""Two ranks keep identical codebooks, equal to those of one process with the joined batch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("ranks_script.py")
SCENARIOS = [
    "euclidean",
    "cosine",
    "unit codes",
    "uniform init",
    "many restarts",
    "rank without vectors",
    "subsampled init",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Results of rank 0, rank 1 and the single process, each by scenario."""
    folder = tmp_path_factory.mktemp("ranks")
    jobs = [("2", "0"), ("2", "1"), ("1", "0")]
    processes = [subprocess.Popen([sys.executable, str(SCRIPT), str(folder), *job]) for job in jobs]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    return [torch.load(folder / f"{world}-{rank}.pt") for world, rank in jobs]


@pytest.mark.parametrize("moment", ["init", "end"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_state_is_bit_identical_on_both_ranks(runs, scenario, moment):
    first, second = runs[0][scenario][moment], runs[1][scenario][moment]
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize("moment", ["init", "end"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_state_equals_that_of_one_process(runs, scenario, moment):
    ranks, joined = runs[0][scenario][moment], runs[2][scenario][moment]
    for name in joined:
        torch.testing.assert_close(ranks[name], joined[name], atol=1e-6, rtol=1e-6, msg=lambda text, n=name: n + text)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_codes_equal_those_of_one_process(runs, scenario):
    for first, second, joined in zip(*(run[scenario]["codes"] for run in runs), strict=True):
        assert torch.equal(torch.cat([first, second]), joined)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_codebooks_are_updated_and_nothing_stays_pending(runs, scenario):
    run = runs[0][scenario]
    assert run["end"]["codebooks.started"] and run["end"]["codebooks.num_updates"] == len(run["codes"])
    assert not torch.equal(run["init"]["codebooks.codes"], run["end"]["codebooks.codes"])
    assert all(not tensor.any() for tensor in run["pending"])
