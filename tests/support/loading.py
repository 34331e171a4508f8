"""A job from a file that a test wrote, in whatever process Dagster wants it."""

import runpy

import dagster as dg


def load_job(path: str) -> dg.JobDefinition:
    return runpy.run_path(path)["job"]()
