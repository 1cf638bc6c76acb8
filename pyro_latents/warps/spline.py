"""Thin plate splines over a fixed grid of control points."""

import torch
from torch import Tensor

from pyro_latents.warps.warp import PARAMETER_LIMIT, Border, Warp, pixel_grid

# Of a fixed-point iteration; each shrinks the error by the steepness of the warp.
INVERSE_STEPS = 10


class ThinPlateSpline(Warp):
    r"""The displacement of an s x s grid of control points, spread by a thin plate spline.

    .. math:: d(p; u) = \sum_k w_k U(|p - q_k|) + a_0 + a_x p_x + a_y p_y, \qquad U(r) = r^2 \log r

    with :math:`d(q_k) = u_k` at the control points :math:`q_k`, which are evenly spaced over the
    image and do not move. The spline's linear system is therefore the same for every image; it is
    solved once, here, and the displacement of all pixels is a constant matrix times :math:`u`.

    Args:
        image_size: Height and width of the images.
        num_control: Control points a side, the thesis' s = 3: 18 parameters, the x and y of the
            displacements of the points, row by row.
        border: What is read outside of an image (`Warp`).

    Raises:
        ValueError: if there are fewer than two control points a side.
    """

    control: Tensor
    _solution: Tensor
    _affine_fit: Tensor

    def __init__(
        self, image_size: tuple[int, int], num_control: int = 3, *, border: Border = "zeros"
    ) -> None:
        if num_control < 2:
            raise ValueError(f"ThinPlateSpline expects num_control >= 2; got {num_control}.")
        control = pixel_grid((num_control, num_control))
        n = len(control)
        system = torch.zeros(n + 3, n + 3, dtype=torch.float64)
        system[:n] = _spline_terms(control, control)
        system[n:, :n] = system[:n, n:].T
        solution = torch.linalg.inv(system)[:, :n]  # of the displacements, (n + 3, n)
        functions = (_spline_terms(pixel_grid(image_size), control) @ solution).T
        super().__init__(image_size, functions, num_parameters=2 * n, border=border)
        dtype = torch.get_default_dtype()
        self.register_buffer("control", control.to(dtype), persistent=False)
        self.register_buffer("_solution", solution.to(dtype), persistent=False)
        fit = torch.linalg.pinv(system[:n, n:])  # least squares: rows of 1, x, y
        self.register_buffer("_affine_fit", fit[[1, 2, 0]].to(dtype), persistent=False)

    @property
    def collapsed(self) -> Tensor:
        """All control points at the middle."""
        return -self.control.flatten()

    def coefficients(self, parameters: Tensor) -> Tensor:
        """Return the displacements of the control points, of shape `*leading s^2 2`."""
        return parameters.clamp(-PARAMETER_LIMIT, PARAMETER_LIMIT).unflatten(-1, (-1, 2))

    def inverse(self, parameters: Tensor) -> Tensor:
        """Return the spline whose control points are displaced as the inverse map displaces them.

        A spline's inverse is no spline: this one is exact at the control points, where
        ``e = -d(q + e)`` is iterated, and close to it between them. Folded grids have no inverse;
        theirs is some finite spline.
        """
        backward = torch.zeros_like(self.coefficients(parameters))
        for _ in range(INVERSE_STEPS):
            points = (self.control + backward).clamp(-2.0, 2.0)
            backward = -self.displacement_at(points, parameters)
        return backward.clamp(-PARAMETER_LIMIT, PARAMETER_LIMIT).flatten(-2)

    def displacement_at(self, points: Tensor, parameters: Tensor) -> Tensor:
        """Return the spline's displacement at any points, `*leading n 2`; of the same shape."""
        terms = _spline_terms(points, self.control)
        return terms @ (self._solution @ self.coefficients(parameters))

    def matrix(self, parameters: Tensor) -> Tensor:
        """Return the affine map nearest to the spline at its control points, `*leading 2 3`."""
        return (self._affine_fit @ self.coefficients(parameters)).mT + self._unit


def _spline_terms(points: Tensor, control: Tensor) -> Tensor:
    """Return `U(|p - q_k|)`, 1, x and y at points `... n 2`, of shape `... n num_control+3`."""
    squared = (points.unsqueeze(-2) - control).square().sum(-1)
    radial = 0.5 * squared * squared.clamp_min(torch.finfo(squared.dtype).tiny).log()
    return torch.cat([radial, torch.ones_like(points[..., :1]), points], dim=-1)
