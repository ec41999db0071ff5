"""CTC: loss against the sum over all paths, padded batches, greedy decoding."""

from __future__ import annotations

import itertools

import pytest
import torch

from bridle_fairseq.nn.ctc import BLANK, Emissions, Transcriber, ctc_loss, emitted_frames, greedy, needed_frames
from bridle_fairseq.nn.pretrained_encoder import EncoderRegularization
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.errors import InputError

SETTINGS = BridleSettings(encoder_width=16, encoder_depth=2, encoder_heads=2, num_mel_bins=40, patch_size=[8, 16])


def transcriber(settings: BridleSettings = SETTINGS, **options) -> Transcriber:
    torch.manual_seed(0)
    return Transcriber(settings, num_symbols=7, **options)


def spelled(path) -> list[int]:
    return [symbol for symbol, _ in itertools.groupby(path) if symbol != BLANK]


def test_ctc_loss_equals_the_sum_over_all_paths() -> None:
    """Enumerated in float64; the frames behind a clip's end and the symbols behind a target's end do not count."""
    torch.manual_seed(0)
    logits, lengths = torch.randn(2, 5, 3), torch.tensor([5, 3])
    targets = [[1, 1, 2], [2]]
    expected = 0.0
    for row, target in enumerate(targets):
        p = logits[row, : lengths[row]].double().softmax(1)
        paths = (path for path in itertools.product(range(3), repeat=int(lengths[row])) if spelled(path) == target)
        probability = sum(p[torch.arange(len(path)), list(path)].prod() for path in paths)
        expected -= float(torch.log(torch.as_tensor(probability)))
    found = ctc_loss(Emissions(logits, lengths), torch.tensor([[1, 1, 2], [2, 0, 0]]), torch.tensor([3, 1]))
    assert found.dtype == torch.float32 and float(found) == pytest.approx(expected, rel=1e-5)
    half = ctc_loss(Emissions(logits.bfloat16(), lengths), torch.tensor([[1, 1, 2], [2, 2, 2]]), torch.tensor([3, 1]))
    assert half.dtype == torch.float32 and float(half) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("target", [[1, 2, 3], [1, 1, 2], [2, 2, 2], [1]])
def test_needed_frames_of_a_target(target) -> None:
    """With as many there is a path, with one less there is none."""
    needed = needed_frames(torch.tensor(target))
    for frames, possible in ((needed, True), (needed - 1, False)):
        emissions = Emissions(torch.zeros(1, max(frames, 1), 4), torch.tensor([frames]))
        loss = ctc_loss(emissions, torch.tensor([target]), torch.tensor([len(target)]))
        assert torch.isfinite(loss) == possible


def test_greedy_decoding_ignores_padding() -> None:
    paths = [[1, 1, 0, 1, 2, 2, 0], [0, 3, 3, 0, 9, 9, 9]]
    logits = torch.nn.functional.one_hot(torch.tensor(paths), 10).float()
    assert greedy(Emissions(logits, torch.tensor([7, 4]))) == [[1, 1, 2], [3]]


@pytest.mark.parametrize("pooling", ["mean", "frequency"])
def test_loss_does_not_depend_on_the_padded_batch(pooling) -> None:
    torch.manual_seed(1)
    waves = [0.1 * torch.randn(length) for length in (2000, 16000, 9000)]
    targets = [torch.tensor(t) for t in ([1], [2, 2, 3, 4], [5, 6])]
    model = transcriber(pooling=pooling).eval()
    source = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True, padding_value=7.0)
    padding = torch.arange(source.shape[1]) >= torch.tensor([len(wave) for wave in waves])[:, None]
    together = model(source, padding)
    assert together.lengths.tolist() == [emitted_frames(model.front_end, 4, len(wave)) for wave in waves]
    alone = []
    for wave, target, logits, length in zip(waves, targets, *together, strict=True):
        emissions = model(wave[None])
        assert emissions.logits.shape == (1, int(length), 7)
        torch.testing.assert_close(logits[:length], emissions.logits[0], atol=1e-5, rtol=1e-4)
        alone.append(ctc_loss(emissions, target[None], torch.tensor([len(target)])))
    padded = torch.nn.utils.rnn.pad_sequence(targets, batch_first=True)
    loss = ctc_loss(together, padded, torch.tensor([len(target) for target in targets]))
    torch.testing.assert_close(loss, torch.stack(alone).sum(), rtol=1e-5, atol=1e-4)


def test_shape_of_emissions() -> None:
    model = transcriber(upsample=4)
    assert model.frame_ms == 20.0 and model.frame_head.out_features == 4 * 7
    assert model.frame_head.in_features == 3 * 16 and transcriber(pooling="mean").frame_head.in_features == 16
    # 1 s is 98 log-mel frames and so 13 patches
    assert emitted_frames(model.front_end, 4, 16000) == 52 and model(torch.randn(1, 16000)).logits.shape == (1, 52, 7)
    model.frame_head.bias.data = torch.arange(28.0)
    model.frame_head.weight.data.zero_()
    frames = model(torch.randn(1, 16000)).logits[0]  # a step's frames come one after the other
    assert torch.equal(frames[:4].flatten(), torch.arange(28.0)) and torch.equal(frames[:4], frames[4:8])


def test_encoder_learns_unless_frozen() -> None:
    def learns(**options) -> set[str]:
        model = transcriber(**options).train()
        model(torch.randn(2, 8000)).logits.square().sum().backward()
        return {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None}

    assert learns() == {"encoder", "norm", "frame_head"}
    assert learns(freeze_encoder=True) == {"norm", "frame_head"}
    regularization = EncoderRegularization(drop_path=0.2, layer_decay=0.5, spec_augment_frames=20)
    assert learns(regularization=regularization) == learns()


def test_mistakes_are_errors_with_one_sentence() -> None:
    image = BridleSettings(encoder_width=16, encoder_heads=2, modality="image", patch_size=[8, 8])
    for settings, options, sentence in (
        (image, {}, "the pretrained model is of modality image; expected one of sound"),
        (SETTINGS, {"pooling": "class_token"}, "model.pooling is 'class_token'; expected one of mean, frequency"),
        (SETTINGS, {"upsample": 0}, "model.upsample is 0; expected 1 or more"),
        (SETTINGS, {"regularization": EncoderRegularization(drop_path=1.0)}, "model.drop_path is 1.0"),
    ):
        with pytest.raises(InputError, match=sentence):
            transcriber(settings, **options)
