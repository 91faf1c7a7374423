"""Where a lake and its files lie: a folder on disk, or a prefix of an object store."""
