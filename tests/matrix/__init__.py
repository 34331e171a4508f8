"""The contract suite, over releases of SQLMesh and of Dagster: ``make matrix``.

The contract suite is what has to hold whichever releases meet:

- for each SQLMesh, the runner's tests and the protocol's, in an environment with that SQLMesh and no Dagster;
- for each Dagster, the orchestrator's tests and the protocol's, in an environment with that Dagster and no SQLMesh;
- for each pair, both end to end on DuckDB: every situation of ``tests/behaviour``, and of ``tests/integration`` what needs no Docker
  and is about SQLMesh and Dagster rather than about launchers;
- for each other release of this project, a runner of one under an orchestrator of the other, both ways.

The oldest releases are the lower bounds in pyproject.toml, and with them stands all that this project asks for at its own lower bound;
the newest are what the index has. The other release of this project is the tree with its versions raised, and with what such a
release may add to the protocol: see `matrix.releases`. Once releases are published, one of them can stand there as well.
"""
