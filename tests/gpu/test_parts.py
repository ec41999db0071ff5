"""Parts of the model on the device, against the CPU: front end, masks, k-means and quantizer."""

import copy

import pytest
import torch

from bridle_fairseq.nn.frontend import front_end_of
from bridle_fairseq.nn.masking import MASKINGS, choose_targets
from bridle_fairseq.quantization import ResidualQuantizer
from bridle_fairseq.quantization.kmeans import kmeans
from bridle_fairseq.utils import distributed


@pytest.mark.parametrize("modality", ["audio", "image", "video"])
def test_front_end(make, batch, device, modality):
    """Log-mel in float32: 1e-3 of a normalized value. Pixels need no sums: 1e-6."""
    settings = make(modality, target_norm="patch").settings
    source, padding = batch(modality)
    expected = front_end_of(settings)(source, padding, with_centred=True)
    found = front_end_of(settings).to(device)(source.to(device), padding.to(device), with_centred=True)
    assert found.grid == expected.grid and torch.equal(found.padding_mask.cpu(), expected.padding_mask)
    for name in ("x", "centred"):
        value = getattr(found, name)
        assert value.device.type == device.type and value.dtype == torch.float32
        tolerance = 1e-3 if modality == "audio" else 1e-6
        torch.testing.assert_close(value.cpu(), getattr(expected, name), rtol=0, atol=tolerance)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", MASKINGS)
def test_masks(device, name, padded):
    """As many visible patches and targets as on the CPU; none at padding."""
    padding = torch.zeros(3, 4, 6, dtype=torch.bool)
    padding[1, 2:], padding[2, 1:] = True, True
    padding = padding.flatten(1) if padded else None
    counts = []
    for place in ("cpu", device):
        of_place = None if padding is None else padding.to(place)
        mask = MASKINGS[name](3, (4, 6), 0.6, padding_mask=of_place, device=torch.device(place))
        targets = choose_targets(mask, 0.5)
        valid = ~targets.padding if padded else torch.ones_like(targets.places, dtype=torch.bool)
        assert mask.masked.gather(1, targets.places)[valid].all()
        assert not padded or not (mask.masked & of_place).any()
        kept = torch.ones_like(mask.visible, dtype=torch.bool) if not padded else ~mask.visible_padding
        assert not mask.masked.gather(1, mask.visible)[kept].any()
        counts.append([mask.visible.shape, targets.places.shape, valid.sum(1).tolist()])
        counts[-1] += [] if name in ("tube", "lines") and padded else [kept.sum(1).tolist()]
    assert counts[0] == counts[1]


def clouds(count, width, vectors, seed, spread=0.05):
    """Vectors of well separated clouds, so that rounding moves none of them to another code."""
    generator = torch.Generator().manual_seed(seed)
    middles = torch.randn(count, width, generator=torch.Generator().manual_seed(99))
    drawn = torch.randint(count, (vectors,), generator=generator)
    return middles[drawn] + spread * torch.randn(vectors, width, generator=generator)


@pytest.mark.parametrize("cosine", [False, True])
def test_kmeans(device, cosine):
    rows = clouds(16, 32, 3000, seed=0)
    expected = kmeans(rows, 16, cosine=cosine)
    found = kmeans(rows.to(device), 16, cosine=cosine)
    torch.testing.assert_close(found[0].cpu(), expected[0], rtol=0, atol=1e-4)
    assert torch.equal(found[1].cpu(), expected[1])


@pytest.mark.parametrize("options", [{}, {"metric": "cosine"}, {"num_books": 2}], ids=str)
def test_quantizer_trains_as_on_the_cpu(device, options):
    """The vectors of later updates come from fewer clouds, so that codes die and restart."""
    quantizers = [ResidualQuantizer(32, 2, 24, decay=0.5, **options).train()]
    quantizers.append(copy.deepcopy(quantizers[0]).to(device))
    restarts = 0
    for update in range(6):
        z = clouds(24 if update < 2 else 8, 32, 2048, seed=update).view(4, 512, 32)
        padding = torch.arange(512) >= torch.tensor([512, 400, 512, 300])[:, None]
        results = []
        for quantizer, place in zip(quantizers, ("cpu", device), strict=True):
            vectors = z.to(place).requires_grad_()
            result = quantizer(vectors, padding.to(place))
            (result.loss + result.quantized.square().mean()).backward()
            results.append([result.codes[~padding.to(place)], result.loss, result.residual_energy, vectors.grad])
            quantizer.commit()
        agree = (results[1][0].cpu() == results[0][0]).float().mean()
        assert agree > 0.995, agree
        for found, expected in zip(results[1][1:], results[0][1:], strict=True):
            torch.testing.assert_close(found.cpu(), expected, rtol=5e-3, atol=1e-5)
        books = [quantizer.codebooks for quantizer in quantizers]
        assert torch.equal(books[1].restarted.cpu(), books[0].restarted)
        restarts += int(books[0].restarted.sum())
        for name in ("sizes", "usage"):
            torch.testing.assert_close(getattr(books[1], name).cpu(), getattr(books[0], name), rtol=0.02, atol=0.5)
    assert restarts > 0


def test_soft_codes(device):
    quantizer = ResidualQuantizer(32, 2, 24).train()
    z = clouds(24, 32, 2048, seed=0)
    quantizer(z)
    quantizer.commit()
    expected = quantizer.eval().encode(z, codes_per_level=3)
    found = quantizer.to(device).encode(z.to(device), codes_per_level=3).cpu()
    assert found.shape == (2048, 2, 3)
    assert (found[..., 0] == expected[..., 0]).float().mean() > 0.995
    assert (found.sort(-1).values == expected.sort(-1).values).float().mean() > 0.98
    torch.testing.assert_close(quantizer.decode(found[..., 0].to(device)).cpu(), quantizer.cpu().decode(found[..., 0]))


def test_collectives_with_one_rank(device, tmp_path):
    """NCCL on a GPU. Without a second rank the package sends nothing, so each collective is called by itself."""
    dist = torch.distributed
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        rows = torch.arange(12.0, device=device).view(4, 3)
        for collective in (dist.all_reduce, lambda x: dist.broadcast(x, 0)):
            again = rows.clone()
            collective(again)
            assert torch.equal(again, rows)
        gathered = [torch.empty_like(rows)]
        dist.all_gather(gathered, rows)
        assert torch.equal(gathered[0], rows)
        assert torch.equal(distributed.gather_rows(rows), rows) and distributed.row_counts(rows) == [4]
        quantizer = ResidualQuantizer(32, 2, 8).to(device).train()
        quantizer(clouds(8, 32, 256, seed=0).to(device))
        quantizer.commit()
        assert quantizer.initialized and int(quantizer.codebooks.num_updates) == 1
    finally:
        dist.destroy_process_group()
