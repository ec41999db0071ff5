"""Images: decoding, augmentation, data set."""
