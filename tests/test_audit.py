"""The audit of what is installed, with a stand-in for pip-audit."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / ".ci" / "audit.py"

CLEAN = {"name": "numpy", "version": "2.4.0", "vulns": []}
OWN = {"name": "curation", "skip_reason": "distribution marked as editable"}
FLAWED = {
    "name": "urllib3",
    "version": "1.24.1",
    "vulns": [{"id": "PYSEC-2019-133", "fix_versions": ["1.24.2"]}],
}
UNKNOWN = {"name": "attrs", "skip_reason": "Dependency not found on PyPI"}


def audit(folder: Path, answer: str, code: int = 0, error: str = "") -> tuple[int, str]:
    """Return the exit code, and what was said, when pip-audit answers like this."""
    program = folder / "pip-audit"
    program.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"sys.stdout.write({answer!r})\nsys.stderr.write({error!r})\nsys.exit({code})\n"
    )
    program.chmod(0o755)
    done = subprocess.run([sys.executable, SCRIPT, program], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def answer(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def test_nothing_known(tmp_path: Path) -> None:
    assert audit(tmp_path, answer(CLEAN, OWN)) == (0, "2 packages, no known vulnerability\n")


def test_a_flaw_is_named_with_the_version_that_mends_it(tmp_path: Path) -> None:
    assert audit(tmp_path, answer(CLEAN, FLAWED), code=1) == (
        1,
        "urllib3 1.24.1: PYSEC-2019-133, fixed in 1.24.2\n",
    )


@pytest.mark.parametrize(("others", "code"), [([CLEAN], 3), ([FLAWED], 1)])
def test_a_package_that_nobody_knows_is_no_pass(
    tmp_path: Path, others: list[Any], code: int
) -> None:
    found, said = audit(tmp_path, answer(UNKNOWN, *others))
    assert found == code
    assert "not audited: 1 of 2 packages, the first is attrs: Dependency not found" in said


def test_a_service_out_of_reach_is_no_trace(tmp_path: Path) -> None:
    error = "Traceback (most recent call last):\n  ...\nConnectionError: cannot resolve the host"
    code, said = audit(tmp_path, "", code=1, error=error)
    assert code == 3
    assert "ended with 1: ConnectionError: cannot resolve the host" in said
    assert "run it again where that can be reached" in said
