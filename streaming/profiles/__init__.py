"""What is remembered about every entity, and how it moves forward row by row."""
