"""Encode, decode, draw and transform data points: the same for every story."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Distribution
from pyro.poutine import Trace
from torch import Tensor

from pyro_latents.data.own import read_points
from pyro_latents.data.points import points_like
from pyro_latents.errors import UserError, check_counts
from pyro_latents.evaluation.verdict import TrustedDraws, trusted_posterior
from pyro_latents.programs import Centred, evaluation_mode, latent_sites, local_parameters
from pyro_latents.runs.opened import Opened
from pyro_latents.stories.transformation import Transformation

# Data points that are run at a time.
ROWS = 1_000


class OnPoints(Opened):
    """What the trained programs of a run do with data points.

    Wherever data points are asked for, they are a tensor or an array, `batch *x_shape` or a single
    one, bytes or numbers in [0, 1] where they are images; or the path of an image, of a folder of
    them, or of a `.npy` or `.npz` file. Results are tensors on the device of the run.

    A story that infers from views or classes beside the data point does without them here: its
    programs are those of `Story.alone`.
    """

    def encode(self, x: Any) -> dict[str, Tensor]:
        """Infer the latent variables of data points, each at the centre of its posterior.

        Args:
            x: Data points.

        Returns:
            The mean (of a discrete one the mode) of each latent site by its name, `batch ...`.
            What `decode` makes of them is the reconstruction.
        """
        with self._running():
            found = [
                {name: site["value"] for name, site in latent_sites(self._inferred(part))}
                for part in self._points(x).split(ROWS)
            ]
        return {name: torch.cat([part[name] for part in found]) for name in found[0]}

    def posterior(self, x: Any) -> dict[str, Distribution]:
        """Return the posterior of each latent site by its name, of batch shape `batch`.

        Args:
            x: Data points. A site that depends on another one has its posterior at the centre of
                that one.
        """
        with self._running():
            trace = self._inferred(self._points(x))
        return {name: site["fn"] for name, site in latent_sites(trace)}

    def trusted_posterior(self, x: Any, draws: int = 1000) -> TrustedDraws:
        """Return draws of the posterior of data points, and what those of each of them are.

        Args:
            x: Data points.
            draws: Draws for each of them: the guide's where its diagnostics allow, else of chains,
                which take seconds a data point (`pyro_latents.evaluation.verdict`).
        """
        return trusted_posterior(*self._programs, self._points(x), draws=draws)

    def reconstruct(self, x: Any) -> Tensor:
        """Return what the model makes of data points: their mean at the posterior's centre.

        Args:
            x: Data points.

        Returns:
            Of shape `batch *x_shape`.
        """
        model, _ = self._programs
        found = []
        with self._running():
            for part in self._points(x).split(ROWS):
                replayed = poutine.replay(model, self._inferred(part))
                found.append(_mean(Centred()(replayed), part))
        return torch.cat(found)

    def decode(self, latents: Mapping[str, Any]) -> Tensor:
        """Return the mean of data points that have these latent variables.

        Args:
            latents: Values of sites by name, each `batch ...`, such as `encode` returns. A site
                that is left out is at the centre of its prior.

        Returns:
            Of shape `batch *x_shape`.
        """
        if not isinstance(latents, Mapping):
            raise UserError("latents are given by the names of their sites: {'z': values}.")
        model, _ = self._programs
        values = {name: self._tensor(value) for name, value in latents.items()}
        with self._running():
            events = self._sites(values)
            sizes = {len(v) for n, v in values.items() if v.dim() > len(events[n])}
            if len(sizes) > 1:
                raise UserError(f"latents of {sizes} data points: give as many of each site.")
            size = sizes.pop() if sizes else 1
            return _mean(Centred()(_held(model, values, events, size)), size=size)

    def sample(
        self,
        count: int = 1,
        *,
        given: Mapping[str, Any] | None = None,
        noise: bool = False,
        seed: int | None = None,
    ) -> Tensor:
        """Draw data points from the model.

        Args:
            count: How many.
            given: Values of latent sites by name, for all of them or one each; the others are
                drawn from their priors. A class is ``{"y": 3}``.
            noise: Whether to draw from the likelihood; if not, its mean is returned, which is how
                images of a model are usually shown.
            seed: Of the draws; None to go on with torch's random state.

        Returns:
            Of shape `count *x_shape`.
        """
        check_counts(1, count=count)
        model, _ = self._programs
        values = {name: self._tensor(value) for name, value in (given or {}).items()}
        with self._running(), torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            held = _held(model, values, self._sites(values), count)
            if noise:
                drawn: Any = poutine.trace(held).get_trace(size=count).nodes["x"]["value"]
                return drawn
            return _mean(held, size=count)

    @property
    def transformation(self) -> Transformation:
        """What moves the content of data points in the story.

        Raises:
            UserError: if nothing does.
        """
        found = self.story.build_transformation(self.parts)
        if found is None:
            raise UserError(f"{self.story.name} has no transformation of data points.")
        return found

    def infer_transformation(self, *x: Any) -> Tensor:
        """Infer the transformation that data points show.

        Args:
            *x: In the triplet story the views under a transformation and under its inverse; in the
                pose stories the images themselves, whose pose it is; in VAELLS where paths begin
                and where they end.

        Returns:
            What `transform` takes, of shape `batch size`.
        """
        found = self.transformation
        if len(x) != len(found.shown_by):
            raise UserError(
                f"a transformation of {self.story.name} is inferred from "
                f"{' and '.join(found.shown_by)}; got {len(x)} arguments."
            )
        with self._running():
            return found.infer(*map(self._points, x))

    def transform(self, x: Any, by: Any = None) -> Tensor:
        """Return data points under a transformation of the story.

        Args:
            x: Data points.
            by: Values of the latent variable that transforms, `size` for all or `batch size`, such
                as `infer_transformation` returns: `T` of a triplet, the pose `u` to put an image
                into, the coefficients `c` of a path. None for the identity, in which an image of
                a pose story is upright.

        Returns:
            Their means, of shape `batch *x_shape`.
        """
        found, points = self.transformation, self._points(x)
        if by is not None:
            by = self._tensor(by)
            if by.shape[-1:] != (found.size,) or by.dim() > 2:
                raise UserError(
                    f"{found.site} of {self.story.name} has {found.size} numbers; got the shape "
                    f"{tuple(by.shape)}."
                )
            by = by.expand(len(points) if by.dim() < 2 else len(by), -1)
            points = points.expand(len(by), *points.shape[1:]) if len(points) == 1 else points
            if len(by) != len(points):
                raise UserError(f"{len(points)} data points and {len(by)} transformations.")
        with self._running():
            return found.apply(points, by)

    @cached_property
    def _programs(self) -> tuple[Any, Any]:
        """The model and the guide of data points alone."""
        return self.story.alone(self.parts)

    @contextmanager
    def _running(self) -> Iterator[None]:
        programs = (*self._programs, self.parts.model, self.parts.guide)
        with torch.no_grad(), local_parameters(*programs), evaluation_mode(*programs):
            yield

    def _inferred(self, points: Tensor) -> Trace:
        """The trace of the guide at its centres."""
        _, guide = self._programs
        return poutine.trace(Centred()(guide)).get_trace(points)

    def _points(self, x: Any) -> Tensor:
        """Data points, on the device of the run."""
        what = "x"
        if isinstance(x, str | Path):
            what, path = str(x), Path(x).expanduser()
            if not path.exists():
                raise UserError(f"{path} is not there: give an image, a folder, .npy or .npz.")
            x = read_points(path)
        return points_like(x, self.story.x_shape, what).to(self.parts.device)

    def _tensor(self, value: Any) -> Tensor:
        return torch.as_tensor(value, device=self.parts.device)

    def _sites(self, values: Mapping[str, Tensor]) -> dict[str, torch.Size]:
        """The shape of one value of each site of the model, if it is asked for any."""
        if not values:
            return {}
        model, _ = self._programs
        trace = poutine.trace(Centred()(model)).get_trace(size=1)
        known = {name: site["fn"].event_shape for name, site in latent_sites(trace) if name != "x"}
        # What is computed of others, such as the code of a class, may be given as well.
        nodes: Any = trace.nodes.items()
        known |= {
            name: site["value"].shape[1:]
            for name, site in nodes
            if site["type"] == "sample" and site["infer"].get("_deterministic")
        }
        for name in values:
            if name not in known:
                raise UserError(f"the model has no latent {name!r}: it has {', '.join(known)}.")
        return known


def _held(
    model: Callable, values: Mapping[str, Tensor], events: Mapping[str, torch.Size], size: int
) -> Callable:
    """The model with some sites at given values."""
    if not values:
        return model
    data = {}
    for name, value in values.items():
        try:
            data[name] = value.expand(size, *events[name])
        except RuntimeError as error:
            raise UserError(
                f"{name} is of shape {tuple(value.shape)}, not {(size, *events[name])}."
            ) from error
    return poutine.condition(model, data=data)


def _mean(model: Callable, *batch: Tensor, **options: Any) -> Tensor:
    likelihood: Any = poutine.trace(model).get_trace(*batch, **options).nodes["x"]["fn"]
    return likelihood.mean
