"""The audit log: a keyed chain of rows, its anchor outside the table, and the check of both."""
