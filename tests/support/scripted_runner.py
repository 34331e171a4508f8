"""A runner that writes the bytes that a test has prepared: run by any Python that has dagster-pipes.

Arguments: a file of bytes, in which @RUN@ stands for the id that the run is given; how to write them (`at once`, or a number: in
random pieces of up to so many bytes); the exit status.
"""

import os
import random
import sys
from pathlib import Path

from dagster_pipes import PipesDefaultContextLoader, PipesEnvVarParamsLoader


def main(path: str, pieces: str, status: str) -> int:
    loader = PipesDefaultContextLoader()
    with loader.load_context(PipesEnvVarParamsLoader().load_context_params()) as context:
        run_id = context["extras"]["sqlmesh_pipes"]["run_id"]
    rest = memoryview(Path(path).read_bytes().replace(b"@RUN@", run_id.encode()))
    chance = random.Random(path)
    while rest:
        piece = len(rest) if pieces == "at once" else chance.randint(1, int(pieces))
        rest = rest[os.write(1, rest[:piece]) :]
    return int(status)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
