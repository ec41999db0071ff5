"""Commands that write manifests: they scan folders, read tables, cut corpora and folds."""
