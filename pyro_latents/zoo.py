"""The zoo: recipes by name, and the runs that they leave.

================== ================================================================================
`recipes`          the story of every recipe, by name
`recipe`           builds one: plain Pyro objects, and `train`, which leaves a run
`open_run`         opens the folder of a run, or of what a run exported
`pretrained`       opens a run whose weights come with the package
`pretrained_names` all of these by name
`pretrained_card`  what such weights are, and what they come to
`register`         adds a recipe of your own
================== ================================================================================

A `Run` has, for data points alone whatever the story, `encode`, `posterior`, `trusted_posterior`,
`reconstruct`, `decode`, `sample`, `infer_transformation` and `transform`; and `evaluate`,
`calibrate`, `check`, `compare`, `plot`, `report` and `export`.

Example:
    >>> from pyro_latents import zoo
    >>> recipe = zoo.recipe("vae-digits", seed=0)
    >>> type(recipe.model).__name__, type(recipe.loss).__name__
    ('VAE', 'TraceAnalytic_ELBO')
"""

from pyro_latents.runs.pretrained import pretrained
from pyro_latents.runs.recipe import Recipe, Run
from pyro_latents.runs.registry import recipes, register
from pyro_latents.runs.weights import pretrained_card, pretrained_names

__all__ = [
    "Recipe",
    "Run",
    "open_run",
    "pretrained",
    "pretrained_card",
    "pretrained_names",
    "recipe",
    "recipes",
    "register",
]

recipe = Recipe
open_run = Run


def __dir__() -> list[str]:
    return __all__
