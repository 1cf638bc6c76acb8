"""Every operation of torch that a page has."""

from pyro_latents.live.places import PLACES
from pyro_latents.live.pointwise import POINTWISE
from pyro_latents.live.products import PRODUCTS

OPERATIONS = PLACES | POINTWISE | PRODUCTS
