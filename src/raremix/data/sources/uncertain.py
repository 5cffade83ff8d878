"""What an uncertain finding (-1) counts as.

Reports say "cannot be excluded" and "possibly"; CheXpert [1] writes -1 for it and compares what to make of it: leave it
out (U-Ignore), negative (U-Zeros) or positive (U-Ones). No choice is best for every finding: there, ones served
atelectasis and oedema, so a table may name one policy per finding.

[1] Irvin et al., CheXpert, AAAI 2019, https://arxiv.org/abs/1901.07031
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from raremix.core.errors import UnknownNameError

Policy = Literal["ignore", "zeros", "ones", "empty", "negative", "positive"]
Uncertain = Policy | Mapping[str, Policy] | None

VALUES: Mapping[str, float] = {
    "ignore": float("nan"),
    "empty": float("nan"),
    "zeros": 0.0,
    "negative": 0.0,
    "ones": 1.0,
    "positive": 1.0,
}


def uncertain_values(policy: Uncertain, labels: Sequence[str]) -> dict[str, float | None]:
    """Return what -1 counts as for each finding, or None where nothing was said.

    Args:
        policy: one name for all findings, or one for each.
        labels: the findings.

    Raises:
        UnknownNameError: for a finding that there is not.

    Example:
        >>> uncertain_values({"Edema": "ones"}, ["Edema", "Fracture"])
        {'Edema': 1.0, 'Fracture': None}
    """
    if policy is None or isinstance(policy, str):
        return dict.fromkeys(labels, None if policy is None else VALUES[policy])
    for name in policy:
        if name not in labels:
            raise UnknownNameError("finding in uncertain", name, labels)
    return {name: VALUES[policy[name]] if name in policy else None for name in labels}
