"""What makes an agent a service: conditions it stands under, and workers that are watched."""
