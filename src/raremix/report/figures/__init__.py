"""The report's figures: pure functions from the record to inline SVG, drawn in the page's own colours."""
