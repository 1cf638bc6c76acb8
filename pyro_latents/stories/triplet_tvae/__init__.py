"""The triplet TVAE of Giannone et al. (2019), and its baseline VAE+.

Whoever wants to know it whole opens these files, in this order:

1. `models/triplet_tvae.py`: the generative process, equation (1), and how a code is transformed;
2. `guides/triplet_tvae.py`: the posterior, equation (2);
3. `losses/mmd.py`: the objective, equation (3), on top of
4. `losses/analytic.py`: the bound with divergences in closed form, and with
5. `losses/discrepancies.py` and `losses/kernels.py`: the maximum mean discrepancy of a site;
6. `stories/triplet_tvae/recipes.py`: the hyper-parameters, and what is built of them, and
   `stories/triplet_tvae/plus.py`: those of the baseline;
7. `stories/triplet_tvae/batches.py`: triplets of images;
8. `stories/triplet_tvae/metrics.py`: what is measured, and what the predictive check hides;
9. `nets/conv.py`: the paper's networks;
10. `stories/triplet_tvae/figures.py`: its picture;
11. `stories/triplet_tvae/live.py`: what moves in its report.
"""
