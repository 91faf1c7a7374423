"""Alerts in memory for lists: folded to one row each, filtered, counted and paged; the lake is not read."""
