"""Train a language model: python jobs/train_perplexity.py --texts SOURCE --language CODE --to CARD.

What a SOURCE is: curation/engine/training_texts.py. `curation train-perplexity` does the same.
"""

from curation.engine.submit import train_perplexity

if __name__ == "__main__":
    train_perplexity()
