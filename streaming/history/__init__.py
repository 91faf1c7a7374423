"""What was decided: replayed, explained, tried under another spec, kept in snapshots, loaded beforehand."""
