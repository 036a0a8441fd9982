"""Looks up known vulnerabilities of what is installed beside a pip-audit: audit.py PIP_AUDIT.

Exits with 0 when there are none, 1 when there are some, and 3 when the service did not say: it
could not be reached, or it does not know a package. pip-audit itself ends with 0 in the last case.
"""

import json
import subprocess
import sys

OWN = "curation"  # installed from this folder; no index has it
UNKNOWN = 3


def main() -> int:
    """Say what is vulnerable, or why that is not known."""
    command = [sys.argv[1], "--local", "--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:
        cause = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        return _say(
            f"not audited: {command[0]} ended with {done.returncode}: {cause}\n"
            "It asks the JSON interface of PyPI; run it again where that can be reached.",
            UNKNOWN,
        )
    unknown = [package for package in packages if "skip_reason" in package]
    unknown = [package for package in unknown if package["name"] != OWN]
    found = [(package, flaw) for package in packages for flaw in package.get("vulns", ())]
    for package, flaw in found:
        fixed = ", ".join(flaw["fix_versions"]) or "no version"
        _say(f"{package['name']} {package['version']}: {flaw['id']}, fixed in {fixed}", 1)
    if unknown:
        return _say(
            f"not audited: {len(unknown)} of {len(packages)} packages, the first is "
            f"{unknown[0]['name']}: {unknown[0]['skip_reason']}\n"
            "A mirror of PyPI may not pass vulnerabilities on; run it again without the mirror.",
            1 if found else UNKNOWN,
        )
    return 1 if found else _say(f"{len(packages)} packages, no known vulnerability", 0)


def _say(text: str, code: int) -> int:
    (sys.stderr if code else sys.stdout).write(text + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
