"""Retention: rows that are older than the spec keeps them leave the tables, beside a running agent."""
