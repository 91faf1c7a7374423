"""What an agent is by its content: spec, contract, policy, rules, prompt, model; loaded and checked once."""
