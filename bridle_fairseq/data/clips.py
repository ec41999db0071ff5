"""Shim: model cards of older exports import ``read_clip`` from here."""

from bridle_fairseq.data.video.dataset import read_clip

__all__ = ["read_clip"]
