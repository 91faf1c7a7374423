"""Cases: alerts that belong together, and what people do with them."""
