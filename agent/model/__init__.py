"""The model: endpoint, client, budget, prompt files, and a local server for those who have none."""
