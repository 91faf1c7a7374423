"""Contracts drafted from samples of events, and tried on them."""
