"""Exports without fairseq: which there are, their format, their models and inputs."""
