"""Partition keys: a partition is an output dataset, and each finished job is a new version of one."""

from urllib.parse import quote, unquote

# Dagster refuses "..." (it separates the ends of a range) and control characters; the percent sign is the escape
# character of this rule, so that two datasets never share a key.
_SAFE = "/ !$&'()*+,:;=@~"


def partition_key(dataset: str) -> str:
    """The dataset's name, percent-quoted where Dagster could not take it. Different names give different keys."""
    return quote(dataset, safe=_SAFE).replace("...", "%2E%2E%2E")


def dataset_name(key: str) -> str:
    """The dataset that `partition_key` made `key` of."""
    return unquote(key)
