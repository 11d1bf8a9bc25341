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

answers() { [[ $("${@:2}") == "$1" ]]; }

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

end() {
    kill "$1"
    wait "$1" || :
}

in_container() { netns-shim unshare -- nsenter --net="$CNI_NETNS" "$@"; }

fetch() {
    in_container python3 -c '
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())' "$1" |
        grep 'hello from the internet'
}

# A web server in the container; it says when it can be asked.
serve() {
    mkdir -p site
    echo 'hello from the container' >site/index.html
    exec 3< <(exec netns-shim unshare -- nsenter --net="$CNI_NETNS" \
        python3 -u -m http.server --directory site 80 2>/dev/null)
    server=$!
    read -r _ <&3
}

# From the machine, at its address: pasta passes the port on, and portmap does in the namespace.
fetch_published() {
    python3 -c '
import urllib.request
print(urllib.request.urlopen("http://198.51.100.2:8080/", timeout=10).read().decode())' |
        grep 'hello from the container'
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
promise 'status shows its bridge' shows 'bridge cni-rootless  10.89.1.1/24'
promise 'gc finds nothing to do' answers "nothing to do ($XDG_RUNTIME_DIR/netns-shim)" netns-shim gc
promise 'it is attached still' shows 'c1  eth0  10.89.1.2/24'
promise 'CHECK' call CHECK net.json
promise 'doctor finds no problem beside it' has_no_problem
promise 'DEL' call DEL net.json
promise 'nothing is up' shows 'no shared network namespace is up'
end "$sleeper"

ports='{"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}}'
entry 70-published.conflist "$ports" >net.json
export CNI_CONTAINERID=c2
start_container
promise 'ADD with a published port' add net.json 10.89.7.2/24
serve
promise 'the published port is reached' fetch_published
end "$server"
promise 'DEL of it' call DEL net.json
promise 'nothing is up again' shows 'no shared network namespace is up'
end "$sleeper"
rm -r net.json site
((!broken))
