"""All kinds of masks."""

from functools import partial

import pytest
import torch

from bridle_fairseq.nn import masking
from bridle_fairseq.nn.masking import MASKINGS, block_mask, choose_targets, grid_mask, line_mask, random_mask, tube_mask


@pytest.mark.parametrize(
    ("num_patches", "ratio", "hidden"), [(512, 0.8, 410), (10, 0.5, 5), (2, 0.01, 1), (2, 0.99, 1), (3, 0.5, 2)]
)
def test_number_of_masked_patches(num_patches, ratio, hidden):
    mask = random_mask(3, num_patches, ratio)
    assert mask.masked.sum(1).tolist() == [hidden] * 3
    assert mask.visible.shape[1] == max(1, num_patches - hidden)


def test_visible_and_masked_patches_partition_the_grid():
    mask = random_mask(4, 20, 0.7, generator=torch.Generator().manual_seed(3))
    assert mask.visible_padding is None
    for visible, masked in zip(mask.visible, mask.masked, strict=True):
        assert visible.tolist() == (~masked).nonzero().flatten().tolist()
    assert not torch.equal(mask.masked[0], mask.masked[1])


def test_padding_is_neither_visible_nor_masked():
    padding = torch.zeros(5, 30, dtype=torch.bool)
    for clip, valid in enumerate((30, 17, 8, 2, 1)):
        padding[clip, valid:] = True
    mask = random_mask(5, 30, 0.75, padding_mask=padding)
    assert not (mask.masked & padding).any()
    for clip, valid in enumerate((30, 17, 8, 2, 1)):
        visible = mask.visible[clip][~mask.visible_padding[clip]]
        hidden = min(max(1, round(valid * 0.75)), valid - 1)
        assert mask.masked[clip].sum() == hidden
        assert not padding[clip, visible].any()
        assert len(visible) + mask.masked[clip].sum() == valid
        assert visible.tolist() == sorted(set(visible.tolist()))


def test_every_patch_is_masked_equally_often():
    mask = random_mask(4000, 8, 0.5, generator=torch.Generator().manual_seed(0))
    share = mask.masked.float().mean(0)
    assert (share - 0.5).abs().max() < 0.04


def test_grid_mask_leaves_whole_time_steps_and_rows():
    torch.manual_seed(0)
    mask = grid_mask(50, (10, 5), 0.3, 0.4)
    assert mask.grid == (7, 3) and mask.visible.shape == (50, 21) and mask.visible_padding is None
    assert (mask.visible.diff(dim=1) > 0).all()
    shown = torch.zeros(50, 50, dtype=torch.bool).scatter_(1, mask.visible, True).view(50, 10, 5)
    steps, rows = shown.any(2), shown.any(1)
    assert torch.equal(shown, steps[:, :, None] & rows[:, None, :])
    assert (steps.sum(1) == 7).all() and (rows.sum(1) == 3).all()
    assert steps.float().mean(0).std() < 0.1 and not (steps == steps[0]).all()


def test_grid_mask_ratio_applies_to_each_clips_valid_steps():
    torch.manual_seed(0)
    steps = torch.tensor([10, 5, 1])
    padding = (torch.arange(10) >= steps[:, None]).repeat_interleave(4, dim=1)
    mask = grid_mask(3, (10, 4), 0.2, 0.0, padding_mask=padding)
    assert mask.grid == (8, 4)
    assert (~mask.visible_padding).sum(1).tolist() == [32, 16, 4]
    for row in range(3):
        places = mask.visible[row][~mask.visible_padding[row]]
        assert len(places.unique()) == len(places) and not padding[row][places].any()


def test_grid_mask_with_ratio_0_masks_nothing():
    assert grid_mask(2, (6, 4), 0.0, 0.5).grid == (6, 2) and grid_mask(2, (6, 4), 0.5, 0.0).grid == (3, 4)
    padding = torch.zeros(2, 24, dtype=torch.bool)
    padding[1, 12:] = True
    mask = grid_mask(2, (6, 4), 0.0, 0.0, padding_mask=padding)
    assert torch.equal(mask.visible, torch.arange(24).expand(2, 24)) and torch.equal(mask.visible_padding, padding)


GRIDS = [(64, 8), (14, 14), (8, 14, 14), (7, 5), (1, 9), (5, 1, 3), (1, 2)]


def valid_sizes(grid):
    """Padding of three clips on a grid: none, the end of time, the end of all axes (never a whole clip)."""
    padding = torch.ones(3, *grid, dtype=torch.bool)
    padding[0] = False
    padding[1, : max(1, grid[0] // 2)] = False
    padding[(2, *(slice(max(1, size * 2 // 3)) for size in grid))] = False
    return padding.flatten(1)


def share(number, ratio):
    """Hidden ones of a number of patches or places."""
    return min(max(1, round(number * ratio)), number - 1) if number > 1 else 0


def check_split(mask, padding):
    """Visible and masked share out the valid patches; padding is neither."""
    assert not (mask.masked & padding).any()
    for clip, masked in enumerate(mask.masked):
        shown = mask.visible[clip]
        if mask.visible_padding is not None:
            shown = shown[~mask.visible_padding[clip]]
        assert shown.tolist() == (~masked & ~padding[clip]).nonzero().flatten().tolist()


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("ratio", [0.03, 0.5, 0.8, 0.9, 0.99])
@pytest.mark.parametrize("name", ["random", "block", "lines"])
def test_number_of_masked_patches_is_exact_on_any_grid(name, ratio, grid):
    num_patches = torch.Size(grid).numel()
    mask = MASKINGS[name](3, grid, ratio)
    assert mask.visible_padding is None and mask.masked.sum(1).tolist() == [share(num_patches, ratio)] * 3
    check_split(mask, torch.zeros(3, num_patches, dtype=torch.bool))
    padding = valid_sizes(grid)
    mask = MASKINGS[name](3, grid, ratio, padding_mask=padding)
    assert mask.masked.sum(1).tolist() == [share(int(valid), ratio) for valid in (~padding).sum(1)]
    check_split(mask, padding)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("ratio", [0.03, 0.5, 0.9])
def test_tubes_are_constant_over_time_and_their_number_is_exact(ratio, grid):
    places = torch.Size(grid[1:]).numel()
    mask = tube_mask(3, grid, ratio)
    tubes = mask.masked.view(3, grid[0], places)
    assert (tubes == tubes[:, :1]).all() and tubes[:, 0].sum(1).tolist() == [share(places, ratio)] * 3
    check_split(mask, torch.zeros(3, grid[0] * places, dtype=torch.bool))
    padding = valid_sizes(grid)
    mask = tube_mask(3, grid, ratio, padding_mask=padding)
    check_split(mask, padding)
    for masked, padded in zip(mask.masked.view(3, -1, places), padding.view(3, -1, places), strict=True):
        hidden = masked.any(0)
        assert torch.equal(masked, hidden & ~padded)
        assert hidden.sum() == share(int((~padded).any(0).sum()), ratio)


def neighbours(hidden):
    """How many of the two to six neighbours of each patch are hidden."""
    count = torch.zeros_like(hidden, dtype=torch.long)
    for axis in range(hidden.dim()):
        size = hidden.shape[axis]
        count.narrow(axis, 1, size - 1).add_(hidden.narrow(axis, 0, size - 1))
        count.narrow(axis, 0, size - 1).add_(hidden.narrow(axis, 1, size - 1))
    return count


def pieces(hidden):
    """Sizes of the connected pieces of hidden patches."""
    places, sizes = {tuple(place) for place in hidden.nonzero().tolist()}, []
    while places:
        edge, size = [places.pop()], 0
        while edge:
            place, size = edge.pop(), size + 1
            for axis in range(len(place)):
                for step in (-1, 1):
                    beside = (*place[:axis], place[axis] + step, *place[axis + 1 :])
                    if beside in places:
                        places.remove(beside)
                        edge.append(beside)
        sizes.append(size)
    return sizes


@pytest.mark.parametrize(("grid", "volume"), [((16, 16), 16), ((32, 8), 16), ((8, 10, 10), 64)])
@pytest.mark.parametrize("padded", [False, True])
def test_block_mask_has_few_contiguous_blocks(grid, volume, padded):
    padding = valid_sizes(grid) if padded else torch.zeros(3, torch.Size(grid).numel(), dtype=torch.bool)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        mask = block_mask(3, grid, 0.4, padding_mask=padding if padded else None, generator=generator)
        for hidden in mask.masked:
            found = pieces(hidden.view(grid))
            assert len(found) <= -(-int(hidden.sum()) // volume) and len(found) < 0.1 * hidden.sum()
            assert (neighbours(hidden.view(grid))[hidden.view(grid)] > 0).all()
    one = block_mask(1, (16, 16), 16 / 256).masked.view(16, 16)
    rows, columns = one.any(1).sum(), one.any(0).sum()
    assert pieces(one) == [16] and rows * columns <= 32


def test_layers_of_a_block_are_log_uniform_from_one_to_three_patches(monkeypatch):
    layers, drawn = masking._layers, []
    monkeypatch.setattr(
        masking, "_layers", lambda middles, grid, thick: drawn.append(thick) or layers(middles, grid, thick)
    )
    block_mask(200, (16, 16), 0.5, generator=torch.Generator().manual_seed(0))
    logarithm = drawn[0].log() / torch.tensor(3.0).log()
    assert logarithm.min() >= 0 and 0.95 < logarithm.max() < 1 and (logarithm.mean() - 0.5).abs() < 0.02


def test_block_mask_gives_a_padded_clip_the_blocks_of_its_own_size():
    """A quarter of the 64 valid patches is one block, beside a clip with four."""
    padding = torch.ones(2, 16, 16, dtype=torch.bool)
    padding[0] = padding[1, :8, :8] = False
    mask = block_mask(2, (16, 16), 0.25, padding_mask=padding.flatten(1), generator=torch.Generator().manual_seed(0))
    assert pieces(mask.masked[1].view(16, 16)) == [16]


@pytest.mark.parametrize("grid", [(20, 10), (6, 5, 7), (1, 8, 8)])
def test_line_mask_masks_whole_lines_except_the_last(grid):
    mask = line_mask(40, grid, 0.6, generator=torch.Generator().manual_seed(0))
    grid = [size for size in grid if size > 1]
    shares = torch.zeros(len(grid))
    for masked in mask.masked.view(40, *grid):
        whole = torch.zeros_like(masked)
        for axis, size in enumerate(grid):
            others = [at for at in range(len(grid)) if at != axis]
            lines = masked.float().mean(others) == 1
            shares[axis] += lines.float().mean() / 40
            whole |= lines.view([size if at == axis else 1 for at in range(len(grid))])
        left = (masked & ~whole).nonzero()
        assert len(left) == 0 or (left == left[0]).all(0).any()  # the rest lies in one line
    assert shares.min() > 0.15 and shares.max() - shares.min() < 0.1


@pytest.mark.parametrize("name", list(MASKINGS))
def test_masks_are_reproducible_with_a_generator(name):
    make = partial(MASKINGS[name], 4, (8, 6, 6), 0.7, padding_mask=None)
    first, again, other = (make(generator=torch.Generator().manual_seed(seed)).masked for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
    state = torch.get_rng_state()
    make(generator=torch.Generator().manual_seed(1))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("name", "uneven"), [("random", 0.07), ("tube", 0.07), ("lines", 0.07), ("block", 0.45)], ids=list(MASKINGS)
)
def test_no_position_is_always_visible_or_always_masked(name, uneven):
    mask = MASKINGS[name](1000, (4, 10, 10), 0.5, generator=torch.Generator().manual_seed(0))
    often = mask.masked.float().mean(0)
    assert (often - 0.5).abs().max() < uneven  # blocks reach the corners of a grid from one side only


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.01])
def test_targets_are_masked_patches_of_exact_number(share, padded):
    padding = torch.zeros(4, 40, dtype=torch.bool)
    if padded:
        padding[0, 30:], padding[1, 7:], padding[2, 1:] = True, True, True
    mask = random_mask(4, 40, 0.7, padding_mask=padding if padded else None)
    targets = choose_targets(mask, share)
    for clip, masked in enumerate(mask.masked):
        places = targets.places[clip]
        if padded:
            places = places[~targets.padding[clip]]
        hidden = int(masked.sum())
        assert len(places) == min(hidden, max(1, round(hidden * share)))
        assert masked[places].all() and (places.diff() > 0).all()
    if share == 1.0:
        taken = targets.of(mask.masked[..., None])[:, 0]
        assert int((taken if targets.padding is None else taken[~targets.flat_padding]).sum()) == mask.masked.sum()


def test_targets_of_gathers_values_clip_after_clip():
    mask = random_mask(2, 12, 0.5, padding_mask=torch.arange(12)[None] >= torch.tensor([12, 8])[:, None])
    values = torch.arange(2 * 12 * 3 * 2).view(2, 12, 3, 2)
    targets = choose_targets(mask)
    assert torch.equal(targets.of(values)[~targets.flat_padding], values[mask.masked])


def test_targets_are_uniform_and_reproducible():
    mask = random_mask(1, 10, 0.6)
    many = type(mask)(mask.visible.repeat(4000, 1), None, mask.masked.repeat(4000, 1))
    targets = choose_targets(many, 0.5, torch.Generator().manual_seed(0))
    often = torch.bincount(targets.places.flatten(), minlength=10)[mask.masked[0]] / 4000
    assert (often - 0.5).abs().max() < 0.05
    again = choose_targets(many, 0.5, torch.Generator().manual_seed(0))
    assert torch.equal(again.places, targets.places)
