"""Pictures of an item for each modality, and maps of its codes in the same layout."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.frontend import AudioFrontEnd, unit_range
from bridle_fairseq.report.images import data_uri, heat, png_uri

FRAMES_A_SECOND = 100


@dataclass
class Clip:
    """A clip with its codes."""

    name: str
    label: str
    picture: np.ndarray  # height x width x 3, uint8
    codes: np.ndarray  # rows x columns x K, in the layout of the picture
    kind: str  # of the picture: "log-mel", "image", "frames"
    style: str  # of picture and maps: "sound", "image" or "video"
    ticks: Sequence[str] = ()  # labels of the time axis, evenly spaced
    player: str = ""  # HTML to play it


def in_picture_layout(values: np.ndarray, modality: str) -> np.ndarray:
    """Arrange values of patches, grid axes x ..., in rows and columns of the picture.

    Sound: T x F -> F x T, low frequencies at the bottom. Images are unchanged. Video: T x rows x columns -> rows x
    (T * columns), time steps side by side.
    """
    if modality == "video":
        return np.concatenate(list(values), axis=1)
    return values.swapaxes(0, 1)[::-1] if modality == "audio" else values


@torch.inference_mode()
def draw(model: Bridle, name: str, label: str, source: torch.Tensor, codes: np.ndarray) -> Clip:
    """Draw an item with its codes.

    Args:
        model: on any device.
        name, label: shown on the page.
        source: the item, as its dataset returns it.
        codes: grid axes x K.
    """
    settings = model.settings
    codes = in_picture_layout(codes, settings.modality)
    if settings.modality == "audio":
        return _draw_sound(model, name, label, source, codes)
    pixels = (unit_range(source) * 255).round().byte().cpu().numpy()
    if settings.modality == "image":
        return Clip(name, label, _fill_patches(model, pixels), codes, "image", "image")
    frames = pixels[:, :: settings.patch_size[0]]  # the first frame of each time step
    shown = np.concatenate([_fill_patches(model, frames[:, step]) for step in range(frames.shape[1])], axis=1)
    return Clip(name, label, shown, codes, "frames", "video")


def _fill_patches(model: Bridle, pixels: np.ndarray) -> np.ndarray:
    """3 x height x width -> height x width x 3, filled up with white to whole patches."""
    sides = model.settings.patch_size[-2:]
    height, width = (-(-length // side) * side for length, side in zip(pixels.shape[1:], sides, strict=True))
    full = np.full((height, width, 3), 255, np.uint8)
    full[: pixels.shape[1], : pixels.shape[2]] = pixels.transpose(1, 2, 0)
    return full


def _draw_sound(model: Bridle, name: str, label: str, source: torch.Tensor, codes: np.ndarray) -> Clip:
    assert isinstance(model.front_end, AudioFrontEnd)
    fbank, _ = model.front_end.log_mel(source[None].to(next(model.parameters()).device))
    log_mel = fbank[0].cpu().numpy()
    frames = codes.shape[1] * model.settings.patch_size[0]  # the last patch may extend past the end
    full = np.full((frames, log_mel.shape[1]), log_mel.min(), np.float32)
    full[: len(log_mel)] = log_mel[:frames]
    seconds = frames / FRAMES_A_SECOND
    return Clip(
        name,
        label,
        heat(full.T[::-1]),
        codes,
        kind="log-mel",
        style="sound",
        ticks=("0", f"{seconds / 2:.2g} s", f"{seconds:.2g} s"),
        player=_player(source, model.settings.sample_rate),
    )


def shown(model: Bridle, source: torch.Tensor) -> str:
    """An item as HTML in a list: a player of a sound, an image, or the middle frame of a video."""
    if model.settings.modality == "audio":
        return _player(source, model.settings.sample_rate)
    pixels = (unit_range(source) * 255).round().byte().cpu().numpy()
    if model.settings.modality == "video":
        pixels = pixels[:, pixels.shape[1] // 2]
    return f'<img class="item" src="{png_uri(pixels.transpose(1, 2, 0))}" alt="">'


def _player(waveform: torch.Tensor, sample_rate: int) -> str:
    audio = data_uri("audio/wav", _wav(waveform.numpy(), sample_rate))
    return f'<audio controls preload="none" src="{audio}"></audio>'


def _wav(waveform: np.ndarray, sample_rate: int) -> bytes:
    import soundfile

    with io.BytesIO() as file:
        soundfile.write(file, waveform, sample_rate, format="WAV", subtype="PCM_16")
        return file.getvalue()
