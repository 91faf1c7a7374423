"""The home folder: settings, files that only its owner reads, and keys."""
