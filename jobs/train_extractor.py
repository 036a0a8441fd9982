"""Train the extractor: python jobs/train_extractor.py --gold FOLDER ... --to CARD.json

What a FOLDER holds: curation/ingest/extractor_training.py. `curation train-extractor` does it too.
"""

from curation.engine.submit import train_extractor

if __name__ == "__main__":
    train_extractor()
