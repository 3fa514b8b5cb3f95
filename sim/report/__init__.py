"""Reports of served runs: numbers, timelines, traces for Perfetto and a page that compares policies."""

from .perfetto import write_trace
from .reader import read_story
from .report import write_report
from .results import write_results
from .story import Story, StoryError
from .timeline import draw_timeline

__all__ = ["Story", "StoryError", "draw_timeline", "read_story", "write_report", "write_results", "write_trace"]
