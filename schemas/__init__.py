"""What crosses a boundary: contracts, specs, alerts, tables, errors. Imports nothing of the project."""
