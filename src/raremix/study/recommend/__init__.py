"""What to run on data that nobody described: a look, a fingerprint, the table of rules, and the plan that follows."""
