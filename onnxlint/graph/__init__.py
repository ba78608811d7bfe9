"""The graph in a model: producers, consumers, constants, shapes, batch axis, source lines."""
