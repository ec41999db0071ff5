"""Sound: decoding, resampling, augmentation, and the data set."""
