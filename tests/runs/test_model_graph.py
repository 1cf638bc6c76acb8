"""The graph of each story's model, as SVG."""

import re
from xml.etree import ElementTree

import pytest

from pyro_latents import zoo
from pyro_latents.runs.model_graph import model_graph

FEW = {"limit_train": 200, "validation": 30, "batch_size": 20}
# Sites, and how many arrows lead from one to another.
GRAPHS = {
    "vae-digits": ({"z", "x"}, 1),
    "triplet-tvae-digits": ({"z", "T", "z0", "z1", "z2", "x", "x1", "x2"}, 8),
    "equivae-digits": ({"y", "r", "v", "x"}, 3),
    "equivae-semi-digits": ({"y", "r", "v", "x"}, 3),
    "pose-tvae-digits": ({"u", "z", "x"}, 2),
    "vaells-swiss-roll": ({"k", "c", "z", "x"}, 3),
    "vaells-rotated-digits": ({"k", "c", "z", "x"}, 3),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_the_sites_and_what_they_depend_on(name):
    sites, arrows = GRAPHS[name]
    labels = {"labels": 20} if "semi" in name else {}
    fitted = {"pose_prior": "fitted"} if "pose" in name else {}
    recipe = zoo.recipe(name, **FEW, **labels, **fitted)
    graph = model_graph(recipe.model, *recipe.first_batch("test", size=2))
    root = ElementTree.fromstring(graph)
    words = {text.text for text in root.iter("text")}
    assert sites | {"data"} <= words
    assert len(root.findall("path")) == arrows
    assert len(root.findall("ellipse")) == len(sites)
    # All lies within the picture.
    width, height = (float(root.get(side)) for side in ("width", "height"))
    for ellipse in root.findall("ellipse"):
        assert 0 < float(ellipse.get("cx")) < width
        assert 0 < float(ellipse.get("cy")) < height
    assert len(re.findall("#d5d9e0", graph)) == {"triplet": 3, "equivae": 2}.get(
        name.split("-")[0] if "semi" not in name else "", 1
    )
