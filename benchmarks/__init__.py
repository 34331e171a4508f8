"""How fast it is, as ratios to what SQLMesh and Dagster take by themselves: ``make bench``. A module a subject; `rows` says what a row is."""
