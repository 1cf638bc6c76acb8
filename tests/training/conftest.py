# A program that a test starts, which is no module to look for examples in.
collect_ignore = ["program_on_two_ranks.py"]
