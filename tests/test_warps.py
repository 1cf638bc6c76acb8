import math

import pytest
import torch
from torch import Tensor

from pyro_latents.warps import Affine5, Affine6, AffineWarp, ThinPlateSpline, Warp

pytestmark = pytest.mark.usefixtures("float64")
SIZE = (28, 28)
WARPS = {
    "affine6": lambda size=SIZE: Affine6(size),
    "affine5": lambda size=SIZE: Affine5(size),
    "tps3": lambda size=SIZE: ThinPlateSpline(size),
    "tps4": lambda size=SIZE: ThinPlateSpline(size, num_control=4),
}
AFFINE = ["affine6", "affine5"]


@pytest.fixture(params=WARPS.values(), ids=WARPS)
def warp(request) -> Warp:
    return request.param()


@pytest.fixture(params=[WARPS[name] for name in AFFINE], ids=AFFINE)
def affine(request) -> AffineWarp:
    return request.param()


def blob(size: tuple[int, int] = SIZE, x: float = 0.2, y: float = -0.1) -> Tensor:
    """A smooth image, so that resampling twice loses little."""
    rows, columns = (torch.linspace(-1, 1, n) for n in size)
    squared = (columns - x) ** 2 / 0.3 + (rows[:, None] - y) ** 2 / 0.2
    return (-squared).exp()[None]


def centre(image: Tensor) -> Tensor:
    """The part that no warp of these tests pushes over the edge."""
    return image[..., 8:20, 8:20]


def small(warp: Warp, *leading: int, scale: float = 0.1) -> Tensor:
    return scale * torch.randn(*leading, warp.num_parameters)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(28, 28), (8, 8), (32, 32), (5, 12), (2, 3), (33, 17)])
@pytest.mark.parametrize("make", WARPS.values(), ids=WARPS)
def test_identity_gives_the_image_back_bit_for_bit(make, size, dtype):
    torch.set_default_dtype(dtype)
    warp, image = make(size), torch.rand(4, 3, *size)
    assert torch.equal(warp(image, warp.identity), image)


@pytest.mark.parametrize("make", WARPS.values(), ids=WARPS)
def test_the_border_is_zero_or_that_of_the_image(make):
    warp, image = make((5, 7)), torch.rand(2, 3, 5, 7)
    copies = type(warp)((5, 7), *([4] if warp.num_parameters == 32 else []), border="replicate")
    assert torch.equal(copies(image, copies.identity), image)
    # Shrunk to a half about the centre, and no pixel of the frame is in the image twice.
    if isinstance(warp, AffineWarp):
        shrunk = {
            "affine6": [1.0, 0, 0, 0, 1.0, 0],
            "affine5": [0, math.log(2), math.log(2), 0, 0],
        }
        parameters = torch.tensor(shrunk["affine6" if warp.num_parameters == 6 else "affine5"])
    else:
        parameters = warp.control.flatten()
    beyond, repeated = warp(image, parameters), copies(image, parameters)
    inside = (slice(None), slice(None), slice(1, 4), slice(2, 5))
    torch.testing.assert_close(beyond[inside], repeated[inside])
    corners = torch.tensor([0, -1]), torch.tensor([0, -1])
    torch.testing.assert_close(
        repeated[..., corners[0][:, None], corners[1]], image[..., corners[0][:, None], corners[1]]
    )
    assert not beyond[..., corners[0][:, None], corners[1]].any()


def test_rejects_another_border():
    with pytest.raises(ValueError, match="border must be one of"):
        Affine6(SIZE, border="mirror")


def test_identity_is_exact_in_a_batch_of_other_warps(warp):
    parameters = small(warp, 5)
    parameters[2] = warp.identity
    image = torch.rand(5, 1, *SIZE)
    assert torch.equal(warp(image, parameters)[2], image[2])


def test_undoing_the_identity_gives_the_image_back_bit_for_bit(warp):
    image = torch.rand(2, 1, *SIZE)
    assert torch.equal(warp.undo(image, warp.identity), image)


@pytest.mark.parametrize("direction", ["forward", "undo"])
@pytest.mark.parametrize("border", ["zeros", "replicate"])
def test_gradients_match_finite_differences(warp, direction, border):
    warp = type(warp)((6, 5), *([4] if warp.num_parameters == 32 else []), border=border)
    image = torch.rand(2, 2, 6, 5, requires_grad=True)
    parameters = small(warp, 2).requires_grad_()
    function = warp if direction == "forward" else warp.undo
    # The directional form of the check: one finite difference in a random direction.
    assert torch.autograd.gradcheck(function, (image, parameters), eps=1e-7, fast_mode=True)


def test_parameters_receive_a_gradient_at_the_identity(warp):
    parameters = torch.zeros(1, warp.num_parameters, requires_grad=True)
    (warp(blob(), parameters) - blob(x=0.3)).square().sum().backward()
    assert parameters.grad.abs().max() > 1e-3


@pytest.mark.parametrize(
    ("image_leading", "parameters_leading", "leading"),
    [((), (), ()), ((4,), (3, 1), (3, 4)), ((), (5,), (5,)), ((2, 3, 4), (4,), (2, 3, 4))],
)
def test_leading_dimensions_broadcast(warp, image_leading, parameters_leading, leading):
    image = torch.rand(*image_leading, 2, *SIZE)
    parameters = small(warp, *parameters_leading)
    warped = warp(image, parameters)
    assert warped.shape == (*leading, 2, *SIZE)
    last = warp(image[(-1,) * len(image_leading)], parameters[(-1,) * len(parameters_leading)])
    torch.testing.assert_close(warped[(-1,) * len(leading)], last)


def test_leading_dimensions_carry_through_the_parameters(warp):
    parameters = small(warp, 3, 4)
    assert warp.matrix(parameters).shape == (3, 4, 2, 3)
    assert warp.angle(parameters).shape == (3, 4)
    torch.testing.assert_close(warp.inverse(parameters)[2, 1], warp.inverse(parameters[2, 1]))


def test_moving_the_sampling_points_right_moves_the_image_left():
    pixel = 2 / (SIZE[1] - 1)
    image = torch.rand(1, *SIZE)
    moved = Affine6(SIZE)(image, torch.tensor([0, 0, pixel, 0, 0, 0]))
    torch.testing.assert_close(moved[..., :-1], image[..., 1:])
    torch.testing.assert_close(moved[..., -1], torch.zeros(1, SIZE[0]))


def test_a_quarter_turn_is_a_transposition():
    image = torch.rand(1, *SIZE)
    turned = Affine5(SIZE)(image, torch.tensor([math.pi / 2, 0, 0, 0, 0]))
    torch.testing.assert_close(turned, torch.rot90(image, 1, dims=(-2, -1)))


def test_affine5_has_the_matrix_of_the_thesis():
    psi, log_x, log_y, t_x, t_y = u = torch.tensor([0.3, 0.2, -0.4, 0.1, 0.5])
    s_x, s_y = log_x.exp(), log_y.exp()
    expected = [
        [s_x * psi.cos(), -s_x * psi.sin(), s_x * t_x],
        [s_y * psi.sin(), s_y * psi.cos(), s_y * t_y],
    ]
    torch.testing.assert_close(Affine5(SIZE).matrix(u), torch.tensor(expected))


def test_affine5_equals_affine6_with_the_same_matrix():
    five, six = Affine5(SIZE), Affine6(SIZE)
    u, image = small(five, 4, scale=0.3), torch.rand(4, 1, *SIZE)
    offsets = (five.matrix(u) - torch.eye(2, 3)).flatten(-2)
    torch.testing.assert_close(five(image, u), six(image, offsets))


def test_affine_maps_invert(affine):
    u = small(affine, 100, scale=0.3)
    matrix, inverse = affine.matrix(u), affine.undoing.matrix(affine.inverse(u))
    square = torch.cat([matrix, torch.tensor([0.0, 0, 1]).expand(100, 1, 3)], dim=-2)
    torch.testing.assert_close(inverse @ square, torch.eye(2, 3).expand(100, 2, 3))


def test_undo_restores_a_smooth_image(warp):
    parameters = small(warp, 6, scale=0.05)
    image = blob().expand(6, -1, -1, -1)
    restored = warp.undo(warp(image, parameters), parameters)
    assert (warp(image, parameters) - image).abs().max() > 0.1
    torch.testing.assert_close(centre(restored), centre(image), atol=0.03, rtol=0)


@pytest.mark.parametrize("num_control", [2, 3, 5])
def test_spline_with_affinely_moved_points_is_the_affine_warp(num_control):
    spline, affine = ThinPlateSpline(SIZE, num_control), Affine6(SIZE)
    offsets = small(affine, 4)
    points = torch.cat([spline.control, torch.ones(len(spline.control), 1)], dim=-1)
    moved = points @ offsets.unflatten(-1, (2, 3)).mT
    image = torch.rand(4, 1, *SIZE)
    torch.testing.assert_close(spline(image, moved.flatten(-2)), affine(image, offsets))
    torch.testing.assert_close(spline.matrix(moved.flatten(-2)), affine.matrix(offsets))


def test_spline_equals_solving_its_system_anew():
    spline, u = ThinPlateSpline((9, 9)), small(ThinPlateSpline((9, 9)), 1)
    q, image = spline.control, torch.rand(1, 1, 9, 9)

    def terms(p: Tensor) -> Tensor:
        r = (p[:, None] - q).norm(dim=-1)
        return torch.cat([torch.xlogy(r**2, r), torch.ones(len(p), 1), p], dim=-1)

    upper = terms(q)
    system = torch.cat([upper, torch.cat([upper[:, 9:].T, torch.zeros(3, 3)], dim=-1)])
    weights = torch.linalg.solve(system, torch.cat([u.view(9, 2), torch.zeros(3, 2)]))
    lines = torch.linspace(-1, 1, 9)
    p = torch.cartesian_prod(lines, lines).flip(-1)
    grid = (p + terms(p) @ weights).view(1, 9, 9, 2)
    expected = torch.nn.functional.grid_sample(image, grid, align_corners=True)
    torch.testing.assert_close(spline(image, u), expected)


def test_spline_moves_its_control_points_by_its_parameters():
    spline = ThinPlateSpline(SIZE)
    u = small(spline, 2)
    torch.testing.assert_close(spline.displacement_at(spline.control, u), u.view(2, 9, 2))


def test_inverse_spline_is_exact_at_the_control_points():
    spline = ThinPlateSpline(SIZE)
    u = small(spline, 4, scale=0.05)
    back = spline.inverse(u).view(4, 9, 2)
    displacement = spline.displacement_at(spline.control + back, u)
    torch.testing.assert_close(displacement, -back, atol=1e-6, rtol=0)


@pytest.mark.parametrize("angle", [-2.5, -0.4, 0.0, 1.2, 3.0])
def test_angle_is_the_rotation_of_the_map(affine, angle):
    rotation = torch.tensor(
        [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]]
    )
    offsets = (rotation - torch.eye(2, 3)).flatten()
    u = offsets if affine.num_parameters == 6 else torch.tensor([angle, 0, 0, 0, 0])
    torch.testing.assert_close(affine.angle(u), torch.tensor(angle))


DEGENERATE = {
    "collapsed": lambda n: -torch.ones(n),
    "huge": lambda n: torch.full((n,), 1e30),
    "huge negative": lambda n: torch.full((n,), -1e30),
    "mixed huge": lambda n: 1e25 * (-1.0) ** torch.arange(n),
    "folded": lambda n: 3.0 * (-1.0) ** torch.arange(n),
    "zero scale": lambda n: (
        torch.tensor([-1.0, 0, 0, 0, -1.0, 0]) if n == 6 else -50 * torch.ones(n)
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("direction", ["forward", "undo"])
@pytest.mark.parametrize("parameters", DEGENERATE.values(), ids=DEGENERATE)
@pytest.mark.parametrize("make", WARPS.values(), ids=WARPS)
def test_degenerate_parameters_stay_finite(make, parameters, direction, dtype):
    torch.set_default_dtype(dtype)
    warp = make()
    image = torch.rand(1, *SIZE, requires_grad=True)
    u = parameters(warp.num_parameters).to(dtype).requires_grad_()
    warped = warp(image, u) if direction == "forward" else warp.undo(image, u)
    warped.square().sum().backward()
    for name, value in {"image": warped, "d image": image.grad, "d u": u.grad}.items():
        assert value.isfinite().all(), name


def test_warps_of_probabilities_are_probabilities(warp):
    warped = warp(torch.rand(20, 1, *SIZE), small(warp, 20, scale=0.5))
    assert warped.min() >= 0
    assert warped.max() <= 1


def test_a_warp_has_no_state_to_save(warp):
    assert not warp.state_dict()
    assert not list(warp.parameters())


ERRORS = {
    "size": (lambda w: w(torch.zeros(1, 27, 28), w.identity), r"expects images of shape .*28, 28"),
    "channels": (lambda w: w(torch.zeros(28, 28), w.identity), r"add the channel dimension"),
    "parameters": (lambda w: w(torch.zeros(1, 28, 28), torch.zeros(7)), r"expects \d+ parameters"),
    "one row": (lambda w: type(w)((1, 28)), r"at least two rows"),
}


@pytest.mark.parametrize(("call", "message"), ERRORS.values(), ids=ERRORS)
def test_rejects(warp, call, message):
    with pytest.raises(ValueError, match=message):
        call(warp)


def test_a_spline_needs_four_control_points():
    with pytest.raises(ValueError, match="num_control >= 2; got 1"):
        ThinPlateSpline(SIZE, num_control=1)
