"""The machine: what must be there, downloads, the Spark session, compiled loops."""
