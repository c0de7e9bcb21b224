"""The experiments, each of which fills one or more rows of the table."""
