#!/bin/sh
# What a container does, by the first argument; anything else is run as it stands.
#
#   master, worker     of a standalone cluster; options of Spark's classes may follow
#   driver, executor   as Spark on Kubernetes calls them, with the rest in the environment
#   nights             Airflow on SQLite: its database, the pool of one slot, scheduler and pages
set -eu

role=${1:-}
case $role in
    master)
        shift
        set -- "$SPARK_HOME/bin/spark-class" org.apache.spark.deploy.master.Master "$@"
        ;;
    worker)
        shift
        set -- "$SPARK_HOME/bin/spark-class" org.apache.spark.deploy.worker.Worker "$@"
        ;;
    driver)
        shift
        set -- "$SPARK_HOME/bin/spark-submit" --deploy-mode client \
            --conf "spark.driver.bindAddress=$SPARK_DRIVER_BIND_ADDRESS" "$@"
        ;;
    executor)
        # One option of Java each, which may hold spaces: SPARK_JAVA_OPT_0, SPARK_JAVA_OPT_1, ...
        set -- java
        number=0
        while option=$(printenv "SPARK_JAVA_OPT_$number"); do
            set -- "$@" "$option"
            number=$((number + 1))
        done
        set -- "$@" "-Xms$SPARK_EXECUTOR_MEMORY" "-Xmx$SPARK_EXECUTOR_MEMORY" \
            -cp "${SPARK_CONF_DIR:-$SPARK_HOME/conf}:$SPARK_HOME/jars/*" \
            org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
            --driver-url "$SPARK_DRIVER_URL" \
            --executor-id "$SPARK_EXECUTOR_ID" \
            --cores "$SPARK_EXECUTOR_CORES" \
            --app-id "$SPARK_APPLICATION_ID" \
            --hostname "$SPARK_EXECUTOR_POD_IP" \
            --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" \
            --podName "$SPARK_EXECUTOR_POD_NAME"
        ;;
    nights)
        airflow db migrate
        airflow pools set curation 1 "jobs on one lake"
        set -- airflow standalone
        ;;
esac

exec "$@"
