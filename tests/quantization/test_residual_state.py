"""The state of a quantizer: what changes it, and how it is cast, saved and loaded."""

import copy
import math

import pytest
import torch
from torch import nn

from bridle_fairseq.quantization import ResidualQuantizer

DIM = 8


def quantizer(**options) -> ResidualQuantizer:
    return ResidualQuantizer(DIM, **{"num_codebooks": 3, "codebook_size": 10, **options}).train()


def vectors(seed: int, *shape: int, scale: float = 1.0, shift: float = 0.5) -> torch.Tensor:
    return scale * (torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(seed)) + shift)


def state(module: ResidualQuantizer) -> dict[str, torch.Tensor]:
    """All buffers, also those that are not saved."""
    return {name: tensor.clone() for name, tensor in module.named_buffers()}


def assert_same(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name


def test_eval_mode_changes_no_state(trained):
    trained(vectors(9, 50))  # statistics are pending
    before = state(trained)
    trained.eval()
    trained(vectors(10, 50), torch.zeros(50, dtype=torch.bool))
    trained.encode(vectors(11, 50))
    assert_same(before, state(trained))


def test_state_has_the_recorded_names_shapes_and_dtypes(trained):
    state = {name.split(".")[-1]: value for name, value in trained.state_dict().items()}
    levels, size, dim = state["codes"].shape
    shapes = {"codes": (levels, size, dim), "sizes": (levels, size), "sums": (levels, size, dim)}
    shapes |= {"usage": (levels, size), "started": (), "num_updates": ()}
    assert {name: tuple(value.shape) for name, value in state.items()} == shapes
    dtypes = dict.fromkeys(shapes, torch.float32) | {"started": torch.bool, "num_updates": torch.int64}
    assert {name: value.dtype for name, value in state.items()} == dtypes


def test_encode_in_training_mode_changes_usage_only(trained):
    before = copy.deepcopy(trained.state_dict())
    codes = trained.encode(vectors(10, 50))
    trained.commit()
    after = trained.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"codebooks.usage"}
    moved = (after["codebooks.usage"] - 0.99 * before["codebooks.usage"]) / 0.01
    counted = torch.stack([torch.bincount(level, minlength=10) for level in codes.T]) / 50
    torch.testing.assert_close(moved, counted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("content", [0.0, 1e4, math.nan, math.inf])
def test_padding_equals_absence(variant, content):
    """Padding, whatever its content, has no effect on initialization, losses, gradients and update."""
    padded, alone = quantizer(**variant), quantizer(**variant)
    padding_mask = torch.zeros(3, 40, dtype=torch.bool)
    padding_mask[0, 30:] = padding_mask[2, 5:] = True
    for step in range(4):
        z = vectors(step, 3, 40)
        with_content = z.masked_fill(padding_mask.unsqueeze(2), content).requires_grad_()
        rest = z[~padding_mask].requires_grad_()
        here, there = padded(with_content, padding_mask), alone(rest)
        assert torch.equal(here.codes[~padding_mask], there.codes)
        for name in ("codebook_loss", "commitment_loss", "residual_energy"):
            torch.testing.assert_close(getattr(here, name), getattr(there, name), atol=1e-6, rtol=1e-6)
        (here.commitment_loss + here.quantized[~padding_mask].square().sum()).backward()
        (there.commitment_loss + there.quantized.square().sum()).backward()
        torch.testing.assert_close(with_content.grad[~padding_mask], rest.grad, atol=1e-6, rtol=1e-5)
        assert not with_content.grad[padding_mask].any()
        padded.commit()
        alone.commit()
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(padded.state_dict()[name], tensor, atol=1e-6, rtol=1e-6)


def test_batch_without_valid_vectors_changes_no_state(trained):
    before = copy.deepcopy(trained.state_dict())
    everything = torch.ones(2, 7, dtype=torch.bool)
    for z, mask in [(vectors(1, 0), None), (vectors(1, 0, 4), None), (vectors(1, 2, 7), everything)]:
        z.requires_grad_()
        result = trained(z, mask)
        assert result.quantized.shape == z.shape and result.codes.shape == (*z.shape[:-1], trained.num_codebooks)
        assert result.loss == 0 and not result.residual_energy.any()
        result.loss.backward()
        assert not z.grad.any()
        assert trained.encode(z, mask, codes_per_level=2).shape == (*z.shape[:-1], trained.num_codebooks, 2)
    trained.commit()
    assert_same(before, trained.state_dict())


def test_two_forwards_per_commit_equal_one_joined_forward(variant):
    parts, joined = quantizer(**variant, restart_threshold=0.5), quantizer(**variant, restart_threshold=0.5)
    for module in (parts, joined):
        module(vectors(100, 60))
        module.commit()
    for step in range(20):
        first, second = vectors(2 * step, 50), vectors(2 * step + 1, 30)
        codes = [parts(first).codes, parts(second).codes]
        assert torch.equal(torch.cat(codes), joined(torch.cat([first, second])).codes)
        parts.commit()
        joined.commit()
    for name, tensor in joined.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], tensor, atol=1e-6, rtol=1e-6)


def test_discard_restores_the_state(trained):
    clean = copy.deepcopy(trained)
    trained(vectors(30, 90, scale=5.0))
    trained.encode(vectors(31, 90))
    trained.discard()
    assert_same(state(clean), state(trained))
    for module in (clean, trained):
        module(vectors(32, 90))
        module.commit()
    assert_same(state(clean), state(trained))


def test_commit_without_statistics_changes_no_state(trained):
    before = state(trained)
    trained.commit()
    assert_same(before, state(trained))


@pytest.mark.parametrize("cast", [nn.Module.half, nn.Module.bfloat16, nn.Module.double, lambda m: m.to(torch.float16)])
def test_casts_do_not_change_buffers(trained, cast):
    trained(vectors(40, 50))
    before = state(trained)
    cast(nn.Sequential(trained, nn.Linear(2, 2)))
    assert_same(before, state(trained))
    assert all(tensor.dtype == before[name].dtype for name, tensor in trained.named_buffers())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_input_of_another_dtype_is_quantized_in_float32(trained, dtype):
    z = vectors(41, 50).to(dtype)
    wide = trained(z.float())
    module = trained.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = module(z)
        assert torch.equal(module.encode(z), result.codes)
    assert result.quantized.dtype == dtype
    assert torch.equal(result.codes, wide.codes)
    assert torch.equal(result.codebook_loss, wide.codebook_loss) and result.loss.dtype == torch.float32


def test_resume_from_state_dict_is_bit_identical(trained, variant, tmp_path):
    torch.save(trained.state_dict(), tmp_path / "state.pt")
    resumed = quantizer(**variant)
    resumed(vectors(1, 30))  # loading has to overwrite codebooks and discard pending statistics
    resumed.codebooks.restarted.fill_(7)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert not resumed.codebooks.restarted.any()
    for step in range(5):
        assert torch.equal(trained(vectors(50 + step, 60)).quantized, resumed(vectors(50 + step, 60)).quantized)
        trained.commit()
        resumed.commit()
    assert_same(state(trained), state(resumed))


@pytest.mark.parametrize("assign", [False, True])
def test_loading_converts_dtype_and_device(trained, variant, assign):
    saved = {name: t.double() if t.is_floating_point() else t.long() for name, t in trained.state_dict().items()}
    with torch.device("meta"):
        loaded = quantizer(**variant)
    if not assign:
        loaded = loaded.to_empty(device="cpu")
    loaded.load_state_dict(saved, assign=assign)
    for name, tensor in loaded.named_buffers():
        assert tensor.device.type == "cpu" and tensor.dtype == trained.get_buffer(name).dtype, name
    for module in (loaded, trained):
        module(vectors(60, 50))
        module.commit()
    assert_same(state(trained), state(loaded))


def test_reset_equals_a_new_module(trained, variant):
    trained(vectors(70, 50))
    trained.reset()
    new = quantizer(**variant)
    assert_same(state(new), state(trained))
    for module in (new, trained):
        module(vectors(71, 50))
        module.commit()
    assert_same(state(new), state(trained))
    assert trained.initialized


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_vector_changes_the_loss_but_no_state(trained, bad):
    clean = copy.deepcopy(trained)
    z = vectors(80, 50)
    clean(z[1:])
    z[0, 3] = bad
    assert not trained(z).loss.isfinite()
    for module in (clean, trained):
        module.commit()
    for name, tensor in clean.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], tensor, atol=1e-6, rtol=1e-6)
