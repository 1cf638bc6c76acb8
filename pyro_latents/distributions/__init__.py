"""Distributions that Pyro lacks, and the likelihoods of the stories."""
