"""How good a model and its guide are: bounds, evidence and diagnostics, in nats per data point."""
