"""Train a tokenizer: python jobs/train_tokenizer.py --config CONFIG --dump DUMP --to FILE."""

from curation.engine.submit import train_tokenizer

if __name__ == "__main__":
    train_tokenizer()
