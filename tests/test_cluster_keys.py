"""The keys of Spark that the README explains are keys that the installed Spark and Hadoop know."""

import re
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Where keys are declared; other jars only use them.
JARS = ("spark-core", "spark-catalyst", "spark-yarn", "spark-kubernetes")
# Keys with a part of the user's own: what comes before it, and what may come after.
OPEN = {
    "spark.yarn.appMasterEnv.": "",
    "spark.executorEnv.": "",
    "spark.kubernetes.driver.volumes.": "persistentVolumeClaim mount.path options.claimName",
    "spark.kubernetes.executor.volumes.": "persistentVolumeClaim mount.path options.claimName",
}
# Keys that the code of Spark puts together, in its parts; \x01 is where the JVM puts the other one.
COMPOSED = {
    "spark.kubernetes.authenticate.driver.serviceAccountName": (
        "spark.kubernetes.authenticate.driver",
        "\x01.serviceAccountName",
    )
}


@pytest.fixture(scope="module")
def explained() -> set[str]:
    """The keys in the section of the README, without values."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^## On a cluster\n(.*?)^## ", readme, re.MULTILINE | re.DOTALL)
    return set(re.findall(r"(?<![\w.-])spark(?:\.[A-Za-z][\w-]*)+", section))


@pytest.fixture(scope="module")
def jars() -> Path:
    """The folder with the jars of the installed Spark."""
    spec = find_spec("pyspark")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "jars"


@pytest.fixture(scope="module")
def classes(jars: Path) -> bytes:
    """The class files of Spark, end to end."""
    paths = [path for name in JARS for path in jars.glob(f"{name}_*.jar")]
    assert len(paths) == len(JARS)
    found = []
    for path in paths:
        with zipfile.ZipFile(path) as jar:
            found += [jar.read(name) for name in jar.namelist() if name.endswith(".class")]
    return b"".join(found)


@pytest.fixture(scope="module")
def hadoop(jars: Path) -> set[str]:
    """The keys with a default in Hadoop."""
    (path,) = jars.glob("hadoop-client-api-*.jar")
    with zipfile.ZipFile(path) as jar:
        text = jar.read("core-default.xml").decode()
    return set(re.findall(r"<name>([^<]+)</name>", text))


def is_constant(text: str, classes: bytes) -> bool:
    """Return whether a class has this text, and no longer one, among its constants."""
    octets = text.encode()
    return b"\x01" + len(octets).to_bytes(2, "big") + octets in classes


def test_every_key_is_known(explained: set[str], classes: bytes, hadoop: set[str]) -> None:
    assert len(explained) > 20
    unknown = set()
    for key in explained:
        if key.startswith("spark.hadoop."):
            is_known = key.removeprefix("spark.hadoop.") in hadoop
        elif prefix := next((prefix for prefix in OPEN if key.startswith(prefix)), ""):
            parts = [part for part in OPEN[prefix].split() if part in key]
            is_known = all(is_constant(part, classes) for part in (prefix, *parts))
            is_known = is_known and len(parts) == (2 if OPEN[prefix] else 0)
        else:
            is_known = all(is_constant(part, classes) for part in COMPOSED.get(key, (key,)))
        if not is_known:
            unknown.add(key)
    assert unknown == set()


@pytest.mark.parametrize(
    "key", ["spark.executor.memoryOverhed", "spark.executor.memoryOver", "spark.yarn.arch"]
)
def test_a_slip_or_a_part_is_no_key(key: str, classes: bytes) -> None:
    assert not is_constant(key, classes)


def test_every_key_is_explained_in_a_table(explained: set[str]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(spark\.[\w.-]+)` \| \S", readme, re.MULTILINE)
    named = {key for key in explained if not key.endswith("options.claimName")}
    assert named - set(rows) == set()
