"""Rules OUT."""
