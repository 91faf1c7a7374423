"""Records that were rejected: which of them wait, and requests to take them in after all."""
