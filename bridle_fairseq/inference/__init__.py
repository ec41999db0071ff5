"""A trained model over a corpus: codes, features, classes, transcripts."""
