"""The EquiVAE of Feige (2019), with all labels and with few.

Whoever wants to know it whole opens these files, in this order:

1. `models/equivae.py`: the generative process, equation (1), on the codes of
   `nets/sets.py`, equation (2);
2. `guides/equivae.py`: the posterior, equations (3) and (5);
3. `stories/equivae/objective.py`: the bounds, equations (4), (6) and (7), on top of
4. `losses/analytic.py`: the bound with divergences in closed form, and
5. `losses/enumeration.py`: the bound with classes summed exactly;
6. `stories/equivae/recipes.py`: the hyper-parameters, and what is built of them;
7. `stories/equivae/semi_supervised.py`: the same with few labels, and the schedule of its terms;
8. `stories/equivae/batches.py`: complementary sets, and batches of both kinds of points;
9. `stories/equivae/networks.py`: the convolutional networks, which the paper does not give;
10. `stories/equivae/metrics.py`: what is measured, with classifiers by distances and by networks;
11. `stories/equivae/figures.py`: its picture;
12. `stories/equivae/live.py`: what moves in its report.
"""
