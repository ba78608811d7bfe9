"""Rules SHP."""
