"""Kept for the model cards of older exports, which import ``read_clip`` from here."""

from bridle_fairseq.data.video.dataset import read_clip

__all__ = ["read_clip"]
