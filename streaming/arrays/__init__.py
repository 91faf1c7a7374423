"""Flat arrays, compiled loops over them, and the map from entity ids to places in them."""
