"""Runs of fairseq-hydra-train: starting them, reading their logs, cross-validation."""
