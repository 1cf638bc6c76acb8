"""What is measured of the codes of single images."""

from torch import Tensor, nn

from pyro_latents.data.examples import Examples
from pyro_latents.evaluation.codes import codes
from pyro_latents.evaluation.knn import knn_accuracy
from pyro_latents.guides.triplet_tvae import TripletGuide
from pyro_latents.stories.story import Parts

# Codes that a nearest-neighbour metric learns from: more of them cost much and change little.
KNN_CODES = 20_000


def image_codes(guide: nn.Module, x: Tensor) -> Tensor:
    """Return the posterior means of single images, `batch z_dim`, for each of the three models.

    A flow has no mean in closed form, and is drawn from.

    Args:
        guide: That of a triplet TVAE (`q(z0 | x)`), of VAE+ or of a VAE (`q(z | x)`).
        x: Images, of shape `batch channels height width`.
    """
    return codes(guide.image_guide() if isinstance(guide, TripletGuide) else guide, x)


def neighbours(parts: Parts, test: Examples) -> dict[str, float]:
    """Return ``knn_accuracy``, by 5 nearest neighbours in per cent; nothing without labels.

    Args:
        parts: Trained parts, whose training data are the neighbours.
        test: The images to classify.
    """
    train = parts.splits.train.take(slice(KNN_CODES)).to(test.device)
    if train.y is None or test.y is None:
        return {}
    known, asked = (image_codes(parts.guide, part.x) for part in (train, test))
    return {"knn_accuracy": knn_accuracy(known, train.y, asked, test.y)}
