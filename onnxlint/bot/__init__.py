"""Comments on pull and merge requests: which models changed, what is new in them, and on which line of PyTorch."""
