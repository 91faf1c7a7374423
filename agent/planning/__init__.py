"""Plans: made by a model or a person, checked against the policy, carried out step by step, reported."""
