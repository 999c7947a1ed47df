"""Constraints for pip: one end of the ranges in setup.py.

python scripts/range_constraints.py lowest|newest PACKAGE ...
    `lowest` fixes each package at the lower bound of its range, `newest` leaves the range.
"""

import re
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SETUP = Path(__file__).resolve().parents[1] / "setup.py"


def ranges(text: str) -> dict[str, Requirement]:
    """The requirements with a range in the text of setup.py, by name."""
    found = {}
    for quoted in re.findall(r'"([A-Za-z][\w.-]*(?:[<>=!~]=?[\w.]+,?)+)"', text):
        requirement = Requirement(quoted)
        found.setdefault(canonicalize_name(requirement.name), requirement)
    return found


def constraint(requirement: Requirement, end: str) -> str:
    """A line for pip's `--constraint`."""
    if end == "newest":
        return str(requirement)
    lower = [one.version for one in requirement.specifier if one.operator == ">="]
    if len(lower) != 1:
        raise SystemExit(f"{requirement}: expected one lower bound")
    return f"{requirement.name}=={lower[0]}"


def main(arguments: list[str]) -> None:
    """Write the constraints of the named packages."""
    if len(arguments) < 2 or arguments[0] not in ("lowest", "newest"):
        raise SystemExit(__doc__)
    known = ranges(SETUP.read_text(encoding="utf-8"))
    for name in arguments[1:]:
        if canonicalize_name(name) not in known:
            raise SystemExit(f"setup.py has no range of {name}")
        sys.stdout.write(constraint(known[canonicalize_name(name)], arguments[0]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
