"""Training and evaluation on labelled history, each label known only from its own moment."""
