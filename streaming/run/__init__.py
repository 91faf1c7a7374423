"""A running agent: put together, driven batch by batch, watched."""
