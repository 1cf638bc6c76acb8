"""The triplet TVAE of Giannone et al. (2019), and its baseline VAE+.

Whoever wants to know it whole opens these files, in this order:

1. `models/triplet_tvae.py`: the generative process, equation (1);
2. `models/latent_transformations.py`: how a code is transformed;
3. `guides/triplet_tvae.py`: the posterior, equation (2);
4. `losses/mmd.py`: the objective, equation (3), on top of
5. `losses/analytic.py`: the bound with divergences in closed form, with
6. `losses/copied.py`: the indirect coherence terms, and
7. `losses/kernels.py`: the maximum mean discrepancy;
8. `stories/triplet_tvae/recipes.py`: the hyper-parameters, and what is built of them;
9. `stories/triplet_tvae/batches.py`: triplets of images;
10. `stories/triplet_tvae/metrics.py`: codes of single images, and what neighbours make of them;
11. `stories/triplet_tvae/hidden_view.py`: what the predictive check hides;
12. `nets/conv.py`: the paper's networks.
"""
