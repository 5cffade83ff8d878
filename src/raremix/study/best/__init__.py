"""A study run to one answer: the simplest arm within one standard error of the best, judged once."""
