"""Labels of transactions: the book of them, where they come from, what they say of entities."""
