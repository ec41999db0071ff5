"""Video: containers, frames, a decoding process, and the data set."""
