"""What the audit log may hold, and the chain that holds it together."""
