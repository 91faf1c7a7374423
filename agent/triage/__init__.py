"""What a flagged transaction most likely is: by a model within the policy and the budget, else by rules."""
