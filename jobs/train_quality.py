"""Train a quality classifier: python jobs/train_quality.py --positive SOURCE --negative SOURCE ...

What a SOURCE is: curation/engine/training_texts.py. `curation train-quality` does the same.
"""

from curation.engine.submit import train_quality

if __name__ == "__main__":
    train_quality()
