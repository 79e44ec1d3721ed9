#!/bin/sh
# Makes this machine a worker of one pool: installs the worker's package and joins with TOKEN.
#   curl … https://POOL/join.sh | sh -s -- TOKEN [OPTION…]    options go to sheaf-worker join
# It may be run again: what is done already stays as it is.
set -eu

url=@URL@         # of the pool's gateway, which filled in what follows
pin=@PIN@         # of its key: only from there the package is taken
ca=@CA@           # the pool's certificate authority, as the token names it
package=@PACKAGE@
version=@VERSION@
sha256=@SHA256@

say() { printf '%s\n' "$*"; }
die() {
    printf 'join.sh: %s\n' "$*" >&2
    exit 1
}

check_machine() {
    [ "$(uname -sm)" = "Linux x86_64" ] \
        || die "this machine is $(uname -sm); the worker is built for Linux on x86-64"
    libc=$(getconf GNU_LIBC_VERSION 2>/dev/null) || libc=
    case $libc in
    "glibc "*) libc=${libc#glibc } ;;
    *) die "no GNU libc here; the worker needs glibc 2.36 or newer" ;;
    esac
    major=${libc%%.*}
    minor=${libc#*.}
    minor=${minor%%.*}
    [ "$major" -gt 2 ] || { [ "$major" -eq 2 ] && [ "$minor" -ge 36 ]; } \
        || die "glibc is $libc here; the worker needs 2.36 or newer (Debian 12, Ubuntu 22.10)"
    for command in apt-get dpkg-query sha256sum base64; do
        command -v "$command" >/dev/null \
            || die "no $command here; this way is for Debian 12 and its like"
    done
    [ "$(id -u)" = 0 ] || die "it installs a package: run it as root (… | sudo sh -s -- TOKEN)"
}

# The token names the certificate authority of its pool.
check_token() {
    case $1 in
    sheaf-join-1.*) ;;
    '') die "no token: sh -s -- TOKEN, as 'sheaf token join' prints it" ;;
    *) die "'$(printf %.20s "$1")…' is no join token; it starts with sheaf-join-1." ;;
    esac
    # Without its padding base64 complains, and decodes all the same.
    text=$(printf %s "${1#sheaf-join-1.}" | tr '_-' '/+' | base64 -d 2>/dev/null) || true
    case $(printf %s "$text" | tr -d ' ') in
    *"\"ca\":\"$ca\""*) ;;
    *\"ca\":*) die "this token is of another pool than $url: its line names another server" ;;
    *) die "the token is damaged: copy it whole, without spaces" ;;
    esac
}

fetch() { # PATH FILE
    command -v curl >/dev/null || die "no curl here: apt-get install curl"
    if [ -n "$pin" ]; then
        set -- "$1" "$2" -k --pinnedpubkey "$pin"
    fi
    path=$1
    file=$2
    shift 2
    curl -fsS --retry 3 --max-time 600 "$@" -o "$file" "$url$path" \
        || die "cannot fetch $url$path; nothing was installed"
}

install_package() {
    have=$(dpkg-query -W -f '${db:Status-Status} ${Version}' sheaf-worker 2>/dev/null) || have=
    if [ "$have" = "installed $version" ]; then
        say "sheaf-worker $version is installed"
        return
    fi
    temporary=$(mktemp -d)
    trap 'rm -rf "$temporary"' EXIT
    chmod 755 "$temporary" # apt reads it as a user of its own
    say "fetching $package from $url"
    fetch "/packages/$package" "$temporary/$package"
    printf '%s  %s\n' "$sha256" "$temporary/$package" | sha256sum -c --status \
        || die "$package is not what $url promised (SHA-256 differs); nothing was installed"
    say "installing it and what it depends on"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q </dev/null >"$temporary/apt.log" 2>&1 \
        || say "apt-get update failed; going on with the package lists that are here"
    # Of what it recommends: the packet filter, and a device where no driver brings one. No more:
    # what those recommend in turn are compilers.
    extra=
    command -v nft >/dev/null || extra=nftables
    ls /etc/OpenCL/vendors/*.icd >/dev/null 2>&1 || extra="$extra pocl-opencl-icd"
    # shellcheck disable=SC2086  # a list of words
    if ! apt-get install -q -y --no-install-recommends "$temporary/$package" $extra \
        </dev/null >>"$temporary/apt.log" 2>&1; then
        tail -n 15 "$temporary/apt.log" >&2
        die "apt could not install $package: the lines above say why; this machine has not joined"
    fi
    # They go with the worker.
    # shellcheck disable=SC2086
    [ -z "$extra" ] || apt-mark auto $extra >/dev/null
}

# Every installed system has one; a bare root folder may not.
make_machine_id() {
    [ ! -s /etc/machine-id ] || return 0
    tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
    say "made /etc/machine-id, which tells this machine from others"
}

main() {
    token=${1:-}
    [ $# -eq 0 ] || shift
    check_machine
    check_token "$token"
    install_package
    make_machine_id
    # Through a pipe, so that the token is in no process list.
    printf '%s\n' "$token" | sheaf-worker join - "$@" \
        || die "the package is installed, but joining failed: the lines above say why"
    if [ -d /run/systemd/system ]; then
        systemctl enable --now sheaf-worker.service </dev/null \
            || die "joined, but the service did not start: journalctl -u sheaf-worker"
        say "the worker runs, now and after each start of the machine: sheaf-worker status"
    else
        say "joined; there is no systemd here, so start it yourself: sheaf-worker run"
    fi
    say "to go again: sheaf-worker uninstall"
}

# Last, so that a script that was cut on its way does nothing.
main "$@"
