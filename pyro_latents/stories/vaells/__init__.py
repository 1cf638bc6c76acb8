"""VAELLS of Connor et al. (2020).

Whoever wants to know it whole opens these files, in this order:

1. `models/vaells.py`: the generative process;
2. `guides/vaells.py`: its guides;
3. `stories/vaells/plan.py`: the objective, as a formula and as code, and the phases of training;
4. `losses/maximum.py`: sites that are marginalised by their maximum;
5. `losses/maximisers.py`: how a program is run at maxima;
6. `losses/likelihood.py`: the objective of the warm-up;
7. `transport/`: matrix exponentials, and the search for coefficients;
8. `training/plan.py`: what a plan can say;
9. `training/loop.py`: how it is carried out, with
10. `training/step.py`: the loss of a batch;
11. `stories/vaells/recipes.py`: the tables of the paper;
12. `stories/vaells/networks.py`, `batches.py`: what the model is built of and fed with;
13. `stories/vaells/metrics.py`, `paths.py`: what is measured;
14. `stories/vaells/ends.py`: what the predictive check hides.
"""
