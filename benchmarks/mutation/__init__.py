"""The mutation check: which share of small faults in the numeric code of a room do the tests notice?

A *mutant* is the package with one fault put in (a sign, a bound, a constant, an axis). The tests *kill* it if one of them fails, crashes or
takes far too long on it. A mutant that lives is either equivalent (no test could tell it from the original) or a gap in the tests:
`survivors.toml` gives a reason for each that is kept, and every other one counts against.

    python -m benchmarks.mutation --rooms noise --count 200

`mutants.py` makes the faults, `overlay.py` puts one into a running process, `coverage.py` says which tests reach which statement,
`server.py` is a process that has everything imported and forks a child for every mutant, `campaign.py` hands out the work, and
`summary.py` counts.
"""
