"""The residual quantizer against its definition, written as loops in float64."""

import pytest
import torch

from bridle_fairseq.quantization import QuantizedResult, ResidualQuantizer

DIM = 8


def quantizer(**options) -> ResidualQuantizer:
    return ResidualQuantizer(DIM, **{"num_codebooks": 3, "codebook_size": 10, **options}).train()


def vectors(seed: int, *shape: int, scale: float = 1.0, shift: float = 0.5) -> torch.Tensor:
    return scale * (torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(seed)) + shift)


class Reference:
    """The quantizer in float64, one vector at a time, without restarts, from the state of a module."""

    def __init__(self, module: ResidualQuantizer, metric: str = "euclidean", **_) -> None:
        books = module.codebooks
        self.codes, self.sizes, self.sums = books.codes.double(), books.sizes.double(), books.sums.double()
        self.usage = books.usage.double()
        self.cosine, self.unit_codes = metric == "cosine", metric == "cosine" and len(self.codes) == 1

    def quantize(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Codes n x K, residuals (K + 1) x n x D, loss (mean over levels of the mse)."""
        codes, residuals = [], []
        for vector in z.double():
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


def test_ten_updates_match_the_float64_reference(variant):
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


def test_codes_are_nearest_and_decode_is_their_sum(trained, variant):
    z = vectors(50, 4, 30)
    result = trained.eval()(z)
    codes, residuals, _ = Reference(trained, **variant).quantize(z.view(-1, DIM))
    assert torch.equal(result.codes.view(-1, trained.num_codebooks), codes)
    assert torch.equal(trained.encode(z), result.codes)
    assert torch.equal(trained.decode(result.codes), result.quantized)
    assert result.quantized.shape == z.shape and result.codes.shape == (4, 30, trained.num_codebooks)


def test_decode_raises_on_wrong_codes(trained):
    with pytest.raises(ValueError, match=r"\(5, 7\) codes of 0 to 0; expected"):
        trained.decode(torch.zeros(5, 7, dtype=torch.long))
    for wrong in (-1, trained.codebook_size):
        with pytest.raises(ValueError, match=f"to {trained.codebook_size - 1}"):
            trained.decode(torch.full((2, trained.num_codebooks), wrong))


def test_decode_of_the_first_levels(trained, variant):
    codes = trained.eval()(vectors(50, 3, 30)).codes
    levels = torch.tensor([0, 1, trained.num_codebooks])
    codebooks, decoded = trained.codebooks.codes, trained.decode(codes, levels)
    assert not decoded[0].any()
    assert torch.equal(decoded[1], codebooks[0][codes[1, :, 0]])
    assert torch.equal(decoded[2], trained.decode(codes)[2])


def test_soft_codes_are_nearest_first(trained, variant):
    z = vectors(51, 5, 6)
    soft = trained.eval().encode(z, codes_per_level=4)
    assert soft.shape == (5, 6, trained.num_codebooks, 4)
    assert torch.equal(soft[..., 0], trained.encode(z))
    reference = Reference(trained, **variant)
    _, residuals, _ = reference.quantize(z.view(-1, DIM))
    for row, row_codes in enumerate(soft.view(30, -1, 4)):
        for level, codebook in enumerate(reference.codes):
            distances = torch.tensor([reference.distance(residuals[level, row], code) for code in codebook])
            assert row_codes[level].tolist() == distances.argsort()[:4].tolist()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("length", [0.3, 1.0, 30.0])
def test_residual_energy_falls_at_every_level(metric, length):
    module = ResidualQuantizer(16, 4, 32, metric=metric).train()
    for step in range(12):
        draw = torch.Generator().manual_seed(step)
        z = length * torch.nn.functional.normalize(torch.randn(200, 16, generator=draw), dim=1)
        energy = torch.cat([torch.ones(1), module(z).residual_energy])
        assert (energy[1:] < energy[:-1] - 0.01).all(), energy
        module.commit()
    assert (module.eval()(z).residual_energy.diff() < -0.01).all()


def test_vq_equals_the_first_level_of_rq():
    vq, rq = quantizer(num_codebooks=1), quantizer(num_codebooks=3)
    for step in range(10):
        first, all_levels = vq(vectors(step, 80)), rq(vectors(step, 80))
        assert torch.equal(first.codes[:, 0], all_levels.codes[:, 0])
        vq.commit()
        rq.commit()
    for name in ("codes", "sizes", "sums", "usage"):
        assert torch.equal(getattr(vq.codebooks, name)[0], getattr(rq.codebooks, name)[0])


def test_cosine_vq_codes_keep_unit_norm():
    module = quantizer(num_codebooks=1, metric="cosine")
    for step in range(5):
        module(vectors(step, 80, scale=0.3))
        module.commit()
        torch.testing.assert_close(module.codebooks.codes.norm(dim=2), torch.ones(1, 10))


def test_single_vector_input(variant):
    module = quantizer(**variant, restart_threshold=0.5)
    for step in range(3):
        result = module(vectors(step))
        assert result.codes.shape == (module.num_codebooks,) and result.quantized.shape == (DIM,)
        assert result.loss.isfinite() and result.residual_energy.isfinite().all()
        module.commit()
    assert all(tensor.isfinite().all() for tensor in module.state_dict().values())


def test_codebooks_do_not_move_before_commit(trained):
    z = vectors(20, 50)
    first = trained(z)
    for step in range(3):
        trained(vectors(21 + step, 50))
    assert torch.equal(trained(z).codes, first.codes) and torch.equal(trained(z).quantized, first.quantized)


def test_straight_through_gradient_passes_to_the_normalized_vector(trained):
    z, same = vectors(42, 20).requires_grad_(), vectors(42, 20).requires_grad_()
    weight = vectors(43, 20)
    (trained(z).quantized * weight).sum().backward()
    (torch.nn.functional.normalize(same, dim=1) * weight).sum().backward()
    torch.testing.assert_close(z.grad, same.grad)
    assert z.grad.abs().max() > 1e-3


def test_commitment_gradient_matches_autograd(trained):
    z, same = vectors(44, 20).requires_grad_(), vectors(44, 20).requires_grad_()
    result = trained(z)
    result.loss.backward()
    residual, losses = torch.nn.functional.normalize(same, dim=1), []
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


def test_wrong_options_raise():
    with pytest.raises(ValueError, match="metric is 'dot'"):
        quantizer(metric="dot")
    with pytest.raises(ValueError, match="init is 'zeros'"):
        quantizer(init="zeros")


def test_defaults_are_those_of_the_method():
    module = ResidualQuantizer(256)
    books = module.codebooks
    assert books.codes.shape == (4, 256, 256) and (books.decay, books.epsilon) == (0.99, 1e-5)
    assert (module.cosine, module.init, module.kmeans_iterations, module.seed) == (False, "kmeans", 10, 0)
    assert (module.commitment_weight, books.restart_threshold, books.restart_step) == (0.25, 0.25, 0.2)


def test_loss_is_the_codebook_loss_and_a_quarter_of_the_commitment_loss():
    values = [torch.tensor(value, requires_grad=True) for value in (2.0, 8.0)]
    loss = QuantizedResult(torch.zeros(1), torch.zeros(1), *values, torch.zeros(1)).loss
    loss.backward()
    assert loss == 4.0 and values[0].grad is None and values[1].grad == 0.25


def test_length_of_tiny_vectors_is_divided_by_epsilon():
    """r_0 = z / max(|z|, 1e-8); with codes of 0, the losses are |r_0|^2 / D."""
    module = quantizer().eval()
    z = torch.eye(DIM)[:2] * torch.tensor([[5e-9], [3.0]])
    result = module(z)
    torch.testing.assert_close(result.codebook_loss, torch.tensor((0.25 + 1) / 2 / DIM))
    torch.testing.assert_close(result.loss, 1.25 * result.codebook_loss)


def test_unknown_keys_of_a_state_are_errors():
    with pytest.raises(RuntimeError, match="unknown"):
        quantizer().load_state_dict({**quantizer().state_dict(), "unknown": torch.zeros(1)})
