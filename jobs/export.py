"""Write the kept documents of a lake: spark-submit jobs/export.py LAKE --to FOLDER."""

from curation.engine.submit import export

if __name__ == "__main__":
    export()
