"""Vectors of time steps are those of the patches, and zero after a clip's end."""

from __future__ import annotations

import pytest
import torch

from bridle_fairseq import pretrained
from bridle_fairseq.adapters.frames import ExportFrames
from bridle_fairseq.exported.source import OWN_WEIGHTS
from bridle_fairseq.utils.errors import InputError


@pytest.mark.parametrize("layer", [None, 2])
def test_vectors_are_those_of_the_patches(exported, waves, layer) -> None:
    features = pretrained.load(exported / "all").features(waves, 16000, layer=layer)
    x, padding = (value.unflatten(1, features.grid) for value in (features.x, features.padding_mask))
    rows, mean = (ExportFrames(str(exported / "all"), name, layer) for name in ("frequency", "mean"))
    assert (rows.output_dim, mean.output_dim, rows.sampling_rate, rows.hop_size_in_ms) == (128, 32, 16000, 80)
    valid = ~padding[:, :, 0]
    assert torch.equal(rows(waves)[valid], x.flatten(2)[valid]) and not rows(waves)[~valid].any()
    torch.testing.assert_close(mean(waves)[valid], x.mean(2)[valid])
    whole = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(wave) for wave in waves], batch_first=True)
    assert torch.equal(rows(whole, [len(wave) for wave in waves]), rows(waves))


def test_centres_are_those_of_the_patches(exported) -> None:
    model = pretrained.load(exported / "all")
    frames, features = ExportFrames(str(exported / "all")), model.features(torch.zeros(1, 16240), 16000)
    times = features.times.unflatten(0, features.grid)[:, 0]
    torch.testing.assert_close(frames.centres(features.grid[0])[:-1], 1000 * times.mean(1)[:-1])


def test_it_moves_with_its_module(exported) -> None:
    frames = ExportFrames(str(exported / "encoder"))
    assert frames.to("meta").model.device.type == "meta"


@pytest.mark.parametrize(
    ("source", "options", "sentence"),
    [
        ("{folder}/tokenizer", {}, "tokenizer: no encoder for sound; expected an export with one"),
        (str(OWN_WEIGHTS / "bridle-small-image"), {}, "bridle-small-image: no encoder for sound"),
        ("{folder}/all", {"rows": "max"}, "rows is 'max'; expected frequency or mean"),
        ("{folder}/all", {"layer": 3}, "layer is 3; expected 1 to 2"),
        ("bridle-none", {}, "bridle-none: no such path, and no weights of this package"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_sentence(exported, source, options, sentence) -> None:
    with pytest.raises(InputError, match=sentence):
        ExportFrames(source.format(folder=exported), **options)
