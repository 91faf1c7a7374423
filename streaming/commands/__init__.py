"""What single commands do; the command line parses and prints."""
