import pytest
import torch

from pyro_latents.data.examples import Examples, Splits, joined


def numbered(size: int, start: int = 0) -> Examples:
    rows = torch.arange(start, start + size)
    return Examples(rows.float()[:, None], rows, {"angle": rows / 10}, provenance="counted")


def test_take_keeps_rows_together():
    taken = numbered(5).take(torch.tensor([3, 1]))
    assert taken.x.flatten().tolist() == [3, 1]
    assert taken.y.tolist() == [3, 1]
    assert taken.extras["angle"].tolist() == pytest.approx([0.3, 0.1])
    assert taken.provenance == "counted"


@pytest.mark.parametrize(
    "index", [slice(1, 3), torch.tensor([False, True, True, False])], ids=["slice", "mask"]
)
def test_takes_slices_and_masks(index):
    assert numbered(4).take(index).y.tolist() == [1, 2]


def test_moves_every_tensor():
    moved = numbered(3).to("meta")
    assert {moved.device, moved.y.device, moved.extras["angle"].device} == {torch.device("meta")}


def test_rejects_labels_of_another_length():
    with pytest.raises(ValueError, match="one y for each of the 3 data points; got 2"):
        Examples(torch.zeros(3, 1), torch.zeros(2))


def test_rejects_extras_of_another_length():
    with pytest.raises(ValueError, match="one angle for each of the 3 data points; got 4"):
        Examples(torch.zeros(3, 1), extras={"angle": torch.zeros(4)})


def test_joined_keeps_the_order_of_the_parts():
    both = joined([numbered(2), numbered(3, start=2)])
    assert both.y.tolist() == [0, 1, 2, 3, 4]
    assert both.extras["angle"].shape == (5,)
    assert both.provenance == "counted"


def test_splits_speak_for_their_training_part():
    splits = Splits(numbered(3), numbered(2), numbered(1), num_classes=3)
    assert splits.shape == (1,)
    assert splits.provenance == "counted"
    assert splits.to("meta").test.device == torch.device("meta")
