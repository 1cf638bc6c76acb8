"""The pose-u T-VAE and DTVAE of Vivé's thesis.

Whoever wants to know it whole opens these files, in this order:

1. `models/pose_tvae.py`: the generative process, section II;
2. `warps/`: the spatial transformers, affine and by splines;
3. `distributions/pose_priors.py`: the priors of the pose, sections IV and V.iii;
4. `guides/pose_tvae.py`: the posteriors of the T-VAE and the DTVAE;
5. `guides/pose_search.py` and `guides/pose_polar.py`: full turns, by a search and without one,
   which the thesis does not have;
6. `losses/analytic.py`: the bound, equation (9);
7. `nets/mlp.py`: dense networks;
8. `stories/pose_tvae/recipes.py`: the hyper-parameters, and what is built of them;
9. `stories/pose_tvae/metrics.py`: what is measured;
10. `stories/pose_tvae/figures.py`: its picture;
11. `stories/pose_tvae/live.py`: what moves in its report.
"""
