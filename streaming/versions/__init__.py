"""Versions of a spec: registry, gates, taking over between batches, and those decided beside the agent."""
