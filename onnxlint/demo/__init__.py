"""The demonstration: a small detector with every pitfall in it, its weights, and pictures on which it finds something."""
