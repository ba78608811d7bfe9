"""Rules QNT."""
