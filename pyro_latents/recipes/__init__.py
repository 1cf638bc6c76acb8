"""Recipes: stories with data, guides, objectives and hyper-parameters, one module a story."""
