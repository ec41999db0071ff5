"""Class scores averaged over views."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.modalities import modality_named
from bridle_fairseq.inference.classify import ViewOptions, reader_of_views, score_file, score_views
from bridle_fairseq.utils.errors import DecodeError, InputError


class Model(torch.nn.Module):
    """Two classes: the logits are the two values that a stretch holds."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(2, 2)

    def forward(self, source, padding_mask):
        assert padding_mask is None
        return source


class Reader:
    """Row n of ``values`` is file n; its stretches are that row's."""

    def __init__(self, values):
        self.values = values

    def length(self, path, size=None):
        return len(self.values[int(path[-1])])

    def read(self, path, start, length):
        value = self.values[int(path[-1])][start]
        if value is None:
            raise DecodeError("corrupt")
        return torch.tensor(value)


@pytest.mark.parametrize("multi_label", [False, True])
def test_scores_are_averaged_over_views(tmp_path, multi_label):
    values = [[[1.0, 0.0], [3.0, -1.0]], [[0.0, 2.0], None], [[0.5, 0.5], [0.0, 4.0]]]
    manifest, model = Manifest(tmp_path, ["0", "1", "2"], [1] * 3), Model()
    rows, scores, bad = score_views(model, manifest, Reader(values), multi_label, 3, 2)
    assert rows.tolist() == [0, 2] and bad == {1: "corrupt"} and scores.dtype == np.float32
    for row, of_row in zip(rows, scores, strict=True):
        logits = torch.tensor(values[row])
        expected = (logits.sigmoid() if multi_label else logits.softmax(1)).mean(0)
        np.testing.assert_allclose(of_row, expected, rtol=1e-5)
        np.testing.assert_allclose(of_row, score_file(model, Reader(values), f"{row}", multi_label, 1), rtol=1e-5)


class LongReader(Reader):
    """A stretch holds the value at its start, whatever its length."""

    def read(self, path, start, length):
        return torch.tensor(self.values[int(path[-1])][start])


@pytest.mark.parametrize("multi_label", [False, True])
def test_segments_are_weighted_by_their_length(multi_label):
    values = [[1.0, 0.0], [9.0, 9.0], [9.0, 9.0], [-2.0, 1.0], [9.0, 9.0], [9.0, 9.0], [0.5, 4.0]]  # segments 3, 3, 1
    logits = torch.tensor([values[start] for start in (0, 3, 6)])
    scores = logits.sigmoid() if multi_label else logits.softmax(1)
    expected = (3 * scores[0] + 3 * scores[1] + scores[2]) / 7
    found = score_file(Model(), LongReader([values]), "0", multi_label, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_views_need_video():
    cfg = SimpleNamespace(num_frames=4, frame_stride=2, image_size=16, valid_crop=1.0)
    options = ViewOptions(clips=2, crops=3)
    pytest.importorskip("av")
    assert len(reader_of_views(options, modality_named("video"), cfg).views) == 6
    with pytest.raises(InputError, match="--clips is 2 and --crops 3 with a model of modality image"):
        reader_of_views(options, modality_named("image"), cfg)
    with pytest.raises(InputError, match="--clips is 0 and --crops 1; expected at least 1 each"):
        ViewOptions(clips=0, crops=1)
