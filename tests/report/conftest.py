"""What the report's tests share: made-up records, and a headless browser where there is one."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from tests.browser import browser

__all__ = ["browser"]


@pytest.fixture(scope="session")
def records() -> ModuleType:
    """The module of made-up records beside this file."""
    spec = importlib.util.spec_from_file_location("report_records", Path(__file__).with_name("records.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
