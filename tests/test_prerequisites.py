"""The check that comes before anything else, run on machines made of stand-in programs."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / ".ci" / "prerequisites.sh"

APT_JAVA = "sudo apt-get install openjdk-17-jre-headless"
DNF_JAVA = "sudo dnf install java-21-openjdk-headless"
BREW_JAVA = "brew install openjdk@21"


class Machine:
    """A PATH with stand-ins for the programs that the check asks for their version."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        sed = shutil.which("sed")
        assert sed is not None
        (self.bin / "sed").symlink_to(sed)
        self.add("python3", "echo 3.11")
        self.add("java", java("17.0.15"))
        self.add("g++", "exit 0")

    def add(self, name: str, body: str, folder: Path | None = None) -> None:
        path = (folder or self.bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def remove(self, name: str) -> None:
        (self.bin / name).unlink()

    def check(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", str(SCRIPT)],
            env={"PATH": str(self.bin), **environment},
            capture_output=True,
            text=True,
        )


def java(version: str) -> str:
    """Answer as `java -version` does: on standard error, the version quoted."""
    return f"""echo 'openjdk version "{version}" 2025-04-15' >&2"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_complete_machine_passes_in_silence(machine: Machine) -> None:
    done = machine.check()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_missing_java_is_named_with_the_commands_that_install_it(machine: Machine) -> None:
    machine.remove("java")
    done = machine.check()
    assert done.returncode == 1
    assert "Java 17 or 21 is needed" in done.stderr
    for command in (APT_JAVA, DNF_JAVA, BREW_JAVA):
        assert command in done.stderr
    assert "Python" not in done.stderr
    assert "g++" not in done.stderr


@pytest.mark.parametrize("version", ["17", "17.0.15", "21.0.2", "21-ea"])
def test_accepted_java(machine: Machine, version: str) -> None:
    machine.add("java", java(version))
    assert machine.check().returncode == 0


@pytest.mark.parametrize("version", ["1.8.0_402", "11.0.22", "16.0.2", "18", "25-ea", "170.1"])
def test_refused_java_is_named_with_its_version(machine: Machine, version: str) -> None:
    machine.add("java", java(version))
    done = machine.check()
    assert done.returncode == 1
    assert f"'java' is {version}" in done.stderr
    assert APT_JAVA in done.stderr


def test_java_options_in_the_environment_do_not_confuse(machine: Machine) -> None:
    machine.add("java", "echo 'Picked up JAVA_TOOL_OPTIONS: -Xmx1g' >&2\n" + java("21.0.2"))
    assert machine.check().returncode == 0


def test_java_home_comes_before_path(machine: Machine, tmp_path: Path) -> None:
    home = tmp_path / "a java"
    machine.add("java", java("11.0.22"), home / "bin")
    done = machine.check(JAVA_HOME=str(home))
    assert done.returncode == 1
    assert f"JAVA_HOME is {home}" in done.stderr

    machine.remove("java")
    machine.add("java", java("21.0.2"), home / "bin")
    assert machine.check(JAVA_HOME=str(home)).returncode == 0


def test_java_home_without_java_is_refused(machine: Machine, tmp_path: Path) -> None:
    done = machine.check(JAVA_HOME=str(tmp_path / "none"))
    assert done.returncode == 1
    assert f"'{tmp_path / 'none'}/bin/java' does not run" in done.stderr


def test_macos_stand_in_for_java_counts_as_missing(machine: Machine) -> None:
    """macOS has a /usr/bin/java that only says that there is none."""
    machine.add("java", "echo 'Unable to locate a Java Runtime.' >&2; exit 1")
    done = machine.check()
    assert done.returncode == 1
    assert "'java' does not run" in done.stderr


@pytest.mark.parametrize("version", ["2.7", "3.9", "3.10"])
def test_old_python_is_named_with_its_version(machine: Machine, version: str) -> None:
    machine.add("python3", f"echo {version}")
    done = machine.check()
    assert done.returncode == 1
    assert f"'python3' is {version}" in done.stderr
    assert "Python 3.11 or newer" in done.stderr


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.20"])
def test_new_python_passes(machine: Machine, version: str) -> None:
    machine.add("python3", f"echo {version}")
    assert machine.check().returncode == 0


def test_another_python_can_be_named(machine: Machine) -> None:
    machine.remove("python3")
    machine.add("python3.12", "echo 3.12")
    assert "'python3' does not run" in machine.check().stderr
    assert machine.check(PYTHON="python3.12").returncode == 0


def test_python_without_venv_is_named(machine: Machine) -> None:
    machine.add("python3", 'case "$2" in *ensurepip*) exit 1;; esac; echo 3.11')
    done = machine.check()
    assert done.returncode == 1
    assert "sudo apt-get install python3-venv" in done.stderr


def test_everything_missing_is_reported_at_once(machine: Machine) -> None:
    for program in ("python3", "java", "g++"):
        machine.remove(program)
    done = machine.check()
    assert done.returncode == 1
    for named in ("Python 3.11 or newer", "Java 17 or 21", "g++ is needed", "xcode-select"):
        assert named in done.stderr
