"""Events: decoded, de-duplicated, read from files, simulated."""
