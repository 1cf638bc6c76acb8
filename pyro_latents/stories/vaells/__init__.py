"""VAELLS of Connor et al. (2020).

Whoever wants to know it whole opens these files, in this order:

1. `models/vaells.py`: the generative process;
2. `guides/vaells.py`: its guides, with `transport/` (exponentials, search for coefficients);
3. `stories/vaells/plan.py`: the objective, as a formula and as code, and the phases of training;
4. `losses/maximum.py`: sites that are marginalised by their maximum;
5. `losses/maximisers.py`: how a program is run at maxima;
6. `losses/likelihood.py`: the objective of the warm-up;
7. `training/plan.py`: what a plan can say;
8. `training/steps.py`: how a step is taken, with
9. `training/step.py`: the loss of a batch;
10. `stories/story.py`: what a story has to build;
11. `stories/vaells/recipes.py`: what is built, and the tables of the paper;
12. `stories/vaells/images.py`, `nets/mlp.py`: networks, and turned digits;
13. `distributions/likelihoods.py`: what the decoder's output means;
14. `stories/vaells/fit.py`: the prior's width and rate by likelihood, an option.

What is measured of it is in `stories/vaells/metrics.py`, with the estimate of the paper's table
and the evidence in `stories/vaells/likelihood.py`, by the proposal of `guides/vaells_evidence.py`;
its pictures are in `stories/vaells/figures.py`, and what moves in its report in
`stories/vaells/live.py`.
"""
