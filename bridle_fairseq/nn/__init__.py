"""PyTorch modules of the method, without fairseq and without files.

Symbols in docstrings, here and in :mod:`bridle_fairseq.quantization`:

==  =========================================  ==  ==========================================
B   batch                                      D   model width
S   samples of a waveform                      K   codebooks (levels of residual quantization)
M   frames of a spectrogram                    C   codes of a codebook
T   patches in time                            m   soft codes of a level
F   patches in frequency                       V   visible (unmasked) patches
N   patches, N = T * F, time-major             H   attention heads
==  =========================================  ==  ==========================================

A ``padding_mask`` is boolean and True at padding, as in fairseq.
"""
