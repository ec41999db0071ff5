"""Running mean and standard deviation."""

import torch

from bridle_fairseq.nn import running_norm as standardize
from bridle_fairseq.nn.running_norm import RunningNorm


def test_running_averages_of_all_vectors():
    torch.manual_seed(0)
    norm = RunningNorm(3, decay=0.9)
    first, second = torch.randn(5, 4, 3) * 2 + 1, torch.randn(2, 4, 3) * 3 - 1
    norm(first)
    norm.commit()
    norm(second)
    norm.commit()
    mean = 0.9 * first.view(-1, 3).mean(0) + 0.1 * second.view(-1, 3).mean(0)
    square = 0.9 * first.view(-1, 3).square().mean(0) + 0.1 * second.view(-1, 3).square().mean(0)
    x = torch.randn(7, 3)
    torch.testing.assert_close(norm.eval()(x), (x - mean) / (square - mean.square()).sqrt(), atol=1e-5, rtol=1e-5)


def test_a_single_vector_moves_the_averages():
    norm = RunningNorm(2, decay=0.75)
    for vector in (torch.tensor([[4.0, -8.0]]), torch.tensor([[8.0, 0.0]])):
        norm(vector)
        norm.commit()
    assert norm.mean.tolist() == [5.0, -6.0] and norm.second.tolist() == [28.0, 48.0]


def test_two_forwards_and_one_commit_equal_the_concatenated_batch():
    parts = torch.randn(3, 4, 6), torch.randn(1, 4, 6)
    a, b = RunningNorm(6), RunningNorm(6)
    for norm in (a, b):
        norm(torch.zeros(2, 6) + 1)
        norm.commit()
    for part in parts:
        a(part)
    b(torch.cat(parts))
    a.commit()
    b.commit()
    torch.testing.assert_close(a.mean, b.mean)
    torch.testing.assert_close(a.second, b.second)


def test_eval_padding_and_discard_leave_the_averages():
    norm = RunningNorm(4)
    norm(torch.randn(8, 4))
    norm.commit()
    before = {k: v.clone() for k, v in norm.state_dict().items()}
    norm.eval()(torch.randn(8, 4))
    norm.train()(torch.randn(8, 4), torch.ones(8, dtype=torch.bool))
    norm(torch.randn(8, 4), collect=False)
    norm.commit()
    norm(torch.randn(8, 4))
    norm.discard()
    norm.commit()
    assert all(torch.equal(v, before[k]) for k, v in norm.state_dict().items())


def test_constant_channels_stay_finite_and_gradients_pass():
    norm = RunningNorm(2)
    x = torch.stack([torch.full((9,), 3.0), torch.randn(9)], 1).requires_grad_()
    out = norm(x)
    assert torch.isfinite(out).all()
    out.sum().backward()
    assert torch.isfinite(x.grad).all() and x.grad.abs().sum() > 0


def test_averages_stay_float32_in_half_precision():
    norm = RunningNorm(4)
    norm(torch.randn(100, 4))
    norm.commit()
    before = norm.mean.clone()
    norm.half()
    assert norm.mean.dtype == torch.float32 and torch.equal(norm.mean, before)


def test_plain_mode_returns_vectors_unchanged_and_has_the_same_keys():
    norm, x = RunningNorm(2, "plain"), torch.randn(50, 2) * 5 + 2
    assert torch.equal(norm(x), x)
    RunningNorm(2).load_state_dict(norm.state_dict())


def test_center_mode_keeps_the_scale():
    norm = RunningNorm(2, "center")
    x = torch.randn(50, 2) * 5 + 2
    norm(x)
    torch.testing.assert_close(norm(x), x - x.mean(0), atol=1e-5, rtol=1e-5)


def test_first_training_forward_initializes_the_averages():
    norm, x = RunningNorm(3), torch.randn(50, 3) * 4 + 1
    norm.eval()(x)
    assert not norm.started
    first = norm.train()(x, collect=False)
    assert norm.started
    torch.testing.assert_close(first, (x - x.mean(0)) / x.std(0, unbiased=False), atol=1e-4, rtol=1e-4)
    norm.commit()
    torch.testing.assert_close(norm.mean, x.mean(0))
    norm.reset()
    assert not norm.started
    torch.testing.assert_close(norm(x - 5), first, atol=1e-4, rtol=1e-4)


def test_no_collective_if_nothing_was_collected(monkeypatch):
    sent = []
    monkeypatch.setattr(standardize, "all_reduce_sum", lambda tensor: sent.append(tensor.clone()) or tensor)
    norm = RunningNorm(3).train()
    norm(torch.randn(5, 3), collect=False)  # starts the averages
    assert len(sent) == 1
    norm.commit()
    assert len(sent) == 1
    norm(torch.randn(4, 3), torch.ones(4, dtype=torch.bool))  # with nothing, as another rank may have more
    norm.commit()
    assert len(sent) == 2 and not sent[1].any()


def test_averages_move_by_a_hundredth_by_default():
    norm = RunningNorm(2)
    for value in (1.0, 5.0):
        norm(torch.full((4, 2), value))
        norm.commit()
    torch.testing.assert_close(norm.mean, torch.full((2,), 0.99 * 1 + 0.01 * 5))
    torch.testing.assert_close(norm.second, torch.full((2,), 0.99 * 1 + 0.01 * 25))
    assert norm.floor == 1e-3


def test_sums_over_micro_batches_are_float64():
    norm = RunningNorm(1, decay=0.0)
    for value in (0.0, 2.0**24, 1.0, -(2.0**24)):  # in float32, 2 ** 24 + 1 is 2 ** 24
        norm(torch.full((1, 1), value))
    norm.commit()
    assert float(norm.mean) == 0.25
