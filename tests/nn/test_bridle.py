"""The whole model: stages, frozen parts, targets, padding, impossible settings."""

import copy

import pytest
import torch

from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.masking import MASKINGS
from bridle_fairseq.nn.schedule import Stage
from bridle_fairseq.nn.settings import BridleSettings

TINY = {
    "num_mel_bins": 32,
    "patch_size": [8, 8],
    "encoder_width": 32,
    "encoder_depth": 2,
    "encoder_heads": 4,
    "decoder_width": 16,
    "decoder_depth": 2,
    "decoder_heads": 2,
    "tokenizer_depth": 2,
    "estimator_depth": 1,
    "num_codebooks": 2,
    "codebook_size": 8,
    "codebook_dim": 8,
    "mask_ratio": 0.5,
}
ENCODER, TOKENIZER = Stage("encoder", 10), Stage("tokenizer", 10)
JOINT = Stage("joint", 10, tokenizer_every=2)


def make(**changes):
    torch.manual_seed(0)
    return Bridle(BridleSettings(**{**TINY, **changes})).train()


def clips(*lengths):
    """Noise of several lengths with a tone in it, padded to a batch, and the padding."""
    source, padding = torch.zeros(len(lengths), max(lengths)), torch.ones(len(lengths), max(lengths), dtype=torch.bool)
    for i, length in enumerate(lengths):
        time = torch.arange(length) / 16000
        source[i, :length] = 0.1 * torch.randn(length) + torch.sin(2 * torch.pi * (200 + 300 * i) * time)
        padding[i, :length] = False
    return source, padding if padding.any() else None


def step(model, stage, batch, number=0, optimizer=None):
    out = model(*batch, stage, number)
    (out.loss / max(out.sample_size, 1)).backward()
    if optimizer is not None:
        optimizer.step()
        optimizer.zero_grad()
    model.commit()
    return out


@pytest.mark.parametrize("stage", [ENCODER, TOKENIZER, JOINT], ids=lambda s: s.kind)
@pytest.mark.parametrize("lengths", [(16000,), (4000, 9000, 2600), (300,), (40000, 400)])
def test_every_stage_accepts_any_length(stage, lengths):
    model = make()
    model.begin_stage(stage)
    for number in range(2):
        out = step(model, stage, clips(*lengths), number)
        assert torch.isfinite(out.loss) and out.sample_size > 0
    for part in model.trained_parts(stage, 1):
        grads = [p.grad for p in part.parameters()]
        assert all(g is not None and torch.isfinite(g).all() for g in grads)


@pytest.mark.parametrize(("stage", "frozen"), [(ENCODER, "tokenizer estimator"), (TOKENIZER, "encoder decoder")])
def test_frozen_parts_get_no_gradient(stage, frozen):
    model = make()
    model.begin_stage(stage)
    step(model, stage, clips(9000, 5000))
    for name in frozen.split():
        assert all(p.grad is None for p in getattr(model, name).parameters())


def test_codebooks_change_in_tokenizer_stages_only():
    model = make()
    model.begin_stage(ENCODER)
    step(model, ENCODER, clips(16000, 16000))
    before = model.quantizer.codebooks.codes.clone()
    step(model, ENCODER, clips(12000, 9000))
    assert torch.equal(model.quantizer.codebooks.codes, before)
    model.begin_stage(TOKENIZER)
    step(model, TOKENIZER, clips(16000, 16000))
    started = model.quantizer.codebooks.codes.clone()
    assert not torch.equal(started, before)
    step(model, TOKENIZER, clips(12000, 9000))
    assert not torch.equal(model.quantizer.codebooks.codes, started)


def test_joint_stage_updates_codebooks_only_with_the_tokenizer_loss():
    model = make()
    model.begin_stage(JOINT)
    step(model, JOINT, clips(16000, 16000), 1)
    moved = model.quantizer.codebooks.codes.clone()
    out = step(model, JOINT, clips(12000, 9000), 2)
    assert out.tokenizer is None and torch.equal(model.quantizer.codebooks.codes, moved)
    out = step(model, JOINT, clips(12000, 9000), 3)
    assert out.tokenizer is not None and out.encoder is not None
    assert not torch.equal(model.quantizer.codebooks.codes, moved)
    expected = out.encoder.loss + 0.2 * out.encoder.num_patches * out.tokenizer.loss / out.tokenizer.num_patches
    torch.testing.assert_close(out.loss, expected)


@pytest.mark.parametrize(("codes_per_level", "runs"), [(1, 1), (3, 2)])
def test_joint_update_reuses_the_codes_of_the_tokenizer_loss(codes_per_level, runs):
    model = make(codes_per_level=codes_per_level)
    model.begin_stage(JOINT)
    step(model, JOINT, clips(16000, 16000), 1)
    seen = []
    model.tokenizer.register_forward_hook(lambda *_: seen.append(1))
    model(*clips(9000), JOINT, 3)
    assert len(seen) == runs


def test_joint_stage_standardizes_latents_from_the_first_update():
    model = make()
    model.begin_stage(JOINT)
    step(model, JOINT, clips(16000, 16000), 0)  # an update without the tokenizer's part
    assert model.latent_norm.started and model.quantizer.initialized
    model.eval()
    latents = model.latents(model.front_end(*clips(16000, 16000)), from_tokenizer=True)
    assert 0.5 < latents.std() < 2


@pytest.mark.parametrize("stage", [ENCODER, TOKENIZER], ids=lambda s: s.kind)
@pytest.mark.parametrize("num_codebooks", [1, 2])
def test_dummy_batch_changes_no_state(num_codebooks, stage):
    model = make(num_codebooks=num_codebooks)
    model.begin_stage(stage)
    step(model, stage, clips(16000, 16000))
    before = copy.deepcopy(model.state_dict())
    model.dummy_batch = True
    model(*clips(9000), stage)
    model.commit()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_tokenizer_loss_is_cosine_distance_plus_quantizer_loss():
    model = make()
    model.begin_stage(TOKENIZER)
    step(model, TOKENIZER, clips(16000, 16000))
    loss = model.tokenizer_loss(model.front_end(*clips(9000, 5000)))
    quantizer = loss.quantized.codebook_loss + 0.25 * loss.quantized.commitment_loss
    assert quantizer > 0.01
    expected = loss.num_patches - loss.cosine + loss.num_patches * quantizer
    torch.testing.assert_close(loss.loss, expected, atol=1e-4, rtol=1e-5)


def test_latents_of_an_encoder_stage_keep_no_graph():
    model = make()
    model.begin_stage(TOKENIZER)
    step(model, TOKENIZER, clips(16000, 16000))
    codes = model._target_latents(model.front_end(*clips(9000)), Stage("encoder", 10, targets="tokenizer"))
    assert not codes.requires_grad and model.latents(model.front_end(*clips(9000)), True).requires_grad


def test_validation_changes_no_state_and_is_reproducible():
    model = make()
    model.begin_stage(ENCODER)
    step(model, ENCODER, clips(16000, 16000))
    before = copy.deepcopy(model.state_dict())
    model.eval()
    batch = clips(9000, 4000)
    losses = [model(*batch, stage).loss for stage in (ENCODER, TOKENIZER, ENCODER)]
    assert model._mask_generator(torch.device("cpu")).initial_seed() == 0  # losses of earlier versions compare
    assert torch.equal(losses[0], losses[2])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_targets_come_from_the_tokenizer_once_trained():
    model = make()
    batch = clips(16000, 9000)
    model.begin_stage(ENCODER)
    step(model, ENCODER, batch)
    patches = model.front_end(*batch)
    model.eval()
    cold = model.codes(patches, from_tokenizer=False)
    assert torch.equal(model.tokenize(*batch)[0], cold)
    model.train().begin_stage(TOKENIZER)
    step(model, TOKENIZER, batch)
    model.begin_stage(ENCODER)
    kept = model.quantizer.codebooks.codes.clone()
    model(*batch, ENCODER)
    assert torch.equal(model.quantizer.codebooks.codes, kept)
    model.eval()
    assert torch.equal(model.tokenize(*batch)[0], model.codes(patches, from_tokenizer=True))
    assert not torch.equal(model.tokenize(*batch)[0], cold)


def test_tokenizer_is_initialized_from_the_encoder():
    model = make()
    with torch.no_grad():
        model.encoder.patch_embed.weight.normal_()
    model.begin_stage(TOKENIZER)
    assert torch.equal(model.tokenizer.encoder.patch_embed.weight, model.encoder.patch_embed.weight)
    random = make(tokenizer_init="random")
    random.begin_stage(TOKENIZER)
    assert not torch.equal(random.tokenizer.encoder.patch_embed.weight, random.encoder.patch_embed.weight)


@pytest.mark.parametrize("init", ["encoder", "random", "continue"])
def test_tokenizer_stage_begins_anew_unless_it_continues(init):
    """Codebooks are new in any case; tokenizer, estimator and both running averages stay only if it continues."""
    model = make(tokenizer_init=init)
    model.begin_stage(TOKENIZER)
    step(model, TOKENIZER, clips(16000, 9000))
    assert model.quantizer.initialized and model.latent_norm.started and model.teacher_norm.started
    with torch.no_grad():
        model.tokenizer.head[0].weight.fill_(2.0)
        model.estimator.head.weight.fill_(2.0)
    model.begin_stage(TOKENIZER)
    kept = init == "continue"
    assert not model.quantizer.initialized and not model.quantizer.codebooks.codes.any()
    assert bool((model.tokenizer.head[0].weight == 2.0).all()) == kept
    assert bool((model.estimator.head.weight == 2.0).all()) == kept
    for norm in (model.latent_norm, model.teacher_norm):
        assert bool(norm.started) == kept and bool(norm.mean.any()) == kept
    assert torch.isfinite(step(model, TOKENIZER, clips(16000, 9000)).loss)


@pytest.mark.parametrize("from_tokenizer", [False, True])
def test_single_clip_equals_the_clip_padded_in_a_batch(from_tokenizer):
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


def test_loss_ignores_codes_of_visible_and_padded_patches():
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


def test_features_of_a_layer_and_of_the_normalized_last_one():
    model, (source, padding) = make().eval(), clips(9000, 5000)
    patches = model.front_end(source, padding)
    out = model.encoder(patches.x, patches.grid, patches.padding_mask, with_layers=True)
    assert len(out.layers) == 2 and not torch.equal(*out.layers)
    for layer, expected in ((None, out.x), (1, out.layers[0]), (2, out.layers[1])):
        found = model.extract_features(source, padding, layer)
        torch.testing.assert_close(found["x"], expected)
        torch.testing.assert_close(found["class_token"], out.class_token)
        assert torch.equal(found["padding_mask"], patches.padding_mask) and found["grid"] == patches.grid


def test_norms_have_the_epsilon_of_vision_transformers():
    assert {module.eps for module in make().modules() if isinstance(module, torch.nn.LayerNorm)} == {1e-6}


def changed(codes, clip, patch):
    codes = codes.clone()
    codes[clip, patch] = (codes[clip, patch] + 1) % 8
    return codes


def test_loss_ignores_values_at_padding():
    model = make()
    model.begin_stage(ENCODER)
    source, padding = clips(16000, 6000)
    step(model, ENCODER, (source, padding))
    model.eval()
    noise = torch.where(padding, torch.randn_like(source), source)
    for stage in (ENCODER, TOKENIZER):
        torch.testing.assert_close(model(source, padding, stage).loss, model(noise, padding, stage).loss)


@pytest.mark.parametrize("with_tokenizer", [False, True])
def test_cached_codes_give_the_same_loss(with_tokenizer):
    model, batch = make(), clips(16000, 6000)
    for stage in (TOKENIZER, ENCODER) if with_tokenizer else (ENCODER,):
        model.begin_stage(stage)
        step(model, stage, batch)
    assert model.has_tokenizer == with_tokenizer
    model.eval()
    codes = model.tokenize(*batch)[0]
    assert torch.equal(model(*batch, ENCODER, codes=codes).loss, model(*batch, ENCODER).loss)
    assert not torch.equal(model(*batch, ENCODER, codes=(codes + 1) % 8).loss, model(*batch, ENCODER).loss)


def test_soft_codes_as_targets():
    model = make(codes_per_level=3)
    model.begin_stage(JOINT)
    for number in range(2):
        assert torch.isfinite(step(model, JOINT, clips(16000, 9000), number).loss)
    assert model.tokenize(*clips(9000), codes_per_level=3)[0].shape[2:] == (2, 3)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("num_codebooks", [1, 2])
def test_training_lowers_the_loss_of_each_stage(metric, num_codebooks):
    model = make(codebook_metric=metric, num_codebooks=num_codebooks)
    batch = clips(16000, 12000, 16000, 9000)
    for stage in (ENCODER, TOKENIZER):
        model.begin_stage(stage)
        optimizer = torch.optim.AdamW([p for part in model.trained_parts(stage) for p in part.parameters()], lr=3e-3)
        losses = [float(o.loss / o.sample_size) for o in (step(model, stage, batch, 0, optimizer) for _ in range(25))]
        assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_codebooks_and_front_end_stay_float32_in_half_precision(dtype):
    model = make()
    model.begin_stage(TOKENIZER)
    batch = clips(16000, 9000)
    step(model, TOKENIZER, batch)
    codes = model.quantizer.codebooks.codes.clone()
    fbank = model.front_end.fbank(*batch)[0]
    model.to(dtype)
    assert model.quantizer.codebooks.codes.dtype == torch.float32
    assert torch.equal(model.quantizer.codebooks.codes, codes)
    half_fbank = model.front_end.fbank(*batch)[0]
    assert half_fbank.dtype == torch.float32 and torch.equal(half_fbank, fbank)
    for stage in (TOKENIZER, ENCODER):
        assert torch.isfinite(model(*batch, stage).loss)


def test_bfloat16_autocast_is_close_to_float32():
    batch = clips(16000, 9000)
    losses = []
    for precision in ("float32", "bfloat16"):
        model = make(precision=precision)
        model.begin_stage(ENCODER)
        step(model, ENCODER, batch)
        model.eval()
        losses.append(model(*batch, ENCODER).loss)
    torch.testing.assert_close(losses[0], losses[1], atol=0, rtol=0.02)


@pytest.mark.parametrize("masking", ["random", "tube", "block", "lines"])
def test_configured_masking_is_used(masking):
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
def test_every_decoder_learns_in_every_stage(decoder, share):
    model = make(decoder_kind=decoder, decoder_window=[], predict_share=share)
    for stage in (ENCODER, JOINT):
        model.begin_stage(stage)
        out = step(model, stage, clips(16000, 9000, 400), 1)
        assert torch.isfinite(out.loss) and out.sample_size == out.encoder.num_patches
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.decoder.parameters())


def test_predict_share_reduces_the_number_of_targets():
    batch = clips(16000, 9000, 5000)
    counts = []
    for share in (1.0, 0.25):
        model = make(predict_share=share)
        model.begin_stage(ENCODER)
        counts.append(step(model, ENCODER, batch).sample_size)
    assert counts[1] == pytest.approx(counts[0] / 4, abs=3)


@pytest.mark.parametrize("options", [{}, {"predict_share": 0.3}, {"num_masks": 2}, {"codes_per_level": 3}], ids=str)
def test_codes_looked_up_at_targets_equal_those_of_all_patches(options):
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


def test_codebooks_are_kept_between_stages_with_the_same_kind_of_vectors():
    model, batch = make(), clips(16000, 9000)
    cold, live = (Stage("encoder", 10, targets=targets) for targets in ("projection", "tokenizer"))
    for stage, kept in ((cold, True), (cold, True), (live, False), (live, True), (cold, False)):
        before = model.quantizer.codebooks.codes.clone()
        model.begin_stage(stage)
        assert torch.equal(model.quantizer.codebooks.codes, before) == kept
        step(model, stage, batch)


def test_codebooks_are_initialized_from_all_patches():
    books = []
    for share in (1.0, 0.2):
        model = make(predict_share=share)
        model.begin_stage(ENCODER)
        step(model, ENCODER, clips(16000, 9000))
        books.append(model.quantizer.codebooks.codes)
    assert torch.equal(*books)


def test_several_masks_equal_repeated_clips():
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
