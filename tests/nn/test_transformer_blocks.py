"""Recomputed and compiled blocks: same values, few compilations."""

import pytest
import torch

from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.decoder import WindowDecoder
from bridle_fairseq.nn.encoder import Encoder
from bridle_fairseq.nn.masking import choose_targets, random_mask
from bridle_fairseq.nn.schedule import Stage
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.nn.transformer import CheckpointedModule, compile_blocks

SIZES = {"num_mel_bins": 32, "patch_size": [8, 8], "encoder_width": 32, "encoder_depth": 3, "encoder_heads": 4}
SIZES |= {"decoder_width": 16, "decoder_depth": 3, "decoder_heads": 2, "tokenizer_depth": 2, "estimator_depth": 2}
SIZES |= {"num_codebooks": 2, "codebook_size": 8, "codebook_dim": 8, "mask_ratio": 0.5}
DECODERS = {
    "windows": {},
    "global": {"decoder_window": []},
    "convolution": {"decoder_kind": "convolution", "decoder_window": []},
}
STAGES = (Stage("encoder", 10), Stage("tokenizer", 10), Stage("encoder", 10), Stage("joint", 10, tokenizer_every=2))


def train(model, lengths, stages=STAGES):
    """Losses and gradients of an update of each stage for each batch (lengths of its clips)."""
    found = []
    for stage in stages:
        model.begin_stage(stage)
        for number, sizes in enumerate(lengths):
            torch.manual_seed(number)
            source = torch.randn(len(sizes), max(sizes))
            padding = torch.arange(max(sizes)) >= torch.tensor(sizes)[:, None]
            out = model(source, padding if padding.any() else None, stage, number)
            (out.loss / out.sample_size).backward()
            found += [out.loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]
            model.commit()
            model.zero_grad()
    return found


def make(**settings):
    torch.manual_seed(0)
    return Bridle(BridleSettings(**{**SIZES, **settings})).train()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_gradients_with_recomputation_are_bit_identical(decoder, precision):
    lengths = [(9000, 5000), (8000, 8000)]
    kept = train(make(**DECODERS[decoder], precision=precision), lengths)
    again = train(make(**DECODERS[decoder], precision=precision, checkpoint_activations=True), lengths)
    assert len(kept) == len(again) > 50
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))


def test_recomputation_stores_fewer_activations():
    """Counted in the tensors that autograd is given to keep."""
    sizes = {}
    for recompute in (False, True):
        kept = []

        def keep(tensor, kept=kept):
            kept.append(tensor.numel())
            return tensor

        model = make(encoder_depth=6, checkpoint_activations=recompute)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(torch.randn(2, 16000), None, STAGES[0])
        sizes[recompute] = sum(kept)
    assert sizes[True] < sizes[False] / 3


def test_drop_path_is_the_same_when_recomputed():
    grads = []
    for recompute in (False, True):
        torch.manual_seed(0)
        encoder = Encoder(16, 32, 4, 4, drop_path=0.5).train()
        for block in encoder.blocks:
            block.recompute = recompute
        encoder(torch.randn(8, 12, 16), (4, 3)).x.square().sum().backward()
        grads.append([p.grad for p in encoder.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("decoder", ["windows", "global"])
def test_compiled_blocks_give_the_same_values(decoder):
    torch._dynamo.reset()
    lengths = [(9000, 5000), (8000, 8000)]
    plain, compiled = make(**DECODERS[decoder]), make(**DECODERS[decoder])
    compile_blocks(compiled, "aot_eager")
    assert list(plain.state_dict()) == list(compiled.state_dict())
    for a, b in zip(train(plain, lengths, STAGES[:2]), train(compiled, lengths, STAGES[:2]), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_blocks_are_compiled_as_one_graph_each():
    torch._dynamo.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    encoder = Encoder(16, 32, 2, 4)
    compile_blocks(encoder, backend)
    encoder(torch.randn(2, 12, 16), (4, 3))
    assert len(graphs) == 1  # equal blocks share it
    torch._dynamo.reset()
    broken = CheckpointedModule()
    broken.forward = lambda x: torch._dynamo.graph_break() or x + 1
    compile_blocks(broken, "eager")
    with pytest.raises(torch._dynamo.exc.Unsupported):
        broken(torch.zeros(3))


@pytest.mark.parametrize(("part", "recompute"), [("encoder", False), ("encoder", True), ("decoder", False)])
def test_new_lengths_do_not_recompile(part, recompute):
    """Batches of other sizes and lengths, padded or not, with gradient or without: no version but the first few."""
    torch._dynamo.reset()
    module = Encoder(16, 32, 2, 4) if part == "encoder" else WindowDecoder(16, 32, 2, 4, 2, 8, window=(4, 4))
    compile_blocks(module, "eager")
    for block in module.blocks:
        block.recompute = recompute

    def use(clips, steps, padded):
        grid = (steps, 4)
        padding = (torch.arange(4 * steps) >= 4 * steps - 5).expand(clips, -1) if padded else None
        if part == "encoder":
            return module(torch.randn(clips, 4 * steps, 16), grid, padding).x
        mask = random_mask(clips, grid, 0.5, padding_mask=padding)
        x = torch.randn(*mask.visible.shape, 16)
        return module(x, mask, choose_targets(mask), grid, padding)

    def use_all(sizes):
        for clips, steps in sizes:
            for padded in (False, True):
                use(clips, steps, padded).sum().backward()
                with torch.no_grad():
                    use(clips, steps, padded)

    use_all([(2, 8), (3, 12), (4, 16)])
    with torch._dynamo.config.patch(error_on_recompile=True):
        use_all([(5, 20), (2, 24), (6, 12), (3, 40)])
