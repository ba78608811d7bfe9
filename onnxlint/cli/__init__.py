"""One module a command: `add_options` describes its command line, `run` does it and returns the exit code."""
