"""Video: containers, frames, a decoding process, data set."""
