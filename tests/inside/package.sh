#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Tries the package on stdin on a stock Debian, whose root it is in: see scripts/try-package. A line
# is printed for each promise. What a command said is shown if it has failed.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
deb=/tmp/netns-shim.deb
log=/root/log
files=/root/files # of the package; everything in /tmp is removed once
user=somebody
broken=0
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

# Keep a promise by a command that succeeds.
promise() {
    local what=$1 status
    set +e # and on again inside: it is off in what `if` runs
    (set -e && "${@:2}") >"$log" 2>&1 </dev/null
    status=$?
    set -e
    if ((!status)); then
        echo "ok     $what"
        return
    fi
    echo "BROKEN $what"
    sed 's/^/       | /' "$log"
    broken=1
}

# What is of no use to go on without.
must() {
    promise "$@"
    ((!broken)) || exit 1
}

apt() { apt-get --yes --quiet --option Dpkg::Use-Pty=0 "$@"; }

# The tools of this script, and the shells that complete; none is a part of what is tried.
add_tools() {
    apt update
    apt install --no-install-recommends bash-completion fish iproute2 iputils-ping man-db \
        systemd-standalone-tmpfiles zsh
}

answers() { [[ $("${@:2}") == "$1" ]]; }

# Of a page that is named by its file man(1) keeps no copy.
has_man_page() { man --local-file "$(man --where netns-shim)" | grep 'run CNI plugins'; }

answers_netavark() { /usr/lib/netavark/cni info | grep api_version; }

# A module of the caller's, where Python looks before the package's if nobody forbids it.
is_isolated() {
    mkdir -p /tmp/modules
    echo 'raise SystemExit("a module of the caller")' >/tmp/modules/netns_shim.py
    PYTHONPATH=/tmp/modules netns-shim --version
    rm -r /tmp/modules
}

has_byte_code() { ls /usr/lib/python3/dist-packages/netns_shim/__pycache__/main.*.pyc; }

completes_in_bash() {
    bash --norc -c '
. /usr/share/bash-completion/bash_completion
load=_comp_load
declare -F _comp_load >/dev/null || load=_completion_loader
$load netns-shim || (($? == 124))
COMP_LINE="netns-shim vali" COMP_POINT=15 COMP_TYPE=9 COMP_WORDS=(netns-shim vali) COMP_CWORD=1
function=$(complete -p netns-shim | sed "s/.*-F \([^ ]*\).*/\1/")
$function netns-shim vali netns-shim
[[ ${COMPREPLY[*]} == validate* ]]'
}

completes_in_fish() {
    fish -c 'complete -C "netns-shim vali"' | grep '^validate'
}

# zsh completes on a terminal only; zpty is one. What is typed is shown once, and completed.
completes_in_zsh() {
    zsh -f -c '
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "autoload -U compinit && compinit -u -d /tmp/zcompdump; unsetopt zle_bracketed_paste"
zpty -w shell "PS1=; print re\"\"ady"
zpty -r -m shell answer "*ready*"
zpty -w -n shell $'"'netns-shim vali\t'"'
zpty -r -m shell answer "*validate*"'
}

# The state of a user without a session is in /tmp, and everything old there is removed.
keeps_state() {
    rm -rf /tmp/netns-shim-1000 /tmp/other
    mkdir -p /tmp/netns-shim-1000/default/refs /tmp/other/refs
    touch /tmp/netns-shim-1000/default/refs/a /tmp/other/refs/a
    mkdir -p /etc/tmpfiles.d
    echo 'd /tmp 1777 root root 1us' >/etc/tmpfiles.d/tmp.conf
    systemd-tmpfiles --clean --prefix=/tmp
    rm /etc/tmpfiles.d/tmp.conf
    find /tmp/netns-shim-1000 /tmp/other || :
    [[ -e /tmp/netns-shim-1000/default/refs/a && ! -e /tmp/other/refs/a ]]
    rm -r /tmp/netns-shim-1000
}

# What has the package's name, wherever it is, and what its list of files named. The directories
# of others stay, and so does the directory of a user's session.
left() {
    local file
    find / -path /proc -prune -o -path /sys -prune -o -path /netns-shim -prune -o -path /old-root \
        -prune -o -path "$deb" -prune -o -name '*netns[-_]shim*' -print
    while read -r file; do
        if [[ -f $file || -L $file ]]; then echo "$file"; fi
    done <"$files"
    grep netns-shim /proc/self/mountinfo | grep --invert-match ' /netns-shim ' || :
}

is_gone() {
    local found
    found=$(left)
    echo "$found"
    [[ ! $found && ! -e /usr/lib/netavark ]] && ! dpkg-query --show netns-shim
}

runs_nothing() {
    local found
    # find fails where a process of anyone ends while it looks.
    found=$(find /proc -maxdepth 1 -user "$user" -name '[0-9]*' -exec cat {}/cmdline \; || :)
    echo "$found"
    [[ ! $found ]]
}

try_as_user() {
    local status=0
    unshare --net "$here/package-machine.sh" "$user" || status=$?
    if ((status)); then broken=1; fi
}

cat >"$deb"
must 'the tools of this script can be had' add_tools
must 'apt installs it, with all that it needs' apt install "$deb"
dpkg-query --listfiles netns-shim >"$files"
version=$(dpkg-query --show --showformat '${Version}' netns-shim)
promise 'the command has its version' answers "netns-shim $version" netns-shim --version
promise 'the command takes no module from the environment of its caller' is_isolated
promise 'man netns-shim' has_man_page
promise 'the driver of netavark says who it is' answers_netavark
promise 'its byte code is there, which users cannot write' has_byte_code
promise 'bash completes' completes_in_bash
promise 'zsh completes' completes_in_zsh
promise 'fish completes' completes_in_fish
promise 'systemd-tmpfiles keeps the state in /tmp' keeps_state
promise 'root need not install it again' answers /usr/lib/cni/netns-shim netns-shim install
useradd --create-home "$user"
try_as_user
promise 'no process of the user is left' runs_nothing
promise 'apt purges it' apt purge netns-shim
promise 'nothing of it is left' is_gone
((!broken))
