"""Rules, the engine that runs them, configuration, selection and baselines."""
