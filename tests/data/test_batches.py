import pytest
import torch

from pyro_latents.data.batches import Batches, Binarised, Plain, mixed_seed
from pyro_latents.data.examples import Examples


def numbered(size: int) -> Plain:
    return Plain(Examples(torch.arange(float(size))))


def grey(size: int = 12) -> Binarised:
    return Binarised(Examples(torch.full((size, 1, 4, 4), 0.5)))


def drawn(batches) -> list[list[float]]:
    return [x.flatten().tolist() for (x,) in batches]


def test_an_epoch_has_every_data_point_once():
    batches = Batches(numbered(10), 4, seed=0)
    assert [len(batch) for batch in drawn(batches)] == [4, 4, 2]
    assert sorted(sum(drawn(batches), [])) == list(range(10))
    assert len(batches) == 3


def test_epochs_differ_and_repeat():
    batches = Batches(numbered(10), 4, seed=0)
    first = drawn(batches)
    batches.set_epoch(1)
    assert drawn(batches) != first
    batches.set_epoch(0)
    assert drawn(batches) == first


def test_seeds_differ():
    assert drawn(Batches(numbered(10), 4, seed=0)) != drawn(Batches(numbered(10), 4, seed=1))


def test_unshuffled_batches_keep_the_order():
    assert drawn(Batches(numbered(5), 2, seed=0, shuffle=False)) == [[0, 1], [2, 3], [4]]


def test_drop_last_leaves_out_the_incomplete_batch():
    batches = Batches(numbered(5), 2, seed=0, drop_last=True)
    assert len(batches) == len(drawn(batches)) == 2


def test_neither_reads_nor_moves_the_global_generator():
    torch.manual_seed(1)
    first, state = drawn(Batches(grey(), 4, seed=0)), torch.get_rng_state()
    torch.manual_seed(2)
    assert drawn(Batches(grey(), 4, seed=0)) == first
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_batch_does_not_depend_on_those_before_it():
    batches = Batches(grey(), 4, seed=0)
    whole = drawn(batches)
    assert batches.batch(2)[0].flatten().tolist() == whole[2]
    batches.set_epoch(0, start=1)
    assert drawn(batches) == whole[1:]


def test_start_holds_for_one_iteration():
    batches = Batches(numbered(6), 2, seed=0)
    batches.set_epoch(3, start=2)
    assert len(batches) == 3
    assert [len(drawn(batches)), len(drawn(batches))] == [1, 3]


def test_interleaved_iterations_do_not_disturb_each_other():
    batches = Batches(grey(), 4, seed=0)
    expected = drawn(batches)
    pairs = list(zip(batches, batches, strict=True))
    assert drawn(pair[0:1] for pair in [a for a, _ in pairs]) == expected
    assert drawn(pair[0:1] for pair in [b for _, b in pairs]) == expected


@pytest.mark.parametrize("size", [16, 17, 18, 19], ids=lambda n: f"size_{n}")
def test_ranks_share_the_permutation_of_one(size):
    ranks = [drawn(Batches(numbered(size), 8, seed=0, rank=r, world_size=4)) for r in range(4)]
    alone = drawn(Batches(numbered(size), 8, seed=0))
    shares = [sum(parts, []) for parts in zip(*ranks, strict=True)]
    assert {len(part) for rank in ranks for part in rank} == {2}
    assert [sorted(share) for share in shares] == [sorted(batch) for batch in alone[:2]]


def test_a_last_batch_is_shared_equally():
    ranks = [Batches(numbered(15), 8, seed=0, rank=r, world_size=2) for r in range(2)]
    last = [drawn(rank)[-1] for rank in ranks]
    assert [len(part) for part in last] == [3, 3]
    assert set(last[0]).isdisjoint(last[1])
    assert [len(rank) for rank in ranks] == [2, 2]


def test_ranks_draw_different_noise():
    images = [drawn(Batches(grey(8), 8, seed=0, rank=r, world_size=2))[0] for r in range(2)]
    assert images[0] != images[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"batch_size": 4, "rank": 2, "world_size": 2}, r"rank must be in 0\.\.1; got 2"),
        ({"batch_size": 5, "world_size": 2}, r"multiple of the 2 ranks; got 5. Take 4\."),
        ({"batch_size": 1, "world_size": 2}, r"multiple of the 2 ranks; got 1. Take 2\."),
        ({"batch_size": 11, "drop_last": True}, "no batch of 11 can be made of 10 data points"),
    ],
    ids=["size", "rank", "share", "small_share", "nothing"],
)
def test_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        Batches(numbered(10), **arguments, seed=0)


def test_rejects_a_batch_outside_the_epoch():
    with pytest.raises(IndexError, match=r"batch must be in 0\.\.2; got 3"):
        Batches(numbered(10), 4, seed=0).batch(3)


def test_plain_leaves_the_data_as_they_are():
    images = torch.rand(5, 1, 2, 2)
    (x,) = Plain(Examples(images))(torch.tensor([4, 0]), torch.Generator())
    assert torch.equal(x, images[[4, 0]])


def test_binarised_pixels_have_the_mean_of_the_grey_ones():
    levels = torch.tensor([0.0, 0.2, 0.7, 1.0]).reshape(1, 1, 2, 2)
    maker = Binarised(Examples(levels.expand(20_000, 1, 2, 2)))
    (x,) = maker(torch.arange(20_000), torch.Generator().manual_seed(0))
    assert set(x.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(x.mean(0, keepdim=True), levels, atol=0.015, rtol=0)


def test_binarisation_is_dynamic():
    batches = Batches(grey(4), 4, seed=0, shuffle=False)
    first = drawn(batches)
    batches.set_epoch(1)
    assert drawn(batches) != first


def test_mixed_seeds_differ_in_the_bits_that_the_generator_reads():
    low = {mixed_seed(seed, epoch) % 2**32 for seed in range(50) for epoch in range(50)}
    assert len(low) == 2500
    assert mixed_seed(1, 23) != mixed_seed(12, 3)
