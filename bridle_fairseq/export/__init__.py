"""Models that load without fairseq: writing, reading, ONNX, model cards."""
