"""From a manifest row to a batch: manifests, decoding, augmentation, labels, cached codes."""
