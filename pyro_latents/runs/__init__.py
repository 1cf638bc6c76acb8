"""Recipes and the folders of their runs, and what is said of them."""
