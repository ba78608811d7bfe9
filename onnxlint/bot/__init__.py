"""Comments on pull and merge requests: changed models, new findings, and the lines of PyTorch that cause them."""
