"""How pictures become an input tensor."""
