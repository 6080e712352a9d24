"""One file a command: ``verify.py`` with a function ``command`` is ``toolkit verify``; with an ``app``, a group.

Each command imports what it needs when it runs: torch, datasets and others take seconds that ``--help`` can do without.
"""
