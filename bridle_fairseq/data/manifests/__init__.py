"""Text files beside the media: manifests, labels, transcripts, lists of skipped rows."""
