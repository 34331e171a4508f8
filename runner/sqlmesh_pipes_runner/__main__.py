"""``python -m sqlmesh_pipes_runner`` is ``sqlmesh-runner``."""

from sqlmesh_pipes_runner.cli import main

main()
