"""The zoo: `recipe` builds one by its name, and `open_run` opens the folder of a run it left.

Example:
    >>> from pyro_latents import zoo
    >>> recipe = zoo.recipe("vae-digits", seed=0)
    >>> type(recipe.model).__name__, type(recipe.loss).__name__
    ('VAE', 'TraceAnalytic_ELBO')
"""

from pyro_latents.runs.recipe import Recipe, Run
from pyro_latents.runs.registry import recipes, register

__all__ = ["Recipe", "Run", "open_run", "recipe", "recipes", "register"]

recipe = Recipe
open_run = Run
