"""What a release takes of a lake: tokens by component, stratum and host, and how often."""

from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure

from curation.engine.lake import Lake
from curation.engine.pictures import figure
from curation.engine.report import draw_mixture
from curation.errors import NotCommitted
from curation.tokens.shards import ACCOUNT_WORDS, TRAIN

if TYPE_CHECKING:
    import duckdb

# What a document takes in a shard: its tokens, and the one that ends it.
SIZE = "(num_tokens + 1)"
TAKEN = f"(copies * {SIZE} + partial_tokens)"


def releases(lake: Lake) -> list[str]:
    """Return the releases that were made of a lake; raises NotCommitted for none."""
    names = [record.dump for record in lake.records("release")]
    if not names:
        raise NotCommitted(
            f"{lake.path} has no release; make one with: curation run CONFIG --release NAME"
        )
    return names


def account(lake: Lake, release: str) -> pd.DataFrame:
    """Return where the tokens of a lake went, as the release counted them."""
    records = [record for record in lake.records("release") if record.dump == release]
    counts = records[0].counts.get("account", {}) if records else {}
    rows = [(words, counts[name]) for name, words in ACCOUNT_WORDS.items() if counts.get(name)]
    return pd.DataFrame(rows, columns=["tokens", "num_tokens"])


def by_component(connection: "duckdb.DuckDBPyConnection", release: str) -> pd.DataFrame:
    """Return target and realised shares of the tokens to train on, by component."""
    return _by(connection, release, "component", ", any_value(share) AS target")


def by_stratum(connection: "duckdb.DuckDBPyConnection", release: str) -> pd.DataFrame:
    """Return the tokens available and taken, by component and stratum: domain and language.

    A component has one target; what its strata realise follows from what they have.
    """
    return _by(connection, release, "component, stratum", "")


def mixture_figure(components: pd.DataFrame) -> Figure:
    """Draw what is available, wanted and realised, of `by_component`."""
    shares = {name: components[name].tolist() for name in ("available", "target", "realised")}
    names = components["component"].tolist()
    return figure(1.9 * len(names), draw_mixture(names, shares))


def repeats(connection: "duckdb.DuckDBPyConnection", release: str) -> pd.DataFrame:
    """Return documents to train on by weight and whole copies: what is seen how often."""
    return connection.execute(
        f"""
        SELECT
            component, weight, copies, count(*) AS num_documents,
            count(*) FILTER (partial_tokens > 0) AS num_cut, sum({TAKEN})::BIGINT AS num_tokens
        FROM mixture WHERE dump = ? AND split = '{TRAIN}' GROUP BY ALL ORDER BY ALL
        """,
        [release],
    ).df()


def hosts(connection: "duckdb.DuckDBPyConnection", release: str, num: int = 15) -> pd.DataFrame:
    """Return the hosts that give most tokens to train on. Cost: a join by doc_id."""
    return connection.execute(
        f"""
        SELECT
            host, component, count(*) AS num_documents, sum(taken)::BIGINT AS num_tokens
        FROM (
            SELECT doc_id, component, {TAKEN} AS taken FROM mixture
            WHERE dump = ? AND split = '{TRAIN}'
        ) JOIN (SELECT doc_id, host FROM tokens) USING (doc_id)
        GROUP BY ALL ORDER BY num_tokens DESC, host, component LIMIT ?
        """,
        [release, num],
    ).df()


def _by(
    connection: "duckdb.DuckDBPyConnection", release: str, keys: str, more: str
) -> pd.DataFrame:
    found = connection.execute(
        f"""
        SELECT
            {keys}, count(*) AS num_documents, sum({SIZE})::BIGINT AS available_tokens,
            sum({TAKEN})::BIGINT AS tokens{more}
        FROM mixture WHERE dump = ? AND split = '{TRAIN}' GROUP BY {keys} ORDER BY {keys}
        """,
        [release],
    ).df()
    found["epochs"] = found["tokens"] / found["available_tokens"]
    found["available"] = found["available_tokens"] / max(found["available_tokens"].sum(), 1)
    found["realised"] = found["tokens"] / max(found["tokens"].sum(), 1)
    return found
