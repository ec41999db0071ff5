"""Compiled blocks on the device, against eager ones: with padding, and on two grids."""

import copy

import torch

from bridle_fairseq.nn.schedule import Stage
from bridle_fairseq.nn.transformer import compile_blocks

STAGE = Stage("encoder", 10, targets="projection")


def test_compiled_blocks_equal_eager_ones(make, batch, device, relative, same_masks):
    """The second length is compiled for any length, so the third one compiles nothing."""
    models = [make().to(device)]
    models[0].begin_stage(STAGE)
    models[0](*(x.to(device) for x in batch()), STAGE)
    models[0].commit()
    models.append(copy.deepcopy(models[0]))
    compile_blocks(models[1], "inductor" if device.type == "cuda" else "eager")
    source, padding = (x.to(device) for x in batch(seed=1))
    for samples, mask in ((12000, padding), (9000, padding), (10400, padding), (12000, None)):
        results = []
        for model in models:
            model.zero_grad()
            loss = model(source[:, :samples], None if mask is None else mask[:, :samples], STAGE).loss
            loss.backward()
            results.append((loss, [p.grad for p in model.parameters() if p.grad is not None]))
        eager, compiled = results
        assert relative(compiled[0], eager[0]) < 1e-4 and relative(compiled[1], eager[1]) < 1e-3


def test_compiled_blocks_train_in_bfloat16(make, batch, device, relative, same_masks):
    """As ``base`` trains: autocast around compiled blocks. Both round to bfloat16, at different places."""
    losses = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = make(precision="bfloat16").to(device)
        if compiled:
            compile_blocks(model, "inductor" if device.type == "cuda" else "eager")
        model.begin_stage(STAGE)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        for number in range(4):
            loss = model(batch(seed=number)[0].to(device), None, STAGE).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            model.commit()
        losses.append(loss)
    assert relative(losses[1], losses[0]) < 0.01
