import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from pyro_latents.evaluation.knn import knn_accuracies, knn_accuracy, whitened


def clusters(size):
    labels = torch.randint(4, (size,))
    return labels[:, None] * torch.tensor([1.0, -1.0]) + 0.8 * torch.randn(size, 2), labels


@pytest.mark.parametrize("neighbours", [1, 2])
def test_it_is_scikit_learns_where_no_vote_is_tied(neighbours):
    (x, y), (test, labels) = clusters(200), clusters(50)
    found = knn_accuracy(x, y, test, labels, neighbours=neighbours)
    # With two neighbours every tie is one against one, which distances decide as well.
    weights = "distance" if neighbours == 2 else "uniform"
    theirs = KNeighborsClassifier(neighbours, weights=weights).fit(x.numpy(), y.numpy())
    assert found == pytest.approx(100 * theirs.score(test.numpy(), labels.numpy()), abs=1e-4)


def test_the_majority_wins():
    x = torch.tensor([[0.0], [1.0], [1.1], [9.0]])
    y = torch.tensor([0, 1, 1, 0])
    assert knn_accuracy(x, y, torch.tensor([[0.1]]), torch.tensor([1]), neighbours=3) == 100.0


def test_of_equal_votes_the_nearest_wins():
    x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    y = torch.tensor([2, 1, 1, 2])
    for _ in range(2):
        assert knn_accuracy(x, y, torch.tensor([[0.1]]), torch.tensor([2]), neighbours=4) == 100.0


def test_fewer_codes_than_neighbours_all_vote():
    x = torch.tensor([[0.0], [1.0], [2.0]])
    assert knn_accuracy(x, torch.tensor([3, 1, 1]), x, torch.tensor([1, 1, 1])) == 100.0


def test_rejects_nothing_to_learn_from():
    empty = torch.zeros(0, 2)
    with pytest.raises(ValueError, match="n_neighbors.* Got 0"):
        knn_accuracy(empty, torch.zeros(0).long(), torch.zeros(1, 2), torch.zeros(1).long())


def test_one_search_serves_every_number_of_neighbours():
    (x, y), (test, labels) = clusters(200), clusters(50)
    counts = [1, 3, 10]
    apart = [knn_accuracy(x, y, test, labels, neighbours=count) for count in counts]
    assert knn_accuracies(x, y, test, labels, neighbours=counts) == apart


def test_whitened_codes_have_unit_variance_and_no_direction_without_any():
    torch.manual_seed(0)
    train = torch.randn(500, 4) * torch.tensor([10.0, 1.0, 5.0, 1e-4])
    train, other = whitened(train @ torch.randn(4, 4), train[:5])
    assert train.shape[1] == other.shape[1] <= 3
    torch.testing.assert_close(train.T.cov(), torch.eye(train.shape[1]), atol=1e-3, rtol=0)
