"""How an item of each modality is drawn, with maps of its codes laid out as the picture is."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bridle_fairseq.nn.frontend import unit_range
from bridle_fairseq.report import charts

FRAMES_A_SECOND = 100


@dataclass
class Clip:
    """A clip with its codes."""

    name: str
    label: str
    picture: np.ndarray  # height x width x 3, uint8
    codes: np.ndarray  # rows x columns x K, as wide as the picture
    kind: str  # what the picture is: "log-mel", "image", "frames"
    style: str  # of picture and maps: "sound", "image" or "video"
    ticks: Sequence[str] = ()  # under the maps, evenly
    player: str = ""  # HTML to play it


def laid_out(codes: np.ndarray, modality: str) -> np.ndarray:
    """Something of each patch (the grid's axes, then others) in rows and columns of the picture.

    Sound: T x F becomes rows of frequency, the lowest at the bottom, and columns of time. Images are as they are. Of
    video (T x rows x columns) the steps of time lie side by side.
    """
    if modality == "video":
        return np.concatenate(list(codes), axis=1)
    return codes.swapaxes(0, 1)[::-1] if modality == "audio" else codes


@torch.inference_mode()
def draw(model: Any, name: str, label: str, source: torch.Tensor, codes: np.ndarray) -> Clip:
    """An item with its codes.

    Args:
        model: a :class:`bridle_fairseq.nn.bridle.Bridle`, on the device of its parameters.
        name, label: what the page calls it.
        source: one item, as its data set gives it.
        codes: the grid's axes x K.
    """
    settings = model.settings
    codes = laid_out(codes, settings.modality)
    if settings.modality == "audio":
        return _sound(model, name, label, source, codes)
    pixels = (unit_range(source) * 255).round().byte().cpu().numpy()
    if settings.modality == "image":
        return Clip(name, label, _picture(model, pixels), codes, "image", "image")
    frames = pixels[:, :: settings.patch_size[0]]  # the first of each step
    shown = np.concatenate([_picture(model, frames[:, step]) for step in range(frames.shape[1])], axis=1)
    return Clip(name, label, shown, codes, "frames", "video")


def _picture(model: Any, pixels: np.ndarray) -> np.ndarray:
    """3 x height x width to height x width x 3, as large as the maps: the last patch may reach past the edge."""
    sides = model.settings.patch_size[-2:]
    height, width = (-(-length // side) * side for length, side in zip(pixels.shape[1:], sides, strict=True))
    full = np.full((height, width, 3), 255, np.uint8)
    full[: pixels.shape[1], : pixels.shape[2]] = pixels.transpose(1, 2, 0)
    return full


def _sound(model: Any, name: str, label: str, source: torch.Tensor, codes: np.ndarray) -> Clip:
    fbank, _ = model.front_end.log_mel(source[None].to(next(model.parameters()).device))
    found = fbank[0].cpu().numpy()
    frames = codes.shape[1] * model.settings.patch_size[0]  # the last patch may reach past the end
    full = np.full((frames, found.shape[1]), found.min(), np.float32)
    full[: len(found)] = found[:frames]
    seconds = frames / FRAMES_A_SECOND
    audio = charts.data_uri("audio/wav", _wav(source.numpy(), model.settings.sample_rate))
    return Clip(
        name,
        label,
        charts.heat(full.T[::-1]),
        codes,
        kind="log-mel",
        style="sound",
        ticks=("0", f"{seconds / 2:.2g} s", f"{seconds:.2g} s"),
        player=f'<audio controls preload="none" src="{audio}"></audio>',
    )


def _wav(waveform: np.ndarray, sample_rate: int) -> bytes:
    import soundfile

    with io.BytesIO() as file:
        soundfile.write(file, waveform, sample_rate, format="WAV", subtype="PCM_16")
        return file.getvalue()
