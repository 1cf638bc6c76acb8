import math

import pytest
import torch

from pyro_latents.errors import UserError
from pyro_latents.transport import (
    coefficients,
    compiled_residual,
    infer_coefficients,
    transport,
)
from pyro_latents.transport.coefficients import descend
from pyro_latents.transport.compiled_newton import minimise_each
from pyro_latents.transport.newton import minimise
from pyro_latents.transport.nodes import exponentials, objectives_at
from pyro_latents.transport.series import SeriesProblem

TURN = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]], dtype=torch.float64)


def random(*shape, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def objective(psi, start, end, weight, c):
    residual = transport(psi, c, start) - end
    return 0.5 * residual.square().sum(-1) + weight * c.abs().sum(-1)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(7)


@pytest.fixture(params=["one by one", "batched"])
def each_way(request, monkeypatch):
    """Both ways to descend: that of a CPU, and that of other devices."""
    monkeypatch.setattr(coefficients, "_one_by_one", lambda *_: request.param == "one by one")


def test_transport_by_a_rotation_generator_rotates():
    angle = torch.tensor([[0.3], [2.0]], dtype=torch.float64)
    moved = transport(TURN, angle, torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert torch.allclose(moved, torch.cat([angle.cos(), angle.sin()], 1))


def test_transport_broadcasts_leading_dimensions():
    moved = transport(random(3, 4, 4), random(5, 1, 3), random(6, 4))
    assert moved.shape == (5, 6, 4)


def test_transport_composes_along_one_operator():
    psi, z = random(1, 4, 4), random(4)
    once = transport(psi, torch.tensor([0.7], dtype=torch.float64), z)
    twice = transport(psi, torch.tensor([0.4], dtype=torch.float64), once)
    assert torch.allclose(twice, transport(psi, torch.tensor([1.1], dtype=torch.float64), z))


def test_transport_is_differentiable_in_all_arguments():
    arguments = (random(2, 3, 3, scale=0.5), random(2, 2), random(2, 3))
    arguments = tuple(t.requires_grad_() for t in arguments)
    assert torch.autograd.gradcheck(transport, arguments)


@pytest.mark.parametrize(
    ("psi", "coefficients", "points", "message"),
    [
        (random(2, 3), random(2), random(3), "psi must hold transport operators"),
        (random(2, 3, 3), random(3), random(3), "transport expects 2 coefficients"),
        (random(2, 3, 3), random(2), random(4), "points of shape"),
    ],
)
def test_transport_names_a_wrong_shape(psi, coefficients, points, message):
    with pytest.raises(ValueError, match=message):
        transport(psi, coefficients, points)


SIZES = [(2, 1, 1.0), (2, 4, 1.0), (2, 3, 1e-3), (6, 4, 0.3), (5, 2, 2.0)]


@pytest.mark.parametrize(("z_dim", "num_operators", "scale"), SIZES)
def test_derivatives_equal_autograd(z_dim, num_operators, scale):
    psi, c = random(num_operators, z_dim, z_dim, scale=scale), random(num_operators, 60, seed=1)
    start, end = random(z_dim, 60, seed=2), random(z_dim, 60, seed=3)
    found = SeriesProblem(psi, start, end).derivatives(c)
    for i in (0, 31, 59):

        def f(one, i=i):
            return objective(psi, start[:, i], end[:, i], 0.0, one)

        gradient = torch.autograd.functional.jacobian(f, c[:, i])
        hessian = torch.autograd.functional.hessian(f, c[:, i])
        assert torch.allclose(found.value[i], f(c[:, i]), rtol=1e-9)
        assert torch.allclose(found.gradient[:, i], gradient, rtol=1e-6, atol=1e-8)
        assert torch.allclose(found.hessian[:, :, i], hessian, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("z_dim", "num_operators", "scale"), SIZES)
def test_compiled_derivatives_equal_batched_ones(z_dim, num_operators, scale):
    psi, c = random(num_operators, z_dim, z_dim, scale=scale), random(num_operators, 20, seed=1)
    start, end = random(z_dim, 20, seed=2), random(z_dim, 20, seed=3)
    batched = SeriesProblem(psi, start, end).derivatives(c)
    columns = [part.T.contiguous().numpy() for part in (start, end, c)]
    for i, one in enumerate(zip(*columns, strict=True)):
        gradient = torch.empty(num_operators, dtype=psi.dtype)
        gauss_newton, hessian = (gradient.new_empty(num_operators, num_operators) for _ in "gh")
        left = tuple(part.numpy() for part in (gradient, gauss_newton, hessian))
        value = compiled_residual.derivatives(psi.numpy(), *one, True, left)
        assert value == pytest.approx(batched.value[i].item(), rel=1e-9)
        assert torch.allclose(gradient, batched.gradient[:, i], rtol=1e-8)
        assert torch.allclose(gauss_newton, batched.gauss_newton[..., i], rtol=1e-8)
        assert torch.allclose(hessian, batched.hessian[..., i], rtol=1e-7, atol=1e-8)


def test_a_hopelessly_large_exponential_is_infinite_when_compiled():
    for z_dim in (2, 3):
        psi, ones = 1e3 * torch.eye(z_dim).double()[None].numpy(), torch.ones(3).double().numpy()
        left = ones[:1].copy(), ones[:1, None].copy(), ones[:1, None].copy()
        point = ones[:z_dim]
        assert compiled_residual.derivatives(psi, point, point, ones[:1], True, left) == math.inf


def test_rough_derivatives_are_near_the_exact_ones():
    psi, c = random(2, 4, 4), random(2, 10, seed=1)
    problem = SeriesProblem(psi, random(4, 10, seed=2), random(4, 10, seed=3))
    rough, exact = problem.derivatives(c, exact=False), problem.derivatives(c)
    assert torch.allclose(rough.gradient, exact.gradient, rtol=1e-2)
    assert rough.hessian is rough.gauss_newton


@pytest.mark.parametrize("scale", [0.01, 1.0, 8.0])
def test_rough_exponentials_have_three_digits(scale):
    psi, c = random(3, 4, 4, scale=0.5), random(50, 3, seed=1)
    c = scale * c / c.norm(dim=1, keepdim=True)
    exact = torch.linalg.matrix_exp((c @ psi.flatten(1)).unflatten(1, (4, 4)))
    error = (exponentials(psi, c) - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
    assert error.max() < 2e-3


def test_objectives_at_nodes_equal_those_of_each_pair():
    matrices, start, end = random(7, 3, 3), random(5, 3, seed=1), random(5, 3, seed=2)
    slow = 0.5 * (torch.einsum("gij,bj->bgi", matrices, start) - end[:, None]).square().sum(-1)
    assert torch.allclose(objectives_at(matrices, start, end), slow)


@pytest.mark.parametrize(
    ("dim", "operators", "scale", "exact"),
    [(2, 4, 2.0, True)]  # in the plane the compiled form is always exact
    + [(*case, exact) for case in [(3, 1, 1.0), (6, 4, 3.0)] for exact in (True, False)],
)
def test_one_by_one_and_batched_descents_are_the_same(dim, operators, scale, exact):
    psi = random(operators, dim, dim)
    psi = psi / torch.linalg.matrix_norm(psi, 2)[:, None, None]
    start, end = random(dim, 50, seed=1), random(dim, 50, seed=2)
    c, weight = (
        random(operators, 50, seed=3, scale=scale),
        random(operators, 50, seed=4).abs() / 50,
    )
    how = {"iterations": 8, "tolerance": 1e-8, "exact": exact}
    batched, value = minimise(SeriesProblem(psi, start, end), c, weight, **how)
    found, objective = minimise_each(psi, start, end, c, weight, **how)
    # Series are as long as each problem needs, so that rough sums differ in the last digits.
    tolerance = 1e-9 if exact else 1e-3
    assert torch.allclose(objective, value, rtol=tolerance)
    assert torch.allclose(found, batched, rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize(("z_dim", "num_operators"), [(2, 1), (2, 4), (6, 1), (6, 4), (3, 2)])
def test_a_path_that_exists_is_found(z_dim, num_operators, generator):
    psi = random(num_operators, z_dim, z_dim, scale=0.5)
    start, truth = random(40, z_dim, seed=1), random(40, num_operators, seed=2, scale=0.7)
    end = transport(psi, truth, start)
    c, value = infer_coefficients(psi, start, end, 1e-4, generator=generator)
    assert torch.allclose(value, objective(psi, start, end, 1e-4, c), rtol=1e-6, atol=1e-12)
    reachable = 1e-4 * truth.abs().sum(1)
    assert (value <= reachable * (1 + 1e-6)).double().mean() >= 0.95


def test_no_grid_point_is_better_for_one_operator(generator):
    psi, start, end = random(1, 3, 3, seed=4), random(20, 3, seed=5), random(20, 3, seed=6)
    _, value = infer_coefficients(psi, start, end, 0.01, generator=generator)
    grid = torch.linspace(-3, 3, 3001, dtype=torch.float64)[:, None, None]
    dense = objective(psi, start, end, 0.01, grid)
    assert bool((value <= dense.amin(0) + 1e-12).all())


@pytest.mark.usefixtures("each_way")
def test_no_grid_point_is_better_for_two_operators(generator):
    psi, start, end = random(2, 2, 2, seed=4), random(10, 2, seed=5), random(10, 2, seed=6)
    _, value = infer_coefficients(psi, start, end, 0.05, generator=generator)
    axis = torch.linspace(-3, 3, 201, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)[:, None]
    assert bool((value <= objective(psi, start, end, 0.05, grid).amin(0) + 1e-12).all())


@pytest.mark.usefixtures("each_way")
def test_the_answer_satisfies_the_conditions_of_the_kink(generator):
    psi, start, end = random(3, 4, 4, scale=0.5), random(30, 4, seed=1), random(30, 4, seed=2)
    c, _ = infer_coefficients(psi, start, end, 0.3, generator=generator)
    gradient = SeriesProblem(psi, start.T, end.T).derivatives(c.T).gradient.T
    at_zero = c == 0
    assert bool(at_zero.any())
    assert not bool(at_zero.all())
    assert bool((gradient[at_zero].abs() <= 0.3 + 1e-6).all())
    assert torch.allclose(gradient[~at_zero], -0.3 * c.sign()[~at_zero], atol=1e-2)


def test_a_large_weight_gives_zero_coefficients(generator):
    psi, start, end = random(2, 3, 3), random(5, 3, seed=1), random(5, 3, seed=2)
    c, value = infer_coefficients(psi, start, end, 1e3, generator=generator)
    assert not bool(c.any())
    assert torch.allclose(value, 0.5 * (end - start).square().sum(1))


def test_more_restarts_are_never_worse_when_local():
    psi, start, end = random(2, 4, 4), random(20, 4, seed=1), random(20, 4, seed=2)
    values = [
        infer_coefficients(
            psi,
            start,
            end,
            1e-3,
            restarts=n,
            search="local",
            generator=torch.Generator().manual_seed(0),
        )[1]
        for n in (1, 4)
    ]
    assert values[1].sum() <= values[0].sum()


def test_the_wide_search_beats_the_local_one(generator):
    psi, start, end = random(1, 6, 6, scale=0.3), random(50, 6, seed=1), random(50, 6, seed=2)
    local = infer_coefficients(psi, start, end, 1e-6, search="local", generator=generator)[1]
    wide = infer_coefficients(psi, start, end, 1e-6, generator=generator)[1]
    everywhere = infer_coefficients(psi, start, end, 1e-6, search="global", generator=generator)[1]
    assert bool((wide <= local + 1e-9).all())
    assert bool((everywhere <= wide + 1e-9).all())


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("num_operators", [1, 3])
@pytest.mark.parametrize("z_dim", [2, 5])
def test_a_row_does_not_depend_on_the_others(z_dim, num_operators):
    psi = random(num_operators, z_dim, z_dim)
    start, end = random(60, z_dim, seed=1), random(60, z_dim, seed=2)

    def solve(rows):
        return infer_coefficients(
            psi, start[rows], end[rows], 1e-3, generator=torch.Generator().manual_seed(1)
        )[1]

    everything = solve(slice(None))
    for rows in (slice(11, 12), slice(0, 60, 3)):
        # Descents end where a relative decrease of 1e-5 is left. Of several operators, sums in
        # single precision choose between starts, and a sum depends on how many there are.
        same = torch.isclose(solve(rows), everything[rows], rtol=1e-4)
        assert same.double().mean() >= (1.0 if num_operators == 1 else 0.9)


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("psi_scale", [1e3, 1e-8])
@pytest.mark.parametrize("num_operators", [1, 3])
def test_extreme_operators_give_finite_answers_no_worse_than_zero(num_operators, psi_scale):
    psi = random(num_operators, 4, 4, scale=psi_scale)
    start, end = random(20, 4, seed=1), random(20, 4, seed=2)
    c, value = infer_coefficients(psi, start, end, 1e-6)
    assert bool(torch.isfinite(c).all())
    assert bool(torch.isfinite(value).all())
    assert bool((value <= 0.5 * (end - start).square().sum(1)).all())


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("num_operators", [1, 2])
def test_a_pair_that_overflows_does_not_spoil_its_neighbours(num_operators):
    psi = random(num_operators, 3, 3)
    start, end = random(50, 3, seed=1), random(50, 3, seed=2)
    alone = infer_coefficients(
        psi, start[:49], end[:49], 1e-3, generator=torch.Generator().manual_seed(1)
    )[1]
    start[49], end[49] = 1e200, -1e200
    c, value = infer_coefficients(
        psi, start, end, 1e-3, generator=torch.Generator().manual_seed(1)
    )
    assert torch.isclose(value[:49], alone, rtol=1e-4).double().mean() >= 0.95
    assert bool(torch.isfinite(c).all())


@pytest.mark.usefixtures("each_way")
def test_a_defective_operator_is_no_obstacle(generator):
    psi = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]], dtype=torch.float64)
    start, end = torch.ones(1, 2).double(), torch.tensor([[3.0, 1.0]], dtype=torch.float64)
    c, value = infer_coefficients(psi, start, end, 1e-6, generator=generator)
    assert torch.allclose(c, torch.tensor([[2.0]], dtype=torch.float64), atol=1e-5)
    assert torch.allclose(value, torch.tensor([2e-6], dtype=torch.float64), rtol=1e-4)


@pytest.mark.parametrize("num_operators", [1, 2])
def test_an_operator_of_zeros_moves_nothing(num_operators):
    c, value = infer_coefficients(
        torch.zeros(num_operators, 3, 3), torch.ones(2, 3), torch.zeros(2, 3), 0.1
    )
    assert not bool(c.any())
    assert torch.allclose(value, torch.tensor([1.5, 1.5]))


def test_the_answer_has_the_dtype_of_the_points_and_no_gradient():
    psi = random(2, 3, 3).float().requires_grad_()
    start = random(4, 3, seed=1).float().requires_grad_()
    c, value = infer_coefficients(psi, start, random(4, 3, seed=2).float(), 0.1)
    assert c.shape == (4, 2)
    assert value.shape == (4,)
    assert c.dtype == value.dtype == torch.float32
    assert not c.requires_grad
    assert not value.requires_grad


@pytest.mark.parametrize("num_operators", [1, 2])
def test_points_of_integers_have_coefficients_that_are_not(num_operators):
    psi, start, end = random(num_operators, 2, 2), torch.tensor([[1, 0]]), torch.tensor([[2, 1]])
    found = infer_coefficients(psi, start, end, 1e-3, generator=torch.Generator().manual_seed(0))
    same = infer_coefficients(
        psi, start.double(), end, 1e-3, generator=torch.Generator().manual_seed(0)
    )
    for given, expected in zip(found, same, strict=True):
        assert given.dtype == torch.float32
        assert torch.equal(given, expected.float())
    c, _ = descend(psi, start, end, 1e-3, torch.zeros(1, 1, num_operators))
    assert c.dtype == torch.float32
    assert bool(c.frac().any())


def test_an_empty_batch_gives_an_empty_answer():
    for num_operators in (1, 2):
        c, value = infer_coefficients(
            random(num_operators, 3, 3), torch.empty(0, 3), torch.empty(0, 3), 0.1
        )
        assert c.shape == (0, num_operators)
        assert value.shape == (0,)


def test_weights_may_differ_between_pairs(generator):
    psi, start, end = random(2, 3, 3), random(4, 3, seed=1), random(4, 3, seed=2)
    weight = torch.tensor([1e-3, 1e3, 1e-3, 1e3], dtype=torch.float64)
    c, _ = infer_coefficients(psi, start, end, weight, generator=generator)
    assert c.abs().sum(1).gt(0).tolist() == [True, False, True, False]


def test_the_global_generator_is_left_alone_when_one_is_given(generator):
    state = torch.random.get_rng_state()
    infer_coefficients(
        random(2, 3, 3), random(4, 3), random(4, 3, seed=2), 1.0, generator=generator
    )
    assert torch.equal(state, torch.random.get_rng_state())


def ruined(tensor, index):
    tensor = tensor.clone()
    tensor[index] = torch.nan
    return tensor


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": ruined(random(4, 3), 2)}, r"start is not finite in the rows \[2\]"),
        ({"end": ruined(random(4, 3), (1, 0))}, r"end is not finite in the rows \[1\]"),
        ({"psi": ruined(random(2, 3, 3), 1)}, r"psi is not finite: operators \[1\]"),
        ({"start": random(4, 2)}, r"expects start and end of shape \(batch, 3\)"),
        ({"psi": random(2, 3, 2)}, "psi must hold transport operators"),
        ({"restarts": 0}, "restarts must be at least 1"),
        ({"search": "global"}, "needs a single operator"),
        ({"search": "anywhere"}, "search must be one of local, wide, global"),
        ({"l1_weight": -1.0}, "l1_weight must be finite and not negative"),
        ({"l1_weight": torch.ones(3)}, r"l1_weight must be one number or of shape \(4,\)"),
    ],
)
def test_says_what_is_wrong_with_an_argument(changes, message):
    arguments = {
        "psi": random(2, 3, 3),
        "start": random(4, 3),
        "end": random(4, 3, seed=1),
        "l1_weight": 0.1,
    }
    with pytest.raises(UserError, match=message):
        infer_coefficients(**(arguments | changes))


def test_a_descent_reaches_the_local_minimum_of_its_start():
    start = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    end = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    c, _ = descend(TURN, start, end, 0.0, torch.tensor([[[7.0]]]))
    assert torch.allclose(c, torch.tensor([[2.5 * torch.pi]], dtype=torch.float64))


@pytest.mark.parametrize(("operators", "dim"), [(1, 2), (3, 2), (2, 5)])
def test_descents_from_given_coefficients_end_in_the_minimum_near_them(operators, dim):
    psi, start = random(operators, dim, dim, scale=0.3), random(8, dim, seed=1)
    near = random(8, operators, seed=2, scale=0.3)
    end = transport(psi, near, start) + 1e-3 * random(8, dim, seed=3)
    first = torch.stack([near + 0.05 * random(8, operators, seed=4), 30 * torch.ones_like(near)])
    c, value = descend(psi, start, end, 1e-5, first)
    assert c.shape == near.shape
    torch.testing.assert_close(value, objective(psi, start, end, 1e-5, c))
    assert bool((value < objective(psi, start, end, 1e-5, near)).all())
    probes = c + 1e-3 * random(20, 8, operators, seed=5)
    around = objective(psi, start, end, 1e-5, probes)
    # Along the valley of three operators in the plane the objective hardly changes.
    assert bool((value <= 1.02 * around).all())


def test_a_descent_from_coefficients_that_overflow_spoils_nothing():
    psi, start = random(1, 3, 3), random(2, 3, seed=1)
    first = torch.stack([torch.full((2, 1), 1e6), torch.zeros(2, 1)]).double()
    both = descend(psi, start, start + 0.1, 1e-3, first)
    for found, alone in zip(both, descend(psi, start, start + 0.1, 1e-3, first[1:]), strict=True):
        torch.testing.assert_close(found, alone)
