"""``make fuzz``: the targets of `support.fuzzing`, by atheris where it is installed, else by hypothesis, for a given time.

A finding ends the target with status 1, and its input is kept in the folder that is printed.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
OURS = ["sqlmesh_pipes_protocol", "dagster_sqlmesh_pipes"]
MAX_INPUT = 65_536


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*")
    parser.add_argument(
        "--seconds", type=int, default=600, help="for all targets together, on each processor"
    )
    parser.add_argument("--engine", choices=["atheris", "hypothesis"], default=_best())
    parser.add_argument("--folder", type=Path, default=Path(".fuzz"), help="where inputs are kept")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if asked.inside:
        return _by_atheris(asked.inside, asked.folder, asked.seconds)
    from support import fuzzing

    targets = asked.targets or list(fuzzing.TARGETS)
    seconds = max(asked.seconds * asked.jobs // len(targets), 1)
    run = _spawned if asked.engine == "atheris" else _by_hypothesis
    with ThreadPoolExecutor(asked.jobs if asked.engine == "atheris" else 1) as pool:
        statuses = list(pool.map(lambda target: run(target, asked.folder, seconds), targets))
    return max(statuses)


def _best() -> str:
    try:
        import atheris  # type: ignore[import-not-found, unused-ignore]  # noqa: F401 - installed by `make fuzz`
    except ImportError:
        return "hypothesis"
    return "atheris"


def _spawned(target: str, folder: Path, seconds: int) -> int:
    """In a process of its own: libFuzzer ends the one that it is in."""
    done = subprocess.run(
        [sys.executable, __file__, "--inside", target, "--folder", str(folder), "--seconds", str(seconds)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    count = re.findall(r"stat::number_of_executed_units:\s*(\d+)|^Done (\d+) runs", done.stderr, re.M)
    number = max((int(a or b) for a, b in count), default=0)
    edges = re.findall(r"cov: (\d+)", done.stderr)
    print(
        f"{target}: {number:,} executions in {seconds} s by atheris, {edges[-1] if edges else 0} edges",
        flush=True,
    )
    if done.returncode:
        print(done.stderr[-6_000:], flush=True)
        print(f"{target}: see {folder / target}", flush=True)
    return int(done.returncode != 0)


def _by_atheris(target: str, folder: Path, seconds: int) -> int:
    import atheris  # type: ignore[import-not-found, unused-ignore]

    with atheris.instrument_imports(include=OURS):
        from support import fuzzing

    corpus = folder / target / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    wrapped = b'{"__dagster_pipes_version":"0.1","method":"report_custom_message","params":{"payload":%b}}'
    lines = fuzzing.golden_lines()
    seeds = [
        b"\n".join(lines),
        *fuzzing.golden_documents(),
        *lines,
        b"\n".join(wrapped % line for line in lines),
    ]
    for number, seed in enumerate(seeds):
        (corpus / f"golden-{number}").write_bytes(seed)
    arguments = [
        f"-max_total_time={seconds}",
        f"-max_len={MAX_INPUT}",
        f"-artifact_prefix={folder / target}/",
        "-print_final_stats=1",
        "-timeout=10",
        "-rss_limit_mb=3000",
        str(corpus),
    ]
    atheris.Setup([sys.argv[0], *arguments], fuzzing.TARGETS[target])
    atheris.Fuzz()
    return 0


def _by_hypothesis(target: str, folder: Path, seconds: int) -> int:
    from hypothesis import HealthCheck, given, settings

    from support import fuzzing
    from support.mutations import INPUTS

    deadline, count = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:

        @settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(INPUTS[target])
        def holds(data: bytes) -> None:
            nonlocal count
            count += 1
            try:
                fuzzing.TARGETS[target](data)
            except BaseException:
                (folder / target).mkdir(parents=True, exist_ok=True)
                (folder / target / "finding").write_bytes(data)  # the last one is the smallest
                raise

        try:
            holds()
        except Exception:  # noqa: BLE001 - whatever it is, it is the finding
            import traceback

            traceback.print_exc()
            print(f"{target}: {count:,} executions by hypothesis, a finding in {folder / target}", flush=True)
            return 1
    print(f"{target}: {count:,} executions in {seconds} s by hypothesis", flush=True)
    return 0


if __name__ == "__main__":
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "yes"
    sys.exit(main())
