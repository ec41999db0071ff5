"""Shim: model cards of older exports import ``read_image`` from here."""

from bridle_fairseq.data.image.decode import read_image

__all__ = ["read_image"]
