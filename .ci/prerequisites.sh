#!/bin/sh
# Checks what pip cannot install: Python 3.11 or newer, Java 17 or 21, g++. Silent when all are there;
# otherwise names everything that is missing with the command that installs it, and exits with 1.
# PYTHON names another interpreter, JAVA_HOME another Java; Spark looks for Java the same way.

python=${PYTHON:-python3}
failed=0

missing() { # what is wrong, then the commands for Debian and Ubuntu, Fedora, macOS
    failed=1
    printf '%s\n  Debian, Ubuntu:  %s\n  Fedora:          %s\n  macOS:           %s\n\n' "$@" >&2
}

check_python() {
    install_apt="sudo apt-get install python3 python3-venv   (if older: python3.11 python3.11-venv)"
    install_dnf="sudo dnf install python3"
    install_brew="brew install python@3.12"
    if ! version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null); then
        missing "Python 3.11 or newer is needed, but '$python' does not run. Name another: make PYTHON=..." \
            "$install_apt" "$install_dnf" "$install_brew"
        return
    fi
    case $version in
        3.[0-9] | 3.10 | [012].*)
            missing "Python 3.11 or newer is needed, but '$python' is $version. Name another: make PYTHON=..." \
                "$install_apt" "$install_dnf" "$install_brew"
            return
            ;;
    esac
    # Debian ships venv without pip, in a package of its own.
    if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        missing "The module venv is needed, but '$python' ($version) lacks it or its ensurepip." \
            "sudo apt-get install python3-venv" "$install_dnf" "$install_brew"
    fi
}

check_java() {
    install_apt="sudo apt-get install openjdk-17-jre-headless   (Debian 13: openjdk-21-jre-headless)"
    install_dnf="sudo dnf install java-21-openjdk-headless"
    install_brew="brew install openjdk@21 && export JAVA_HOME=\$(brew --prefix openjdk@21)"
    if [ -n "${JAVA_HOME:-}" ]; then
        java=$JAVA_HOME/bin/java
        where="JAVA_HOME is $JAVA_HOME"
    else
        java=java
        where="JAVA_HOME is not set and PATH decides"
    fi
    # The first quoted word: 17.0.15, 21, 25-ea, or 1.8.0_402 before Java 9.
    if ! answer=$("$java" -version 2>&1); then
        missing "Java 17 or 21 is needed, but '$java' does not run ($where)." \
            "$install_apt" "$install_dnf" "$install_brew"
        return
    fi
    version=$(printf '%s\n' "$answer" | sed -n 's/.*version "\([^"]*\)".*/\1/p')
    major=${version#1.}
    major=${major%%[!0-9]*}
    case $major in
        17 | 21) ;;
        *)
            missing "Java 17 or 21 is needed, but '$java' is ${version:-of an unknown version} ($where)." \
                "$install_apt" "$install_dnf" "$install_brew"
            ;;
    esac
}

check_compiler() {
    if ! command -v g++ >/dev/null 2>&1; then
        missing "g++ is needed, to build packages that have no wheel for this machine; it is not on PATH." \
            "sudo apt-get install g++" "sudo dnf install gcc-c++" "xcode-select --install"
    fi
}

check_python
check_java
check_compiler
exit $failed
