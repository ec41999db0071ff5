"""Histograms of colors and of edge directions."""

import pytest
import torch

from bridle_fairseq.inference.baselines import BINS, CELLS, ORIENTATIONS, colour_histogram, orientation_histogram


def test_colour_histogram():
    image = torch.zeros(3, 4, 4)
    image[0, :2] = 1.0  # the upper half is red
    image[2, 3] = 0.3  # the last row dark blue
    found = colour_histogram(image)
    assert found.shape == (BINS**3,) and found.sum() == 1
    assert found[(BINS - 1) * BINS**2] == 0.5 and found[0] == 0.25 and found[1] == 0.25


@pytest.mark.parametrize(("direction", "place"), [((1.0, 0.0), 0), ((0.0, 1.0), ORIENTATIONS // 2), ((1.0, -1.0), 6)])
def test_direction_of_edges(direction, place):
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    image = (x * direction[0] + y * direction[1])[None].expand(3, 16, 16) / 32
    for sign in (1, -1):
        found = orientation_histogram(sign * image).view(CELLS, CELLS, ORIENTATIONS)
        assert (found[1:-1, 1:-1].argmax(-1) == place).all()
        torch.testing.assert_close(found.norm(dim=-1), torch.ones(CELLS, CELLS))


def test_histograms_of_flat_and_tiny_images():
    for size in ((16, 16), (2, 2), (3, 40)):
        found = orientation_histogram(torch.full((3, *size), 0.4))
        assert found.shape == (CELLS**2 * ORIENTATIONS,) and (found == 0).all()
