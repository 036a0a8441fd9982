"""The filter stage: spark-submit jobs/filter.py --config C [--dump D] [--slice S].

Declared in curation/engine/stages.py. `curation run CONFIG --from filter --to filter`
does the same in local mode.
"""

from curation.engine.submit import run_stage

if __name__ == "__main__":
    run_stage("filter")
