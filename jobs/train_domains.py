"""Train a domain classifier: jobs/train_domains.py --label code=SOURCE --label maths=SOURCE ...

What a SOURCE is: curation/engine/training_texts.py. `curation train-domains` does the same.
"""

from curation.engine.submit import train_domains

if __name__ == "__main__":
    train_domains()
