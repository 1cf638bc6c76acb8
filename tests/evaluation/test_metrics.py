import pytest
import torch

from pyro_latents.evaluation.evidence import Evidence
from pyro_latents.evaluation.metrics import averages, of_evidence, standard_errors

METRICS = {"elbo": torch.tensor([1.0, 3.0]), "mse": torch.tensor([1.0, 2.0]), "points": 2}


def test_means_of_log_probabilities_have_standard_errors():
    assert standard_errors(METRICS) == {"elbo_se": pytest.approx(1.0)}
    assert standard_errors({"elbo": torch.ones(1), "log_likelihood": -3.0}) == {}


def test_averages_are_over_data_points_and_leave_numbers_alone():
    assert averages(METRICS) == {"elbo": 2.0, "mse": 1.5, "points": 2}


def test_evidence_is_told_with_its_gap_and_with_shares_that_make_a_whole():
    # Weights of a guide that is the posterior, of one that smoothing mends, and of neither.
    k_hat, ess = torch.tensor([-0.5, 0.4, 2.0]), torch.tensor([990.0, 300.0, 1.5])
    log_evidence, elbo = torch.tensor([-3.0, -2.0, -1.0]), torch.tensor([-3.0, -2.5, -4.0])
    found = of_evidence(Evidence(log_evidence, k_hat, ess, elbo), 1000)
    assert found["gap"].tolist() == [0.0, 0.5, 3.0]
    assert found["log_likelihood_points"] == 3
    shares = [found[name] for name in ("posterior_by_guide", "posterior_by_smoothing")]
    shares.append(found["posterior_needs_chains"])
    assert [share.tolist() for share in shares] == [[100, 0, 0], [0, 100, 0], [0, 0, 100]]
    assert found["k_hat_above_threshold"].tolist() == [0, 0, 100]
