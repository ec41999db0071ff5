"""Which decoder a model has."""

from __future__ import annotations

from bridle_fairseq.nn.conv_decoder import ConvDecoder
from bridle_fairseq.nn.cross_decoder import CrossDecoder
from bridle_fairseq.nn.decoder import CodeDecoder, Decoder, GlobalDecoder
from bridle_fairseq.nn.settings import BridleSettings


def decoder_of(s: BridleSettings) -> CodeDecoder:
    """The decoder of a model with these settings."""
    sizes = (s.encoder_width, s.decoder_width, s.decoder_depth, s.decoder_heads, s.num_codebooks, s.codebook_size)
    if s.decoder_kind == "cross":
        return CrossDecoder(*sizes)
    if s.decoder_kind == "convolution":
        return ConvDecoder(*sizes, axes=len(s.patch_size))
    return Decoder(*sizes, s.decoder_window) if s.decoder_window else GlobalDecoder(*sizes)
