"""Rules GRF."""
