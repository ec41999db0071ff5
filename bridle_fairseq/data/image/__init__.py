"""Images: decoding, augmentation, and the data set."""
