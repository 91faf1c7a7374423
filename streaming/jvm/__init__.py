"""How JVMs are started: at once, with their classes archived."""
