"""PyTorch modules of the method: no fairseq, no files, no modality by name where a shape will do.

Letters in docstrings, here and in :mod:`bridle_fairseq.quantization`:

==  =========================================  ==  ==========================================
B   batch                                      D   width of a model
S   samples of a waveform                      K   codebooks (levels of residual quantization)
M   frames of a spectrogram                    C   codes of a codebook
T   patches in time                            m   soft codes of a level
F   patches in frequency                       V   visible (unmasked) patches
N   patches, N = T * F, time-major             H   attention heads
==  =========================================  ==  ==========================================

A ``padding_mask`` is boolean, True where there is padding, as in fairseq.
"""
