"""An agent on a Databricks workspace: its bundle, its deployment and its runs."""
