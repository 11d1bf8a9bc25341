#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Attaches a container with the package, by hand, as a user without root: see package.sh.
set -euo pipefail
examples=/usr/share/doc/netns-shim/examples
log=$HOME/log
broken=0
export CNI_PATH=/usr/lib/cni CNI_CONTAINERID=c1 CNI_IFNAME=eth0

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

# The entry of a network that a runtime gives to the plugin.
entry() {
    python3 -c '
import json, sys
network = json.load(open(sys.argv[1]))
entry = {key: network[key] for key in ("cniVersion", "name")} | network["plugins"][0]
print(json.dumps(entry | json.loads(sys.argv[2])))' "$examples/$1" "$2"
}

call() { CNI_COMMAND=$1 /usr/lib/cni/netns-shim <"$2"; }

has_no_problem() {
    local status=0
    netns-shim doctor "$@" || status=$?
    ((!status))
}

knows_itself() {
    netns-shim version
    netns-shim version | grep ' (/usr/lib/python3/dist-packages/netns_shim)$'
    netns-shim version | grep '^installed as .*/usr/lib/cni/netns-shim'
}

start_container() {
    mkfifo pid
    netns-shim unshare -- unshare --net sh -c 'echo $$ >pid; exec sleep 600' &
    sleeper=$!
    CNI_NETNS=/proc/$(cat pid)/ns/net
    export CNI_NETNS
    rm pid
}

in_container() { netns-shim unshare -- nsenter --net="$CNI_NETNS" "$@"; }

fetch() {
    in_container python3 -c '
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())' "$1" |
        grep 'hello from the internet'
}

shows() { netns-shim status | tee /dev/stderr | grep "$1"; }

add() { call ADD "$1" | tee /dev/stderr | grep "\"address\": \"$2\""; }

is_valid() { netns-shim validate "$examples"/*.conflist; }

entry 10-bridge.conflist '{}' >net.json
promise 'doctor finds no problem' has_no_problem --conf "$examples/10-bridge.conflist"
promise 'version tells the package and its plugin' knows_itself
promise 'the samples are valid' is_valid
start_container
promise 'ADD with bridge, as a user' add net.json 10.89.1.2/24
promise 'the container reaches its gateway' in_container ping -q -c 1 10.89.1.1
promise 'the container reaches the internet' fetch http://198.51.100.1/
promise 'status shows it' shows 'c1  eth0  10.89.1.2/24'
promise 'doctor finds no problem beside it' has_no_problem
promise 'DEL' call DEL net.json
promise 'nothing is up' shows 'no shared network namespace is up'
kill "$sleeper"
wait "$sleeper" || :
rm net.json
((!broken))
