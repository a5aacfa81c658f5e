"""The tag rule layer: rule packs derive candidate tags from facts, guards decide which are kept, and say why.

Start at `pack.py` (what a rule is), `predicate.py` (its language), `engine.py` (derive), `guards.py` (decide),
`apply.py` (the two together) and `commands.py` (what the command line calls).
"""
