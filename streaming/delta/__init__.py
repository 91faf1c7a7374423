"""Delta tables: the one writer, the reader, tables written by turns, and the triage ledger."""
