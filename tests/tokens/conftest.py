import pytest
from packed_in_python import EOS, batch, corpus, packed_in_python

from curation.tokens import packing
from curation.tokens.shards import Manifest, write_manifest, write_shard


@pytest.fixture
def release(tmp_path, monkeypatch):
    """Three shards, the second empty, of several row groups, and their rows in plain Python."""
    monkeypatch.setattr(packing, "ROW_GROUP_TOKENS", 2048)
    folder = tmp_path / "release"
    folder.mkdir()
    parts = [corpus(80, 1), [], corpus(50, 2)]
    files = tuple(
        write_shard(folder / f"{i}.parquet", [batch(part)], sequence_length=64, eos_id=EOS)
        for i, part in enumerate(parts)
    )
    manifest = Manifest(
        name="demo",
        sequence_length=64,
        num_shards=3,
        packing="concat",
        seed=0,
        tokenizer_sha256="ab" * 32,
        vocab_size=100_000,
        model_vocab_size=100_096,
        eos_id=EOS,
        files=files,
        mixture={"web": {"share": 1.0, "tokens": 7}},
        strata={"web/en": {"available_tokens": 9, "tokens": 7}},
        account={"in_lake": 7},
        lake_keys={"encode": {"2023-14": "key"}},
    )
    write_manifest(folder, manifest)
    return folder, manifest, [row for part in parts for row in packed_in_python(part, 64)]
