"""Training by Lightning: the module around an objective, the run folder, and the fit."""
