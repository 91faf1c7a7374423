"""What the planning agent can do, carried out over one agent's lake."""
