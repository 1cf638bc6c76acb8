import pytest
import torch
from torch import nn

from pyro_latents.nets.sets import HELD, SetEncoder

pytestmark = pytest.mark.usefixtures("float64")


def make() -> SetEncoder:
    return SetEncoder(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), r_dim=3)


def count_calls(encoder: SetEncoder) -> list[int]:
    seen: list[int] = []
    encoder.network.register_forward_hook(lambda layer, given, out: seen.append(len(out)))
    return seen


def test_the_code_of_a_set_is_the_mean_of_its_members_codes():
    encoder, sets = make(), torch.rand(5, 4, 1, 2, 2)
    expected = torch.stack([encoder.network(members).mean(0) for members in sets])
    torch.testing.assert_close(encoder(sets), expected)


def test_the_order_of_the_members_does_not_matter():
    encoder, sets = make(), torch.rand(5, 4, 1, 2, 2)
    torch.testing.assert_close(encoder(sets), encoder(sets[:, torch.randperm(4)]))


def test_a_set_of_one_is_a_point():
    encoder, x = make(), torch.rand(5, 1, 2, 2)
    torch.testing.assert_close(encoder(x[:, None]), encoder.embed(x))


def test_held_codes_are_taken_once():
    encoder, sets = make(), torch.rand(5, 4, 1, 2, 2)
    seen = count_calls(encoder)
    held = encoder.hold(sets)
    assert encoder(sets) is held
    assert len(seen) == 1
    encoder(sets)
    assert len(seen) == 2


def test_codes_of_two_tensors_are_held_at_a_time():
    encoder, pair = make(), torch.rand(HELD, 5, 4, 1, 2, 2)
    first, second = pair[0], pair[1]
    codes = [encoder.hold(first), encoder.hold(second)]
    assert encoder(first) is codes[0]
    assert encoder(second) is codes[1]


@pytest.mark.parametrize("fused", [False, True])
def test_held_codes_are_not_taken_after_a_step(fused):
    encoder, sets = make(), torch.rand(5, 4, 1, 2, 2)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=0.1, fused=fused)
    held = encoder.hold(sets)
    held.sum().backward()
    optimizer.step()
    torch.testing.assert_close(encoder(sets), encoder._encode(sets))
    assert not torch.equal(held, encoder(sets))


def test_held_codes_are_not_taken_with_other_gradients_or_dropout():
    encoder, sets = make(), torch.rand(5, 4, 1, 2, 2)
    with torch.no_grad():
        encoder.hold(sets)
    assert encoder(sets).requires_grad
    held = encoder.hold(sets)
    encoder.eval()
    assert encoder(sets) is not held
