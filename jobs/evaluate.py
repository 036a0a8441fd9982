"""Measure a model: python jobs/evaluate.py --model DIR --humaneval FILE --allow-code."""

from curation.train.command import evaluate

if __name__ == "__main__":
    evaluate()
