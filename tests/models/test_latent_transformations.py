import pytest
import torch

from pyro_latents.models.triplet_tvae import Additive, Matrix

KINDS = pytest.mark.parametrize("kind", [Additive, Matrix])
pytestmark = pytest.mark.usefixtures("float64")


def grown(transformation):
    """The transformation, with generators as large as those that training leaves."""
    with torch.no_grad():
        for parameter in transformation.parameters():
            parameter.mul_(4)
    return transformation


@KINDS
def test_the_identity_changes_nothing(kind):
    transformation, z = kind(4), torch.randn(5, 4)
    assert torch.equal(transformation(z, transformation.identity()), z)


@KINDS
def test_the_inverse_undoes_from_both_sides(kind):
    transformation, z = grown(kind(4)), torch.randn(3, 5, 4)
    T = torch.randn(3, 5, transformation.parameter_dim)
    back = transformation.inverse(T)
    torch.testing.assert_close(transformation(transformation(z, T), back), z)
    torch.testing.assert_close(transformation(transformation(z, back), T), z)


@KINDS
def test_the_inverse_of_the_inverse_and_of_the_identity(kind):
    transformation = kind(4)
    T = torch.randn(transformation.parameter_dim)
    assert torch.equal(transformation.inverse(transformation.inverse(T)), T)
    assert torch.equal(transformation.inverse(transformation.identity()), -0.0 * T)


@KINDS
def test_multiples_of_one_transformation_compose(kind):
    transformation, z = grown(kind(4)), torch.randn(5, 4)
    T = torch.randn(5, transformation.parameter_dim)
    # Together shorter than what is shortened.
    T = T / 10
    twice = transformation(transformation(z, T), T)
    torch.testing.assert_close(transformation(z, 2 * T), twice)


def test_additive_transformations_commute():
    transformation, z = Additive(4), torch.randn(5, 4)
    T, S = torch.randn(2, 5, 4)
    one = transformation(transformation(z, T), S)
    torch.testing.assert_close(one, transformation(z, T + S))


def test_matrices_are_a_group_that_does_not_commute():
    transformation, z = grown(Matrix(3)), torch.randn(3)
    T, S = torch.randn(2, 3)
    one = transformation(transformation(z, T), S)
    other = transformation(transformation(z, S), T)
    assert not torch.allclose(one, other)


def test_a_skew_generator_rotates():
    transformation = Matrix(2, generators=1)
    with torch.no_grad():
        transformation.generators.copy_(torch.tensor([[[0.0, -1.0], [1.0, 0.0]]]))
    moved = transformation(torch.tensor([1.0, 0.0]), torch.tensor([torch.pi / 2]))
    torch.testing.assert_close(moved, torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize("z_dim", [2, 10, 100])
def test_matrices_begin_close_to_the_identity(z_dim):
    transformation = Matrix(z_dim)
    z = torch.randn(8, z_dim)
    moved = transformation(z, torch.randn(8, transformation.parameter_dim))
    ratio = moved.norm(dim=-1) / z.norm(dim=-1)
    assert ratio.min() > 1 / 20
    assert ratio.max() < 20


@KINDS
def test_gradients_flow_through_both_arguments(kind):
    transformation = grown(kind(3))
    z = torch.randn(2, 3, requires_grad=True)
    T = torch.randn(2, transformation.parameter_dim, requires_grad=True)
    assert torch.autograd.gradcheck(transformation, (z, T))


def test_generators_are_learned():
    transformation = Matrix(3, generators=2)
    moved = transformation(torch.randn(5, 3), torch.randn(5, 2))
    moved.square().sum().backward()
    assert transformation.generators.grad.abs().min() > 0


def test_long_sums_of_generators_are_shortened_and_still_inverted():
    transformation, z = Matrix(4), torch.randn(5, 4)
    T = 1e6 * torch.randn(5, 4)
    moved = transformation(z, T)
    assert torch.isfinite(moved).all()
    back = transformation(moved, transformation.inverse(T))
    torch.testing.assert_close(back, z)


def test_a_matrix_keeps_its_precision_where_networks_lose_theirs():
    torch.manual_seed(0)
    transformation = Matrix(4).float()
    z, T = torch.randn(2, 5, 4, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert (z @ z.T).dtype == torch.bfloat16
        # By no T nothing moves, whatever is rounded: there it is gradients that were not finite.
        moved, same = (transformation(z, times * T) for times in (1, 0))
    assert torch.equal(moved, transformation(z, T))
    assert torch.allclose(same, z, atol=1e-6)
    (moved + same).sum().backward()
    assert bool(transformation.generators.grad.isfinite().all())
