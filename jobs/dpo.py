"""Tune on preferences: python jobs/dpo.py --model DIR --data FILE --to DIR."""

from curation.train.command import dpo

if __name__ == "__main__":
    dpo()
