"""Check, fix, convert and compare in one folder, with sample programs."""
