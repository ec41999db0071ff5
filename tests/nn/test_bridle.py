"""The whole model: stages, frozen parts, the tokenizer's beginning, padding of any length, precision."""

import copy

import pytest
import torch

from bridle_fairseq.nn.schedule import Stage

ENCODER, TOKENIZER = Stage("encoder", 10), Stage("tokenizer", 10)
JOINT = Stage("joint", 10, tokenizer_every=2)


@pytest.mark.parametrize("stage", [ENCODER, TOKENIZER, JOINT], ids=lambda s: s.kind)
@pytest.mark.parametrize("lengths", [(16000,), (4000, 9000, 2600), (300,), (40000, 400)])
def test_every_stage_accepts_any_length(make, clips, step, stage, lengths):
    model = make()
    model.begin_stage(stage)
    for number in range(2):
        out = step(model, stage, clips(*lengths), number)
        assert torch.isfinite(out.loss) and out.sample_size > 0
    for part in model.trained_parts(stage, 1):
        grads = [p.grad for p in part.parameters()]
        assert all(g is not None and torch.isfinite(g).all() for g in grads)


@pytest.mark.parametrize(("stage", "frozen"), [(ENCODER, "tokenizer estimator"), (TOKENIZER, "encoder decoder")])
def test_frozen_parts_get_no_gradient(make, clips, step, stage, frozen):
    model = make()
    model.begin_stage(stage)
    step(model, stage, clips(9000, 5000))
    for name in frozen.split():
        assert all(p.grad is None for p in getattr(model, name).parameters())


def test_codebooks_change_in_tokenizer_stages_only(make, clips, step):
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


def test_joint_stage_updates_codebooks_only_with_the_tokenizer_loss(make, clips, step):
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
def test_joint_update_reuses_the_codes_of_the_tokenizer_loss(make, clips, step, codes_per_level, runs):
    model = make(codes_per_level=codes_per_level)
    model.begin_stage(JOINT)
    step(model, JOINT, clips(16000, 16000), 1)
    seen = []
    model.tokenizer.register_forward_hook(lambda *_: seen.append(1))
    model(*clips(9000), JOINT, 3)
    assert len(seen) == runs


def test_joint_stage_standardizes_latents_from_the_first_update(make, clips, step):
    model = make()
    model.begin_stage(JOINT)
    step(model, JOINT, clips(16000, 16000), 0)  # an update without the tokenizer's part
    assert model.latent_norm.started and model.quantizer.initialized
    model.eval()
    latents = model.latents(model.front_end(*clips(16000, 16000)), from_tokenizer=True)
    assert 0.5 < latents.std() < 2


@pytest.mark.parametrize("stage", [ENCODER, TOKENIZER], ids=lambda s: s.kind)
@pytest.mark.parametrize("num_codebooks", [1, 2])
def test_dummy_batch_changes_no_state(make, clips, step, num_codebooks, stage):
    model = make(num_codebooks=num_codebooks)
    model.begin_stage(stage)
    step(model, stage, clips(16000, 16000))
    before = copy.deepcopy(model.state_dict())
    model.dummy_batch = True
    model(*clips(9000), stage)
    model.commit()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_latents_of_an_encoder_stage_keep_no_graph(make, clips, step):
    model = make()
    model.begin_stage(TOKENIZER)
    step(model, TOKENIZER, clips(16000, 16000))
    codes = model._target_latents(model.front_end(*clips(9000)), Stage("encoder", 10, targets="tokenizer"))
    assert not codes.requires_grad and model.latents(model.front_end(*clips(9000)), True).requires_grad


def test_validation_changes_no_state_and_is_reproducible(make, clips, step):
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


def test_targets_come_from_the_tokenizer_once_trained(make, clips, step):
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


def test_tokenizer_is_initialized_from_the_encoder(make):
    model = make()
    with torch.no_grad():
        model.encoder.patch_embed.weight.normal_()
    model.begin_stage(TOKENIZER)
    assert torch.equal(model.tokenizer.encoder.patch_embed.weight, model.encoder.patch_embed.weight)
    random = make(tokenizer_init="random")
    random.begin_stage(TOKENIZER)
    assert not torch.equal(random.tokenizer.encoder.patch_embed.weight, random.encoder.patch_embed.weight)


@pytest.mark.parametrize("init", ["encoder", "random", "continue"])
def test_tokenizer_stage_begins_anew_unless_it_continues(make, clips, step, init):
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


def test_features_of_a_layer_and_of_the_normalized_last_one(make, clips):
    model, (source, padding) = make().eval(), clips(9000, 5000)
    patches = model.front_end(source, padding)
    out = model.encoder(patches.x, patches.grid, patches.padding_mask, with_layers=True)
    assert len(out.layers) == 2 and not torch.equal(*out.layers)
    for layer, expected in ((None, out.x), (1, out.layers[0]), (2, out.layers[1])):
        found = model.extract_features(source, padding, layer)
        torch.testing.assert_close(found["x"], expected)
        torch.testing.assert_close(found["class_token"], out.class_token)
        assert torch.equal(found["padding_mask"], patches.padding_mask) and found["grid"] == patches.grid


def test_norms_have_the_epsilon_of_vision_transformers(make):
    assert {module.eps for module in make().modules() if isinstance(module, torch.nn.LayerNorm)} == {1e-6}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_codebooks_and_front_end_stay_float32_in_half_precision(make, clips, step, dtype):
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


def test_bfloat16_autocast_is_close_to_float32(make, clips, step):
    batch = clips(16000, 9000)
    losses = []
    for precision in ("float32", "bfloat16"):
        model = make(precision=precision)
        model.begin_stage(ENCODER)
        step(model, ENCODER, batch)
        model.eval()
        losses.append(model(*batch, ENCODER).loss)
    torch.testing.assert_close(losses[0], losses[1], atol=0, rtol=0.02)


def test_codebooks_are_kept_between_stages_with_the_same_kind_of_vectors(make, clips, step):
    model, batch = make(), clips(16000, 9000)
    cold, live = (Stage("encoder", 10, targets=targets) for targets in ("projection", "tokenizer"))
    for stage, kept in ((cold, True), (cold, True), (live, False), (live, True), (cold, False)):
        before = model.quantizer.codebooks.codes.clone()
        model.begin_stage(stage)
        assert torch.equal(model.quantizer.codebooks.codes, before) == kept
        step(model, stage, batch)


def test_codebooks_are_initialized_from_all_patches(make, clips, step):
    books = []
    for share in (1.0, 0.2):
        model = make(predict_share=share)
        model.begin_stage(ENCODER)
        step(model, ENCODER, clips(16000, 9000))
        books.append(model.quantizer.codebooks.codes)
    assert torch.equal(*books)
