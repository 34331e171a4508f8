"""Reports of a run, made while it runs or later from its events."""

from sqlmesh_pipes_runner.reports.github import github
from sqlmesh_pipes_runner.reports.junit import junit
from sqlmesh_pipes_runner.reports.markdown import markdown
from sqlmesh_pipes_runner.reports.story import Story, read_story
from sqlmesh_pipes_runner.reports.summary import summary
from sqlmesh_pipes_runner.reports.table import table

__all__ = ["Story", "github", "junit", "markdown", "read_story", "summary", "table"]
