"""Writes manifests: scans folders, reads label tables, divides corpora into splits and folds."""
