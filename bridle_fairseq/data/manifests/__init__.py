"""What stands beside the media: manifests, labels, transcripts, and lists of skipped rows."""
