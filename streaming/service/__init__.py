"""What makes an agent a service: conditions it stands under, what it waits for, and workers that are watched."""
