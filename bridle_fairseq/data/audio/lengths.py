"""How far two lengths of a sound file may differ.

Lengths of lossy files (MP3, Vorbis, Opus, AAC) are estimates: programs count an encoder's delay and padding or do not,
and libsndfile guesses the length of an MP3 without a frame count. What is decoded counts. A file that ends much earlier
than a header or a manifest says is damaged. Lengths of lossless files are exact.
"""

from __future__ import annotations

LOSSY = frozenset({"VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"})  # libsndfile's subtypes
CODEC_FRAMES = 3  # delay and padding of an encoder together are shorter


def is_close(num_frames: int, other: int, rate: int, lossy: bool) -> bool:
    """Whether two lengths of a file do not contradict each other: :func:`tolerance`, 0 of a lossless file."""
    return abs(num_frames - other) <= (tolerance(max(num_frames, other), rate) if lossy else 0)


def tolerance(num_frames: int, rate: int) -> int:
    """By how many frames two lengths of a lossy file may differ: :data:`CODEC_FRAMES` frames of MP3, and 1 %.

    The first is for an encoder's delay and padding (at most 2,304 samples of LAME at 44.1 kHz). The second is for a bit
    rate that is not a whole number of bytes a frame, from which a length was guessed (0.6 % at 32 kbit/s).
    """
    return CODEC_FRAMES * (1152 if rate > 24000 else 576) + num_frames // 100
