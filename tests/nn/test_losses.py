"""Losses against their formulas."""

import torch

from bridle_fairseq.nn.losses import code_loss, cosine_loss, valid_count


def test_code_loss_is_cross_entropy_per_level():
    logits, codes = torch.randn(7, 3, 5, dtype=torch.float64), torch.randint(0, 5, (7, 3))
    out = code_loss(logits, codes)
    expected = torch.stack(
        [torch.nn.functional.cross_entropy(logits[:, k], codes[:, k], reduction="sum") for k in range(3)]
    )
    torch.testing.assert_close(out.per_level.double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out.loss.double(), expected.mean(), atol=1e-5, rtol=1e-5)
    assert out.correct.tolist() == (logits.argmax(-1) == codes).sum(0).tolist()
    assert out.num_patches == 7


def test_soft_codes_share_the_weight_and_only_the_nearest_counts_as_correct():
    logits, codes = torch.randn(4, 2, 6), torch.stack([torch.randperm(6)[:3] for _ in range(8)]).view(4, 2, 3)
    out = code_loss(logits, codes)
    single = torch.stack([code_loss(logits, codes[..., m]).loss for m in range(3)])
    torch.testing.assert_close(out.loss, single.mean())
    assert out.correct.tolist() == code_loss(logits, codes[..., 0]).correct.tolist()


def test_cosine_loss_ignores_padding():
    a, b = torch.randn(2, 4, 8), torch.randn(2, 4, 8)
    padding = torch.tensor([[False, False, True, True], [False] * 4])
    expected = sum(
        1 - torch.nn.functional.cosine_similarity(a[i, n], b[i, n], dim=0)
        for i, n in [(0, 0), (0, 1), *[(1, n) for n in range(4)]]
    )
    torch.testing.assert_close(cosine_loss(a, b, padding), expected)
    assert valid_count(a[..., 0], padding) == 6 and valid_count(a[..., 0], None) == 8


def test_code_loss_ignores_padding():
    logits, codes = torch.randn(6, 3, 5, requires_grad=True), torch.randint(0, 5, (6, 3))
    codes[:, 0] = logits[:, 0].argmax(-1)
    padding = torch.tensor([False, True, False, False, True, False])
    out, expected = code_loss(logits, codes, padding), code_loss(logits[~padding], codes[~padding])
    torch.testing.assert_close(out.loss, expected.loss)
    torch.testing.assert_close(out.per_level, expected.per_level)
    assert out.correct.tolist() == expected.correct.tolist() and out.num_patches == expected.num_patches == 4
    out.loss.backward()
    assert (logits.grad[padding] == 0).all() and (logits.grad[~padding] != 0).all()
