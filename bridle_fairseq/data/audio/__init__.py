"""Audio: decoding, resampling, augmentation, data set."""
