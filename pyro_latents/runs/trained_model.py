"""The model of a run, as it is, for a new guide."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from pyro_latents.data.examples import Splits
from pyro_latents.data.points import in_words
from pyro_latents.errors import UserError
from pyro_latents.runs.folder import PREFIX, RunFolder
from pyro_latents.runs.registry import stored_story
from pyro_latents.stories.story import Story

# Numbers of a story that say which data it has.
OF_DATA = ("data", "data_shape")


@dataclass(frozen=True)
class TrainedModel:
    """The model of a run: the numbers that it was built from, and its parameters.

    Args:
        folder: The run.
        recipe: Its recipe.
        story: The recipe's story with the numbers of the run.
        parameters: Its model's parameters and buffers by name.
    """

    folder: RunFolder
    recipe: str
    story: Story
    parameters: Mapping[str, Tensor]

    @classmethod
    def of(cls, folder: RunFolder) -> TrainedModel:
        """Read the model of a run.

        Raises:
            UserError: if it is no run, or damaged.
        """
        folder = folder.of_training()
        config = folder.read_config()
        story = stored_story(config, folder.config_path)
        held = folder.read_parameters().items()
        parameters = {k.removeprefix(PREFIX): v for k, v in held if k.startswith(PREFIX)}
        return cls(folder, config["recipe"], story, parameters)

    @cached_property
    def hash(self) -> str:
        """The SHA-256 of the parameters, whatever their order and number format."""
        found = hashlib.sha256()
        for name, value in sorted(self.parameters.items()):
            value = value.detach().cpu()
            # A wider format has the same values.
            value = value.double() if value.is_floating_point() else value
            found.update(f"{name}{tuple(value.shape)}".encode())
            found.update(value.contiguous().numpy().tobytes())
        return found.hexdigest()

    @property
    def origin(self) -> dict[str, str]:
        """What another run keeps of where its model came from."""
        return {"run": str(self.folder.path.resolve()), "hash": self.hash}

    def numbers_for(self, story: Story, recipe: str) -> dict[str, Any]:
        """Return the numbers of the run, for another guide of a story.

        Raises:
            UserError: if the story has another model, or other data.
        """
        if not has_model_of(story, self.story):
            raise UserError(
                f"{self.folder.path} has a model of {self.story.name}, and {recipe} is of "
                f"{story.name}: train a recipe of that story."
            )
        if recipe != self.recipe and story.data != self.story.data:
            raise UserError(
                f"{self.folder.path} has a model of {self.story.data}, and {recipe} is of "
                f"{story.data}: train {self.recipe}, on these with --data {story.data}."
            )
        known = {field.name for field in fields(self.story)}
        return {f.name: getattr(self.story, f.name) for f in fields(story) if f.name in known}

    def build(self, story: Story, splits: Callable[[], Splits]) -> nn.Module:
        """Return the model, in evaluation mode and without gradients.

        Args:
            story: The numbers of a new training.
            splits: Loads its data.

        Raises:
            UserError: if a number that the model is built from is not the run's.
        """
        model, name = self._built(story, splits)
        if name in OF_DATA:
            raise UserError(
                f"the model of {self.folder.path} is of {in_words(self.story.x_shape)}, and the "
                f"data are {in_words(story.x_shape)}: give data of that shape."
            )
        if name is not None:
            raise UserError(
                f"the model of {self.folder.path} has {name} {getattr(self.story, name)}, not "
                f"{getattr(story, name)}: leave --{name.replace('_', '-')} out."
            )
        try:
            model.load_state_dict(dict(self.parameters))
        except RuntimeError as error:
            raise UserError(
                f"the model of {self.folder.path} does not fit {story.name}: it was written by "
                "another version of it; train it anew."
            ) from error
        return model.eval().requires_grad_(False)

    def is_that_of(self, other: TrainedModel, splits: Callable[[], Splits]) -> bool:
        """Whether another run has the same model: of one kind, its numbers and parameters too."""
        if not has_model_of(self.story, other.story) or self.hash != other.hash:
            return False
        with torch.random.fork_rng():
            # Numbers such as the width of a likelihood are in no parameter.
            return self._built(other.story, splits)[1] is None

    def _built(self, story: Story, splits: Callable[[], Splits]) -> tuple[nn.Module, str | None]:
        """A model of a story, and a number it was built from that this one's was not."""
        read: set[str] = set()
        model = _watched(story, read).build_model(splits)
        known = sorted(read & {field.name for field in fields(self.story)})
        if story.x_shape == self.story.x_shape:
            # It is their shape that a model is built from, whatever they are called.
            known = [name for name in known if name not in OF_DATA]
        differ = (name for name in known if getattr(self.story, name) != getattr(story, name))
        return model, next(differ, None)


def has_model_of(story: Story, other: Story) -> bool:
    """Whether two stories build one kind of model, and differ in guides and training alone."""
    return type(story).build_model is type(other).build_model


def _watched(story: Story, reads: set[str]) -> Any:
    """Return a story that notes which of its attributes are read."""

    class Watched(type(story)):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            reads.add(name)
            return super().__getattribute__(name)

    watched = object.__new__(Watched)
    watched.__dict__.update(vars(story))
    return watched
