"""raremix show coverage, and shares by name on the command line."""

import json

import pytest
from typer.testing import CliRunner

from raremix.cli import app
from raremix.cli.console import shares_by_name
from raremix.core.errors import UsageError


def test_coverage_of_samplers(tmp_path) -> None:
    asked = ["show", "coverage", "phantom", "--set", "data.images=80", "--set", "data.size=28", "--set"]
    asked += ["data.imbalance_ratio=4", "--set"]
    asked += ["data.classes=3", "-s", "natural", "-s", "label_balanced", "--cache", str(tmp_path), "--json"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["coverage"]
    assert list(found) == ["natural", "label_balanced"]
    assert found["natural"]["unseen"] == 0
    assert all(entry["drawn"] == entry["images"] for entry in found["natural"]["labels"])
    drawn = [entry["drawn"] for entry in found["label_balanced"]["labels"]]
    assert max(drawn) - min(drawn) < 0.2 * max(drawn)


def test_shares_by_name() -> None:
    assert shares_by_name(["a=0.1", "b=c=0.2"]) == {"a": 0.1, "b=c": 0.2}
    assert shares_by_name(None) == {}
    for text in ("a", "a=x", "=0.1"):
        with pytest.raises(UsageError, match="expected CLASS=SHARE"):
            shares_by_name([text])
