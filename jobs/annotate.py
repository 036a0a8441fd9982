"""The annotate stage: spark-submit jobs/annotate.py --config C [--dump D] [--slice S].

Declared in curation/engine/stages.py. `curation run CONFIG --from annotate --to annotate`
does the same in local mode.
"""

from curation.engine.submit import run_stage

if __name__ == "__main__":
    run_stage("annotate")
