"""From extracts and imagery to a corpus, its labels and splits."""
