"""The batch protocol: its steps, the outbox lane, late answers, and the query that drives it."""
