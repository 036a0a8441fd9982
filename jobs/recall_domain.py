"""Find a domain's pages: spark-submit jobs/recall_domain.py --seed SOURCE --lake LAKE ...

The loop is curation/remix/recall.py. `curation recall` does the same in local mode.
"""

from curation.engine.submit import recall_domain

if __name__ == "__main__":
    recall_domain()
