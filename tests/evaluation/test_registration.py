import torch

from pyro_latents.data.affine import rotate
from pyro_latents.evaluation.registration import rotation_between


def test_it_finds_the_angle_of_turned_images():
    bars = torch.zeros(7, 1, 28, 28)
    bars[:, :, 4:14, 12:16] = 1.0
    angles = torch.tensor([-60.0, -33.0, -6.0, 0.0, 12.0, 45.0, 81.0])
    found = rotation_between(bars, rotate(bars, angles.deg2rad()))
    torch.testing.assert_close(found, angles, atol=1e-3, rtol=0)


def test_brightness_does_not_matter():
    bars = torch.zeros(1, 1, 28, 28)
    bars[:, :, 4:14, 12:16] = 1.0
    turned = 0.3 * rotate(bars, torch.tensor([30.0]).deg2rad())
    torch.testing.assert_close(rotation_between(bars, turned), torch.tensor([30.0]))
