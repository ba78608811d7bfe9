"""Rules TGT."""
