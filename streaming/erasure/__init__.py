"""Erasure: a random token in the place of an entity's id, wherever an agent has written it down."""
