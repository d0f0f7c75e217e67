"""Pages that people look at. Pure: what was recorded goes in, Markdown comes out."""

from prefect_mlops.flows._pages.comparison import comparison_page
from prefect_mlops.flows._pages.data import data_page
from prefect_mlops.flows._pages.lineage import lineage_page
from prefect_mlops.flows._pages.markdown import plain, section, table
from prefect_mlops.flows._pages.model_tests import verdicts_page
from prefect_mlops.flows._pages.release import command, in_words, release_page, served

__all__ = [
    "command",
    "comparison_page",
    "data_page",
    "in_words",
    "lineage_page",
    "plain",
    "release_page",
    "section",
    "served",
    "table",
    "verdicts_page",
]
