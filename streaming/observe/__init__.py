"""Metrics, health and traces of a running agent: what is counted, and how it is served and sent."""
