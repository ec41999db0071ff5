"""The residual quantizer against its definition, in float64 and with loops, and the traps of the method."""

import copy
import math

import pytest
import torch
from torch import nn

from bridle_fairseq.quantization import ResidualQuantizer

DIM = 8
VARIANTS = {
    "euclidean": {},
    "cosine": {"metric": "cosine"},
    "unit codes": {"metric": "cosine", "num_codebooks": 1},
    "centred": {"center": True},
    "uniform": {"init": "uniform"},
}


def quantizer(**options) -> ResidualQuantizer:
    return ResidualQuantizer(DIM, **{"num_codebooks": 3, "codebook_size": 10, **options}).train()


def vectors(seed: int, *shape: int, scale: float = 1.0, shift: float = 0.5) -> torch.Tensor:
    return scale * (torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(seed)) + shift)


def state(module: ResidualQuantizer) -> dict[str, torch.Tensor]:
    """All buffers, those that checkpoints leave out too."""
    return {name: tensor.clone() for name, tensor in module.named_buffers()}


def assert_same(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name


@pytest.fixture(params=VARIANTS)
def variant(request) -> dict:
    return VARIANTS[request.param]


@pytest.fixture
def trained(variant) -> ResidualQuantizer:
    module = quantizer(**variant)
    for step in range(5):
        module(vectors(step, 100))
        module.commit()
    return module


class Reference:
    """The quantizer in float64, one vector at a time, without restarts. Starts from a module's state."""

    def __init__(self, module: ResidualQuantizer, metric: str = "euclidean", center: bool = False, **_) -> None:
        books = module.codebooks
        self.codes, self.sizes, self.sums = books.codes.double(), books.sizes.double(), books.sums.double()
        self.usage = books.usage.double()
        self.cosine, self.unit_codes = metric == "cosine", metric == "cosine" and len(self.codes) == 1
        self.mean = module.running_mean.mean.double() if center else torch.zeros(DIM).double()
        self.center = center

    def quantize(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Codes n x K, residuals (K + 1) x n x D, loss (mean over levels of the mse)."""
        codes, residuals = [], []
        for vector in z.double() - self.mean:
            residual = vector / vector.norm()
            row, path = [], [residual]
            for codebook in self.codes:
                distances = [self.distance(residual, code) for code in codebook]
                row.append(min(range(len(distances)), key=distances.__getitem__))
                residual = residual - codebook[row[-1]]
                path.append(residual)
            codes.append(torch.tensor(row))
            residuals.append(torch.stack(path))
        residuals = torch.stack(residuals, dim=1)
        return torch.stack(codes), residuals, residuals[1:].square().mean(dim=(1, 2)).mean()

    def distance(self, residual: torch.Tensor, code: torch.Tensor) -> float:
        if self.cosine:
            return float((residual / residual.norm() - code / code.norm()).square().sum())
        return float((residual - code).square().sum())

    def update(self, z: torch.Tensor, decay: float = 0.99, epsilon: float = 0.1) -> None:
        codes, residuals, _ = self.quantize(z)
        levels, size, dim = self.codes.shape
        for k in range(levels):
            counts, sums = torch.zeros(size).double(), torch.zeros(size, dim).double()
            for row, residual in zip(codes[:, k], residuals[k], strict=True):
                counts[row] += 1
                sums[row] += residual
            frequency = counts / counts.sum()
            self.usage[k] = decay * self.usage[k] + (1 - decay) * frequency if self.usage[k].any() else frequency
            self.sizes[k] = decay * self.sizes[k] + (1 - decay) * counts
            self.sums[k] = decay * self.sums[k] + (1 - decay) * sums
            total = self.sizes[k].sum()
            for j in range(size):
                smoothed = (self.sizes[k, j] + epsilon) / (total + size * epsilon) * total
                self.codes[k, j] = self.sums[k, j] / smoothed
                if self.unit_codes:
                    self.codes[k, j] /= self.codes[k, j].norm()
        if self.center:
            self.mean = decay * self.mean + (1 - decay) * z.double().mean(dim=0)


def test_ten_updates_equal_the_float64_reference(variant):
    module = quantizer(restart_threshold=0.0, epsilon=0.1, **variant)
    module(vectors(0, 60))
    module.commit()
    reference = Reference(module, **variant)
    for step in range(1, 11):
        z = vectors(step, 60)
        result = module(z)
        codes, residuals, loss = reference.quantize(z)
        assert torch.equal(result.codes, codes)
        torch.testing.assert_close(result.quantized.double(), residuals[0] - residuals[-1], atol=1e-6, rtol=0)
        torch.testing.assert_close(result.codebook_loss.double(), loss, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(result.commitment_loss.double(), loss, atol=1e-6, rtol=1e-5)
        energies = residuals.square().sum(dim=2).mean(dim=1)
        torch.testing.assert_close(result.residual_energy.double(), energies[1:] / energies[0], atol=1e-5, rtol=1e-5)
        module.commit()
        reference.update(z)
    books = module.codebooks
    for name in ("codes", "sizes", "sums", "usage"):
        torch.testing.assert_close(getattr(books, name).double(), getattr(reference, name), atol=1e-5, rtol=1e-5)


def test_codes_are_the_nearest_and_decode_is_their_sum(trained, variant):
    z = vectors(50, 4, 30)
    result = trained.eval()(z)
    codes, residuals, _ = Reference(trained, **variant).quantize(z.view(-1, DIM))
    assert torch.equal(result.codes.view(-1, trained.num_codebooks), codes)
    assert torch.equal(trained.encode(z), result.codes)
    assert torch.equal(trained.decode(result.codes), result.quantized)
    assert result.quantized.shape == z.shape and result.codes.shape == (4, 30, trained.num_codebooks)


def test_soft_codes_are_the_nearest_in_order(trained, variant):
    z = vectors(51, 5, 6)
    soft = trained.eval().encode(z, codes_per_level=4)
    assert soft.shape == (5, 6, trained.num_codebooks, 4)
    assert torch.equal(soft[..., 0], trained.encode(z))
    reference = Reference(trained, **variant)
    _, residuals, _ = reference.quantize(z.view(-1, DIM))
    for row, found in enumerate(soft.view(30, -1, 4)):
        for level, codebook in enumerate(reference.codes):
            distances = torch.tensor([reference.distance(residuals[level, row], code) for code in codebook])
            assert found[level].tolist() == distances.argsort()[:4].tolist()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("length", [0.3, 1.0, 30.0])
def test_mean_residual_energy_falls_at_every_level(metric, length):
    module = ResidualQuantizer(16, 4, 32, metric=metric).train()
    for step in range(12):
        draw = torch.Generator().manual_seed(step)
        z = length * torch.nn.functional.normalize(torch.randn(200, 16, generator=draw), dim=1)
        energy = torch.cat([torch.ones(1), module(z).residual_energy])
        assert (energy[1:] < energy[:-1] - 0.01).all(), energy
        module.commit()
    assert (module.eval()(z).residual_energy.diff() < -0.01).all()


def test_vq_is_the_first_level_of_rq():
    vq, rq = quantizer(num_codebooks=1), quantizer(num_codebooks=3)
    for step in range(10):
        first, all_levels = vq(vectors(step, 80)), rq(vectors(step, 80))
        assert torch.equal(first.codes[:, 0], all_levels.codes[:, 0])
        vq.commit()
        rq.commit()
    for name in ("codes", "sizes", "sums", "usage"):
        assert torch.equal(getattr(vq.codebooks, name)[0], getattr(rq.codebooks, name)[0])


def test_cosine_vq_keeps_both_sides_at_unit_length():
    module = quantizer(num_codebooks=1, metric="cosine")
    for step in range(5):
        module(vectors(step, 80, scale=0.3))
        module.commit()
        torch.testing.assert_close(module.codebooks.codes.norm(dim=2), torch.ones(1, 10))


def test_eval_mode_changes_no_state(trained):
    trained(vectors(9, 50))  # something is pending
    before = state(trained)
    trained.eval()
    trained(vectors(10, 50), torch.zeros(50, dtype=torch.bool))
    trained.encode(vectors(11, 50))
    assert_same(before, state(trained))


def test_eval_mode_never_starts_codebooks(variant):
    module = quantizer(**variant).eval()
    before = state(module)
    result = module(vectors(0, 50))
    module.encode(vectors(0, 50))
    assert_same(before, state(module))
    assert not module.started and result.codes.max() < 10


def test_encode_in_training_mode_changes_usage_alone(trained):
    before = copy.deepcopy(trained.state_dict())
    codes = trained.encode(vectors(10, 50))
    trained.commit()
    after = trained.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"codebooks.usage"}
    moved = (after["codebooks.usage"] - 0.99 * before["codebooks.usage"]) / 0.01
    counted = torch.stack([torch.bincount(level, minlength=10) for level in codes.T]) / 50
    torch.testing.assert_close(moved, counted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("content", [0.0, 1e4, math.nan, math.inf])
def test_padding_changes_nothing(variant, content):
    """Padded positions, whatever stands there, are as good as absent: start, losses, gradients and update."""
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


def test_batches_without_a_valid_vector_change_no_state(trained):
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


def test_no_vector_starts_no_codebook(variant):
    module = quantizer(**variant)
    module(vectors(0, 0))
    module.commit()
    assert not module.started
    module(vectors(0, 50))
    assert module.started


def test_the_first_batch_gives_usage_and_mean_their_start():
    module = quantizer(center=True)
    z, padding_mask = vectors(0, 50), torch.arange(50) >= 40
    codes = module(z, padding_mask).codes[:40]
    torch.testing.assert_close(module.running_mean.mean, z[:40].mean(dim=0))
    module.commit()
    counted = torch.stack([torch.bincount(level, minlength=10) for level in codes.T]) / 40
    torch.testing.assert_close(module.usage, counted)


def test_a_single_vector(variant):
    module = quantizer(**variant, restart_threshold=0.5)
    for step in range(3):
        result = module(vectors(step))
        assert result.codes.shape == (module.num_codebooks,) and result.quantized.shape == (DIM,)
        assert result.loss.isfinite() and result.residual_energy.isfinite().all()
        module.commit()
    assert all(tensor.isfinite().all() for tensor in module.state_dict().values())


def test_fewer_vectors_than_codes_at_the_start():
    module = quantizer(codebook_size=20)
    few = vectors(0, 7)
    result = module(few)
    assert len(result.codes[:, 0].unique()) == 7 and result.residual_energy[0] < 1e-6
    for step in range(1, 30):
        module.commit()
        module(vectors(step, 200))
    codes = module.eval().encode(vectors(99, 1000))
    assert [len(level.unique()) for level in codes.T] == [20, 20, 20]


def test_two_forwards_before_a_commit_equal_one_joined_forward(variant):
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


def test_forward_uses_the_codebooks_of_the_last_commit(trained):
    z = vectors(20, 50)
    first = trained(z)
    for step in range(3):
        trained(vectors(21 + step, 50))
    assert torch.equal(trained(z).codes, first.codes) and torch.equal(trained(z).quantized, first.quantized)


def test_discard_leaves_no_trace(trained):
    clean = copy.deepcopy(trained)
    trained(vectors(30, 90, scale=5.0))
    trained.encode(vectors(31, 90))
    trained.discard()
    assert_same(state(clean), state(trained))
    for module in (clean, trained):
        module(vectors(32, 90))
        module.commit()
    assert_same(state(clean), state(trained))


def test_commit_with_nothing_pending_changes_no_state(trained):
    before = state(trained)
    trained.commit()
    assert_same(before, state(trained))


@pytest.mark.parametrize("cast", [nn.Module.half, nn.Module.bfloat16, nn.Module.double, lambda m: m.to(torch.float16)])
def test_casts_leave_every_buffer_as_it_is(trained, cast):
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


def test_the_straight_through_gradient_is_that_of_the_normalised_vector(trained):
    z, same = vectors(42, 20).requires_grad_(), vectors(42, 20).requires_grad_()
    weight = vectors(43, 20)
    (trained(z).quantized * weight).sum().backward()
    mean = trained.running_mean.mean if trained.running_mean is not None else 0
    (torch.nn.functional.normalize(same - mean, dim=1) * weight).sum().backward()
    torch.testing.assert_close(z.grad, same.grad)
    assert z.grad.abs().max() > 1e-3


def test_the_commitment_gradient_is_that_of_its_definition(trained):
    z, same = vectors(44, 20).requires_grad_(), vectors(44, 20).requires_grad_()
    result = trained(z)
    result.loss.backward()
    mean = trained.running_mean.mean if trained.running_mean is not None else 0
    residual, losses = torch.nn.functional.normalize(same - mean, dim=1), []
    for level, codebook in enumerate(trained.codebooks.codes):
        code = codebook[result.codes[:, level]]
        losses.append(torch.nn.functional.mse_loss(residual, code))
        residual = residual - code
    (0.25 * torch.stack(losses).mean()).backward()
    torch.testing.assert_close(z.grad, same.grad)
    assert z.grad.abs().max() > 1e-5


def test_no_gradient_reaches_the_codebooks(trained):
    assert not list(trained.parameters())
    result = trained(vectors(45, 20).requires_grad_())
    assert not result.codebook_loss.requires_grad and not result.residual_energy.requires_grad
    (result.quantized.sum() + result.loss).backward()
    assert all(tensor.grad is None and not tensor.requires_grad for tensor in trained.buffers())


def test_state_dict_round_trip_goes_on_bit_for_bit(trained, variant, tmp_path):
    torch.save(trained.state_dict(), tmp_path / "state.pt")
    resumed = quantizer(**variant)
    resumed(vectors(1, 30))  # started and pending: both must give way
    resumed.load_state_dict(torch.load(tmp_path / "state.pt"))
    for step in range(5):
        assert torch.equal(trained(vectors(50 + step, 60)).quantized, resumed(vectors(50 + step, 60)).quantized)
        trained.commit()
        resumed.commit()
    assert_same(state(trained), state(resumed))


@pytest.mark.parametrize("assign", [False, True])
def test_a_state_of_other_dtypes_and_device_loads_as_ours(trained, variant, assign):
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


def test_a_state_without_started_codebooks_is_started_after_loading(variant):
    module = quantizer(**variant)
    fresh = copy.deepcopy(module.state_dict())
    module(vectors(0, 50))
    module.load_state_dict(fresh)
    assert not module.started
    module(vectors(0, 50))
    assert module.started and module.codebooks.codes.any()


def test_reset_is_a_new_module(trained, variant):
    trained(vectors(70, 50))
    trained.reset()
    new = quantizer(**variant)
    assert_same(state(new), state(trained))
    for module in (new, trained):
        module(vectors(71, 50))
        module.commit()
    assert_same(state(new), state(trained))
    assert trained.started


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_vector_that_is_not_finite_shows_in_the_loss_but_in_no_state(trained, bad):
    clean = copy.deepcopy(trained)
    z = vectors(80, 50)
    clean(z[1:])
    z[0, 3] = bad
    assert not trained(z).loss.isfinite()
    for module in (clean, trained):
        module.commit()
    for name, tensor in clean.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], tensor, atol=1e-6, rtol=1e-6)


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="metric is 'dot'"):
        quantizer(metric="dot")
    with pytest.raises(ValueError, match="init is 'zeros'"):
        quantizer(init="zeros")


def test_start_from_more_vectors_than_a_batch(variant):
    by_hand, by_forward = quantizer(**variant), quantizer(**variant)
    z = vectors(0, 5, 40)
    padding_mask = torch.zeros(5, 40, dtype=torch.bool)
    padding_mask[:, 30:] = True
    by_hand.start(z.masked_fill(padding_mask.unsqueeze(2), math.nan), padding_mask)
    by_forward(z[:, :30])
    by_forward.discard()
    assert by_hand.started
    assert_same(state(by_forward), state(by_hand))
    by_hand.eval().start(vectors(1, 0))
    assert not by_hand.started
