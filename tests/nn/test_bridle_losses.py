"""Losses of the whole model: which patches count, whose codes are predicted, and that every stage learns."""

import pytest
import torch

from bridle_fairseq.nn.masking import MASKINGS
from bridle_fairseq.nn.schedule import Stage

ENCODER, TOKENIZER = Stage("encoder", 10), Stage("tokenizer", 10)
JOINT = Stage("joint", 10, tokenizer_every=2)


def test_tokenizer_loss_is_cosine_distance_plus_quantizer_loss(make, clips, step):
    model = make()
    model.begin_stage(TOKENIZER)
    step(model, TOKENIZER, clips(16000, 16000))
    loss = model.tokenizer_loss(model.front_end(*clips(9000, 5000)))
    quantizer = loss.quantized.codebook_loss + 0.25 * loss.quantized.commitment_loss
    assert quantizer > 0.01
    expected = loss.num_patches - loss.cosine + loss.num_patches * quantizer
    torch.testing.assert_close(loss.loss, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("from_tokenizer", [False, True])
def test_single_clip_equals_the_clip_padded_in_a_batch(make, clips, step, from_tokenizer):
    model = make()
    stage = TOKENIZER if from_tokenizer else ENCODER
    model.begin_stage(stage)
    step(model, stage, clips(16000, 16000, 9000))
    model.eval()
    source, padding = clips(16000, 5130, 2600)
    codes, patch_padding, _ = model.tokenize(source, padding)
    features = model.extract_features(source, padding)
    for i, length in enumerate((16000, 5130, 2600)):
        alone, _, grid = model.tokenize(source[i : i + 1, :length])
        valid = ~patch_padding[i]
        assert valid.sum() == grid[0] * grid[1]
        assert torch.equal(codes[i][valid], alone[0])
        single = model.extract_features(source[i : i + 1, :length])
        torch.testing.assert_close(features["x"][i][valid], single["x"][0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(features["class_token"][i], single["class_token"][0], atol=1e-5, rtol=1e-5)


def test_loss_ignores_codes_of_visible_and_padded_patches(make, clips, step):
    model = make()
    model.begin_stage(ENCODER)
    batch = clips(16000, 6000)
    step(model, ENCODER, batch)
    model.eval()
    patches = model.front_end(*batch)
    codes = model.codes(patches, from_tokenizer=False)

    def loss(codes):
        return model.encoder_loss(patches, codes, torch.Generator().manual_seed(1)).loss

    reference = loss(codes)
    matters = torch.tensor([not torch.equal(loss(changed(codes, 0, n)), reference) for n in range(codes.shape[1])])
    assert 0.4 < matters.float().mean() < 0.6
    padded = patches.padding_mask[1].nonzero().flatten()
    assert len(padded) and all(torch.equal(loss(changed(codes, 1, n)), reference) for n in padded)


def changed(codes, clip, patch):
    codes = codes.clone()
    codes[clip, patch] = (codes[clip, patch] + 1) % 8
    return codes


def test_loss_ignores_values_at_padding(make, clips, step):
    model = make()
    model.begin_stage(ENCODER)
    source, padding = clips(16000, 6000)
    step(model, ENCODER, (source, padding))
    model.eval()
    noise = torch.where(padding, torch.randn_like(source), source)
    for stage in (ENCODER, TOKENIZER):
        torch.testing.assert_close(model(source, padding, stage).loss, model(noise, padding, stage).loss)


@pytest.mark.parametrize("with_tokenizer", [False, True])
def test_cached_codes_give_the_same_loss(make, clips, step, with_tokenizer):
    model, batch = make(), clips(16000, 6000)
    for stage in (TOKENIZER, ENCODER) if with_tokenizer else (ENCODER,):
        model.begin_stage(stage)
        step(model, stage, batch)
    assert model.has_tokenizer == with_tokenizer
    model.eval()
    codes = model.tokenize(*batch)[0]
    assert torch.equal(model(*batch, ENCODER, codes=codes).loss, model(*batch, ENCODER).loss)
    assert not torch.equal(model(*batch, ENCODER, codes=(codes + 1) % 8).loss, model(*batch, ENCODER).loss)


def test_soft_codes_as_targets(make, clips, step):
    model = make(codes_per_level=3)
    model.begin_stage(JOINT)
    for number in range(2):
        assert torch.isfinite(step(model, JOINT, clips(16000, 9000), number).loss)
    assert model.tokenize(*clips(9000), codes_per_level=3)[0].shape[2:] == (2, 3)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("num_codebooks", [1, 2])
def test_training_lowers_the_loss_of_each_stage(make, clips, step, metric, num_codebooks):
    model = make(codebook_metric=metric, num_codebooks=num_codebooks)
    batch = clips(16000, 12000, 16000, 9000)
    for stage in (ENCODER, TOKENIZER):
        model.begin_stage(stage)
        optimizer = torch.optim.AdamW([p for part in model.trained_parts(stage) for p in part.parameters()], lr=3e-3)
        losses = [float(o.loss / o.sample_size) for o in (step(model, stage, batch, 0, optimizer) for _ in range(25))]
        assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("masking", ["random", "tube", "block", "lines"])
def test_configured_masking_is_used(make, clips, masking):
    model, batch = make(masking=masking), clips(16000, 9000)
    patches = model.front_end(*batch)
    torch.manual_seed(3)
    mask = MASKINGS[masking](2, patches.grid, 0.5, padding_mask=patches.padding_mask)
    seen = []
    model.decoder.register_forward_hook(lambda module, inputs, out: seen.append(inputs[1].masked))
    torch.manual_seed(3)
    out = model.encoder_loss(patches, model.codes(patches, from_tokenizer=False))
    assert torch.equal(seen[0], mask.masked) and out.num_patches == mask.masked.sum() and out.loss.isfinite()


@pytest.mark.parametrize("decoder", ["attention", "convolution"])
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_every_decoder_learns_in_every_stage(make, clips, step, decoder, share):
    model = make(decoder_kind=decoder, decoder_window=[], predict_share=share)
    for stage in (ENCODER, JOINT):
        model.begin_stage(stage)
        out = step(model, stage, clips(16000, 9000, 400), 1)
        assert torch.isfinite(out.loss) and out.sample_size == out.encoder.num_patches
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.decoder.parameters())


def test_predict_share_reduces_the_number_of_targets(make, clips, step):
    batch = clips(16000, 9000, 5000)
    counts = []
    for share in (1.0, 0.25):
        model = make(predict_share=share)
        model.begin_stage(ENCODER)
        counts.append(step(model, ENCODER, batch).sample_size)
    assert counts[1] == pytest.approx(counts[0] / 4, abs=3)


@pytest.mark.parametrize("options", [{}, {"predict_share": 0.3}, {"num_masks": 2}, {"codes_per_level": 3}], ids=str)
def test_codes_looked_up_at_targets_equal_those_of_all_patches(make, clips, step, options):
    model, batch = make(**options), clips(16000, 9000)
    model.begin_stage(ENCODER)
    step(model, ENCODER, batch)
    patches = model.front_end(*batch)
    latents = model.latents(patches, from_tokenizer=False)
    codes = model.codes(patches, False, model.settings.codes_per_level)
    seen = []
    encode = model.quantizer.encode
    model.quantizer.encode = lambda z, *args: seen.append(z) or encode(z, *args)
    cold, found, expected = (
        model.encoder_loss(patches, given, torch.Generator().manual_seed(1), of)
        for given, of in ((None, None), (None, latents), (codes, latents))
    )
    torch.testing.assert_close(found.loss, expected.loss)
    torch.testing.assert_close(cold.loss, expected.loss)
    torch.testing.assert_close(*seen)
    assert seen[0].shape[0] < 0.75 * latents.shape[0] * latents.shape[1] * model.settings.num_masks


def test_several_masks_equal_repeated_clips(make, clips):
    batch = clips(16000, 9000)
    model, seen = make(num_masks=3), []
    model.begin_stage(ENCODER)
    model.front_end.register_forward_hook(lambda module, inputs, out: seen.append(out))
    model.decoder.register_forward_hook(lambda module, inputs, out: seen.append(inputs[1]))
    torch.manual_seed(5)
    out = model(*batch, ENCODER)
    patches, mask = seen
    assert mask.masked.shape[0] == 6 and len({tuple(row.tolist()) for row in mask.masked[::2]}) == 3
    codes = model.codes(patches, from_tokenizer=False)
    once = make(num_masks=1)
    once.load_state_dict(model.state_dict())
    torch.manual_seed(5)
    whole = type(patches)(patches.x.repeat(3, 1, 1), patches.grid, patches.padding_mask.repeat(3, 1))
    expected = once.encoder_loss(whole, codes.repeat(3, 1, 1))
    torch.testing.assert_close(out.loss, expected.loss)
    assert out.sample_size == expected.num_patches
    assert model.eval()(*batch, ENCODER).sample_size * 3 == out.sample_size
