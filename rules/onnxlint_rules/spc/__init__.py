"""Rules SPC."""
