"""Arrays as images of a page, and colours for codes."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

_HEAT = np.array(
    [(6, 5, 20), (59, 20, 104), (136, 34, 106), (203, 65, 84), (245, 125, 62), (252, 196, 95), (252, 253, 200)]
)


def data_uri(kind: str, data: bytes) -> str:
    """Bytes of a media type as a URI that a page can embed."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def png_uri(pixels: np.ndarray) -> str:
    """An image, height x width x 3 uint8, as the URI of a PNG file."""
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, format="PNG", optimize=True)
        return data_uri("image/png", file.getvalue())


def heat(values: np.ndarray) -> np.ndarray:
    """Values, height x width, as colours from dark to light, height x width x 3 uint8; extremes are clipped."""
    low, high = np.percentile(values, [2, 99.8])
    place = np.clip((values - low) / max(high - low, 1e-9), 0, 1) * (len(_HEAT) - 1)
    channels = [np.interp(place, np.arange(len(_HEAT)), _HEAT[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def code_colours(codebook: np.ndarray) -> np.ndarray:
    """A colour for each code of a codebook, C x D -> C x 3 uint8; similar codes get similar colours.

    The codes' ranks along their first three principal components become the two colour axes and the lightness of OKLab.
    """
    centred = codebook - codebook.mean(axis=0)
    _, _, axes = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    scores = centred @ axes[:3].T
    scores = np.pad(scores, ((0, 0), (0, 3 - scores.shape[1])))  # C x 3
    rank = scores.argsort(axis=0).argsort(axis=0) / max(len(codebook) - 1, 1)
    a, b, light = (rank[:, 0] - 0.5) * 0.32, (rank[:, 1] - 0.5) * 0.32, 0.45 + 0.4 * rank[:, 2]
    # OKLab to linear sRGB (Ottosson 2020), then the gamma of sRGB
    cones = np.stack(
        [light + 0.3963 * a + 0.2158 * b, light - 0.1056 * a - 0.0639 * b, light - 0.0895 * a - 1.2915 * b], axis=-1
    )
    to_rgb = np.array([[4.0767, -3.3077, 0.2310], [-1.2684, 2.6098, -0.3413], [-0.0042, -0.7034, 1.7076]])
    linear = np.clip(cones**3 @ to_rgb.T, 0, 1)
    gamma = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (gamma * 255).round().astype(np.uint8)
