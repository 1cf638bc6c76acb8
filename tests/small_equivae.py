"""A small EquiVAE, and its bounds as loops over classes and points."""

import torch
from pyro.distributions import Normal
from torch import Tensor, nn

from pyro_latents.guides.equivae import EquiVAEGuide, SemiSupervisedGuide
from pyro_latents.guides.families import MeanField
from pyro_latents.models.equivae import EquiVAE, SemiSupervisedEquiVAE, joined
from pyro_latents.nets.mlp import DenseDecoder
from pyro_latents.nets.sets import SetEncoder

SHAPE, CLASSES, R, V = (1, 4, 4), 3, 3, 2


class Encoder(nn.Module):
    """Features of `q(v | r, x)` for small images."""

    features_dim = 6

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16 + R, 6), nn.Tanh())

    def forward(self, x: Tensor, r: Tensor) -> Tensor:
        return self.layers(joined(x.flatten(-3), r))


def make(
    model_kind=EquiVAE, guide_kind=EquiVAEGuide, family=MeanField, *, rule=False, dropout=0.0
):
    """A model and a guide, with their parameters."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, R), nn.Tanh(), nn.Dropout(dropout))
    sets = SetEncoder(network, R, num_classes=CLASSES)
    weights = torch.tensor([5.0, 3.0, 2.0])
    decoder = DenseDecoder(R + V, SHAPE, (8,))
    model = model_kind(sets, decoder, v_dim=V, class_weights=weights)
    classifier = None if rule else nn.Sequential(nn.Flatten(-3), nn.Linear(16, CLASSES))
    guide = guide_kind(sets, Encoder(), family(6, V), classifier)
    return model, guide


def semi(**options):
    """A model and a guide of both kinds of points."""
    return make(SemiSupervisedEquiVAE, SemiSupervisedGuide, **options)


def batch():
    """A batch of both kinds of points."""
    x, labelled, y = torch.rand(4, *SHAPE), torch.rand(5, *SHAPE), torch.tensor([0, 2, 1, 1, 2])
    return x, torch.rand(CLASSES, 2, *SHAPE), labelled, y, torch.rand(5, 2, *SHAPE)


def gradients(loss: Tensor, *modules: nn.Module) -> list[Tensor]:
    """The gradients of all parameters, zero where there is none."""
    parameters = [p for module in modules for p in module.parameters()]
    found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    return [
        torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)
    ]


def given_v(model, guide, x, r, noise):
    """The terms of log p(x, v | r) - log q(v | r, x) at v made from this noise."""
    q = guide.v_posterior(x, r).base_dist
    v = q.loc + q.scale * noise
    normal = torch.distributions.Normal(0.0, 1.0)
    return (
        model.likelihood(model.decoder(joined(r, v))).log_prob(x)
        + normal.log_prob(v).sum(-1)
        - q.log_prob(v).sum(-1)
    )


def explicit_unlabelled(model, guide, x, class_sets, noise):
    """Equation (6) for each point, as a loop over the classes."""
    q_y = guide.label_posterior(x, model.invariant(class_sets)).probs
    total = 0.0
    for label in range(CLASSES):
        r = model.invariant(class_sets)[label].expand(len(x), -1)
        inner = given_v(model, guide, x, r, noise[label])
        prior = model.class_weights[label].log()
        total = total + q_y[:, label] * (inner + prior - q_y[:, label].log())
    return total


def explicit_labelled(model, guide, x, y, sets, noise):
    """Equation (4) for each point."""
    r = model.invariant(sets)
    return given_v(model, guide, x, r, noise) + model.class_weights[y].log()


class FixedNormal(Normal):
    """A normal that draws what it is told to."""

    noise: Tensor

    def rsample(self, sample_shape=()):
        return self.loc + self.scale * self.noise

    def expand(self, shape, _instance=None):
        return self


def with_noise(guide, unlabelled, labelled=None):
    """Replace the draws of v; return the posterior as it was."""
    plain = guide.v_posterior

    def posterior(x, r):
        base = plain(x, r).base_dist
        fixed = FixedNormal(base.loc, base.scale)
        # Only enumeration has a dimension in front of the batch.
        fixed.noise = labelled if base.loc.dim() == 2 else unlabelled
        return fixed.to_event(1)

    guide.v_posterior = posterior
    return plain
