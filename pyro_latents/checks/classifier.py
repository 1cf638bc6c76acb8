"""A small classifier of the project's own, to look at replicates with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_latents.data.examples import Examples
from pyro_latents.nets.conv import LAYOUT, over_leading
from pyro_latents.nets.initial import initialise_for_relu
from pyro_latents.progress import watched

STEPS, BATCH, RATE = 400, 100, 1e-3
FEATURES = 64
ROWS = 2000


class Classifier(nn.Module):
    """Two convolutions and two dense layers, for images of any size."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(512, FEATURES),
            nn.ReLU(),
        )
        self.head = nn.Linear(FEATURES, num_classes)
        initialise_for_relu(self)
        self.to(memory_format=LAYOUT)

    def features(self, x: Tensor) -> Tensor:
        """Map `*leading channels height width` to `*leading features`."""
        return over_leading(self.body, x, event_dims=3)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the classes, `*leading num_classes`."""
        return self.head(self.features(x))

    def confidence(self, x: Tensor) -> Tensor:
        """Return the probability of the likeliest class, of shape `*leading`."""
        return self(x).softmax(-1).amax(-1)


def train_classifier(
    examples: Examples,
    num_classes: int,
    *,
    binary: bool = False,
    steps: int | None = None,
    seed: int = 0,
) -> Classifier:
    """Train a classifier on labelled images, binarised at random if its data are to be binary."""
    assert examples.y is not None
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(seed)
        classifier = Classifier(examples.shape[0], num_classes).to(examples.device)
        optimizer = torch.optim.Adam(classifier.parameters(), lr=RATE)
        for _ in watched(range(steps or STEPS), "classifier"):
            rows = torch.randint(len(examples), (BATCH,), device=examples.device)
            x = examples.x[rows]
            loss = F.cross_entropy(classifier(x.bernoulli() if binary else x), examples.y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return classifier.eval().requires_grad_(False)


def features_and_classes(classifier: Classifier, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return features `batch features` and the likeliest classes `batch` of images."""
    features = torch.cat([classifier.features(part) for part in x.split(ROWS)])
    return features, classifier.head(features).argmax(-1)
