"""What is told of a training where nobody watches: a few lines."""

from pyro_latents.training.report import LINES, Report


def lines_of(capsys, steps, per_epoch, done=0):
    report = Report(True, done, steps)
    for number, step in enumerate(range(done + per_epoch, steps + 1, per_epoch), start=1):
        report.epoch({"epoch": number, "step": step, "loss": 1.0, "validation_loss": None})
    report.close()
    return [int(line.split(",")[0].split()[1]) for line in capsys.readouterr().err.splitlines()]


def test_a_long_training_tells_a_few_epochs_the_first_and_the_last(capsys):
    told = lines_of(capsys, steps=1_000, per_epoch=5)
    assert told[0] == 1
    assert told[-1] == 200
    assert LINES <= len(told) <= LINES + 2


def test_a_short_one_tells_all(capsys):
    assert lines_of(capsys, steps=30, per_epoch=10) == [1, 2, 3]


def test_one_that_goes_on_tells_the_first_of_its_own(capsys):
    told = lines_of(capsys, steps=1_000, per_epoch=10, done=900)
    assert told[0] == 1
    assert len(told) <= 3
