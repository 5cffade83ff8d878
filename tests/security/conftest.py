"""A headless browser, where there is one."""

from tests.browser import browser

__all__ = ["browser"]
