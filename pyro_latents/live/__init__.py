"""The live part of a report: what a story does, computed anew in the page as it is moved.

A story declares it in ``Story.live`` as data: what is moved (`Sliders`, `Choice`, `Picture`), what
follows (`Step`, a function of tensors), and what is seen (`Images`, `Bars`, `Plane`). Each
function becomes a list of operations on numbers (`pyro_latents.live.lowering`), which a page
carries out by JavaScript of this package without a network, and checks against torch's results.
"""

from pyro_latents.live.declared import (
    Bars,
    Choice,
    Images,
    Live,
    Picture,
    Plane,
    Sliders,
    Step,
)

__all__ = ["Bars", "Choice", "Images", "Live", "Picture", "Plane", "Sliders", "Step"]
