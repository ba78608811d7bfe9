"""What changed between two models: interface, findings, nodes, weights; and a stable text form of one model."""
