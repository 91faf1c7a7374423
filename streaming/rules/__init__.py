"""Rules: conditions on single events, sequences and absences, and files of them."""
