"""Models on object stores and web servers: found, and read in ranges."""
