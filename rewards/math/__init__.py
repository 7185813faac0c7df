"""Does a completion's final answer equal the gold answer? `verify.py` is the way in, README.md tells the rules."""
