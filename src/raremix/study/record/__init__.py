"""From what jobs left to a study's record: every number, table and picture of the report."""
