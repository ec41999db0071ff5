"""Scores of a validation on two ranks with uneven shards: each clip once, with scikit-learn's metrics."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from bridle_fairseq.evaluation.classification import evaluate
from bridle_fairseq.tasks.validation import ScoreCollection

RANK = """
import sys
import numpy as np, torch, torch.distributed as dist
from bridle_fairseq.tasks.validation import ScoreCollection
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
scores = torch.from_numpy(np.load(f"{folder}/scores.npy"))
batches = [[[0, 1, 2], [6, 7], [8, 9, 10]], [[3, 4, 5], [0, 1, 2], None]][rank]  # rank 1: a dummy batch, and nothing
found = ScoreCollection(3)
for rows in batches:
    found.add(None if rows is None else torch.tensor(rows), None if rows is None else scores[rows])
assert found.left == 0
rows, gathered = found.gather(4, torch.device("cpu"))
np.savez(f"{folder}/{rank}.npz", rows=rows, scores=gathered)
dist.destroy_process_group()
"""


def test_two_ranks_with_uneven_shards(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    scores = (random.integers(0, 4, (11, 4)) / 4).astype(np.float32)
    truth = (random.random((11, 4)) < 0.4).astype(np.float32)
    truth[:, 2] = 0
    np.save(tmp_path / "scores.npy", scores)
    (tmp_path / "rank.py").write_text(RANK)
    ranks = [subprocess.Popen([sys.executable, tmp_path / "rank.py", str(rank), str(tmp_path)]) for rank in range(2)]
    assert [rank.wait(300) for rank in ranks] == [0, 0]
    for rank in range(2):
        found = np.load(tmp_path / f"{rank}.npz")
        np.testing.assert_array_equal(found["rows"], np.arange(11))
        np.testing.assert_array_equal(found["scores"], scores)
        values = evaluate(found["scores"], truth[found["rows"]]).values
        present = [0, 1, 3]
        assert values["mAP"] == average_precision_score(truth[:, present], scores[:, present])
        assert values["mAUC"] == roc_auc_score(truth[:, present], scores[:, present])


def test_repeated_clip_counts_once() -> None:
    found = ScoreCollection(3)
    for rows in ([4, 2], [2, 7]):
        found.add(torch.tensor(rows), torch.tensor(rows)[:, None].repeat(1, 3))
        assert found.left > 0
    found.add(None, None)
    assert found.left == 0
    rows, scores = found.gather(3, torch.device("cpu"))
    assert rows.tolist() == [2, 4, 7] and scores[:, 0].tolist() == [2, 4, 7]


def test_empty_collection() -> None:
    rows, scores = ScoreCollection(1).gather(3, torch.device("cpu"))
    assert rows.shape == (0,) and scores.shape == (0, 3)
