"""Bearer tokens of the HTTP API: drawn once, kept as digests in the lake of each agent they may see."""
