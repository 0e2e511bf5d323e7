# The virtual environment that the stack and the tests share. Sourced by stack.sh, unstack.sh and tests/run; needs $repo.

venv=${CELLPLANE_VENV:-$repo/.venv}

say() { printf '%s\n' "$*"; }
fail() { printf '%s\n' "$*" >&2; exit 1; }

is_usable_python() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

has_venv() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null
}

# Prints a Python of at least 3.11: $PYTHON if it is set, else the first that is found; those that can make environments come first.
find_python() {
    local candidate first=
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3.14 python3 /usr/bin/python3; do
        is_usable_python "$candidate" || continue
        if has_venv "$candidate"; then
            printf '%s' "$candidate"
            return
        fi
        first=${first:-$candidate}
    done
    printf '%s' "$first"
}

install_debian_packages() {
    DEBIAN_FRONTEND=noninteractive apt-get -q update >/dev/null || true
    DEBIAN_FRONTEND=noninteractive apt-get -q install --yes --no-install-recommends "$@" >/dev/null ||
        fail "apt-get install $* failed"
}

make_venv() {
    local python
    if [ -x "$venv/bin/python" ] && is_usable_python "$venv/bin/python" && "$venv/bin/python" -c 'import pip' 2>/dev/null; then
        return
    fi
    python=$(find_python)
    if [ -z "$python" ] || ! has_venv "$python"; then
        [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
            fail "Python 3.11 or newer with its venv module is needed; on Debian, as root: apt-get install python3 python3-venv"
        say "installing Debian's python3 and python3-venv ..."
        install_debian_packages python3 python3-venv
        python=$(find_python)
        [ -n "$python" ] && has_venv "$python" || fail "Python 3.11 or newer with its venv module is needed; this system's python3 is older"
    fi
    say "making the virtual environment $venv with $("$python" --version)"
    rm -rf -- "$venv"
    "$python" -m venv "$venv"
}

# What an installation depends on; when it changes, pip runs again.
fingerprint() {
    printf '%s %s ' "$repo" "$("$venv/bin/python" --version)"
    (cd "$repo" && ls -d -- */__init__.py && cat setup.cfg pyproject.toml constraints.txt) | sha256sum | cut -d' ' -f1
}

# Shows pip's progress: a line now and then, not one for each package.
show_progress() {
    local line count=0 told=0
    while IFS= read -r line; do
        case $line in
            Collecting\ *) count=$((count + 1)); [ $((count % 25)) = 0 ] && say "  $count packages found ..." ;;
            Installing\ collected*) [ $count = $told ] || say "  $count packages found, installing them ..."; told=$count ;;
        esac
    done
}

# pip_install ARGUMENT …: as pip does, without a question.
pip_install() {
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input "$@"
}

# install_pinned SECTION …: what constraints.txt lists there, each file checked against its hash. Nothing is resolved, nothing built.
install_pinned() {
    "$venv/bin/python" -m devstack.pins "$@" >"$venv/pinned.txt" &&
        pip_install --require-hashes --no-deps --only-binary :all: -r "$venv/pinned.txt"
}

# install_all SECTION …: pip itself first; Cellplane, editable, is built by what is there then.
install_all() {
    cd "$repo" && install_pinned build && install_pinned "$@" && pip_install --no-deps --no-build-isolation -e .
}

# install_cellplane EXTRA: Cellplane and its libraries, editable; nothing happens when that is there already.
install_cellplane() {
    local extra=$1 stamp="$venv/installed-$1" started=$SECONDS
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(fingerprint)" ]; then
        return
    fi
    say "installing Cellplane and its libraries (log: $venv/pip-$extra.log) ..."
    local -A sections=([devstack]="cellplane devstack" [test]="cellplane devstack test")
    # shellcheck disable=SC2086  # one word each
    if ! (install_all ${sections[$extra]} 2>&1) |
        tee "$venv/pip-$extra.log" | show_progress; then
        tail -n 20 "$venv/pip-$extra.log" >&2
        fail "pip could not install Cellplane; the whole log is $venv/pip-$extra.log"
    fi
    fingerprint >"$stamp"
    # What the tests need holds what a stack needs.
    [ "$extra" != test ] || fingerprint >"$venv/installed-devstack"
    say "installed in $((SECONDS - started)) s"
}

# One at a time: two stacks may be started at once.
prepare_environment() {
    mkdir -p "$(dirname "$venv")"
    exec 9>"$venv.lock"
    flock 9
    make_venv
    install_cellplane "$1"
    flock -u 9
    exec 9>&-
}
