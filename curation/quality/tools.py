"""The programs that train models: fastText's and KenLM's own, built from the sources on PyPI.

    python -m curation.quality.tools kenlm       lmplz and build_binary; needs cmake and boost
    python -m curation.quality.tools fasttext    fasttext; needs g++ alone

They are put beside the Python that runs this, where `find_tool` looks first. The Python packages of
both can score but not (KenLM), or not under NumPy 2 (fastText), train.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from curation.errors import ArtifactInvalid, ConfigError, PrerequisiteMissing

FASTTEXT_THREADS = 10

SOURCES = {"kenlm": "kenlm==0.3.0", "fasttext": "fasttext==0.9.3"}
TOOLS = {"lmplz": "kenlm", "build_binary": "kenlm", "fasttext": "fasttext"}
TARGETS = {"kenlm": "make kenlm-tools", "fasttext": "make fasttext-tool"}
APT = {
    "kenlm": "cmake g++ libboost-program-options-dev libboost-system-dev libboost-thread-dev "
    "libboost-test-dev zlib1g-dev",
    "fasttext": "g++",
}


def find_tool(name: str) -> Path:
    """Return the path of a program of TOOLS: beside this Python, or on PATH.

    Raises PrerequisiteMissing, which says how to build it.
    """
    beside = Path(sys.executable).parent / name
    if os.access(beside, os.X_OK):
        return beside
    found = shutil.which(name)
    if found is None:
        package = TOOLS[name]
        raise PrerequisiteMissing(
            f"the program {name} is neither beside {sys.executable} nor on PATH; build it: "
            f"{TARGETS[package]}, or python -m curation.quality.tools {package}"
        )
    return Path(found)


def build(package: str, to: Path) -> None:
    """Fetch the source of a package through pip, build its programs, put them into a folder.

    Raises PrerequisiteMissing naming what to install. Cost: fasttext 10 s, kenlm a minute a core.
    """
    compiler = os.environ.get("CXX", "g++")
    for program in (compiler, "cmake") if package == "kenlm" else (compiler,):
        if shutil.which(program) is None:
            raise PrerequisiteMissing(
                f"{program} is needed to build {package}; Debian, Ubuntu: sudo apt-get install "
                f"{APT[package]}"
            )
    with tempfile.TemporaryDirectory(prefix=f"curation-{package}-") as name:
        folder = Path(name)
        source = _fetch(package, folder)
        commands: list[Sequence[str]] = []
        if package == "fasttext":
            files = sorted(map(str, source.glob("src/*.cc")))
            commands.append([compiler, "-O3", "-std=c++17", "-pthread", *files, "-o", "fasttext"])
        else:
            options = ["-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_POLICY_VERSION_MINIMUM=3.5"]
            programs = [tool for tool, of in TOOLS.items() if of == package]
            jobs = str(os.cpu_count() or 1)
            commands.append(["cmake", "-S", ".", "-B", "build", *options])
            commands.append(["cmake", "--build", "build", "-j", jobs, "--target", *programs])
        for command in commands:
            done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
                raise PrerequisiteMissing(
                    f"building {package} failed at `{' '.join(command[:2])} ...`:\n{last}\n"
                    f"Debian, Ubuntu: sudo apt-get install {APT[package]}"
                )
        for tool in (tool for tool, of in TOOLS.items() if of == package):
            built = source / ("build/bin" if package == "kenlm" else "") / tool
            unfinished = to / f".{tool}.unfinished"
            shutil.copyfile(built, unfinished)
            unfinished.chmod(0o755)
            unfinished.replace(to / tool)


def _fetch(package: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--no-binary", package, "--dest", str(folder), SOURCES[package]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(folder.glob("*.tar.gz"))
    if done.returncode != 0 or not archives:
        raise PrerequisiteMissing(
            f"pip could not fetch the source of {SOURCES[package]}: {done.stderr.strip()[-500:]}"
        )
    with tarfile.open(archives[0]) as archive:
        archive.extractall(folder, filter="data")
    return next(path for path in folder.iterdir() if path.is_dir())


def train_fasttext(
    program: Path, lines: Path, to: Path, options: Mapping[str, int | float]
) -> None:
    """Train a supervised model on labelled lines: `to`.bin. Raises ArtifactInvalid with its words.

    Always in ten threads: version 0.9.3 fills a tenth of its input matrix a thread.
    """
    fixed = {"loss": "softmax", "thread": FASTTEXT_THREADS, "verbose": 0}
    command = [str(program), "supervised", "-input", str(lines), "-output", str(to)]
    for option, value in {**options, **fixed}.items():
        command += [f"-{option}", str(value)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise ArtifactInvalid(
            f"fastText ended with {done.returncode}: {said[-1] if said else 'no message'}; lower "
            "the learning rate where it says NaN, or give it more texts"
        )


def check_numbers(settings: object, bounds: Sequence[tuple[str, float, float]]) -> None:
    """Raise ConfigError for a number of `settings` outside its bounds: (name, lowest, highest)."""
    for name, low, high in bounds:
        value = getattr(settings, name)
        if not low <= value <= high:
            raise ConfigError(f"{name} is {value!r}; it must be between {low:g} and {high:g}")


def main() -> None:
    """Build the programs of the packages that the arguments name."""
    wanted = sys.argv[1:]
    if not wanted or not set(wanted) <= set(SOURCES):
        sys.exit(f"usage: python -m curation.quality.tools {'|'.join(SOURCES)} ...")
    to = Path(sys.executable).parent
    for package in wanted:
        try:
            build(package, to)
        except PrerequisiteMissing as error:
            sys.exit(f"error: {error}")
        sys.stderr.write(f"{package}: built into {to}\n")


if __name__ == "__main__":
    main()
