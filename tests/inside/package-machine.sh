#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Makes a machine with an internet out of the network namespace that it is called in, for the user
# $1, and tries the package there: see package.sh.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
user=$1
uid=$(id --user "$user")

mount -t tmpfs tmpfs /dev/net
mknod -m 0666 /dev/net/tun c 10 200 # the mode that udev gives it
install --directory --mode=0700 --owner="$user" --group="$user" "/run/user/$uid" # as logind does

ip netns add internet
ip link set lo up
ip link add eth0 type veth peer name eth0 netns internet
ip address add 198.51.100.2/24 dev eth0
ip link set eth0 up
ip -netns internet address add 198.51.100.1/24 dev eth0
ip -netns internet link set eth0 up
ip route add default via 198.51.100.1

# A page there; the server says when it can be asked.
mkdir /tmp/site
echo 'hello from the internet' >/tmp/site/index.html
exec 3< <(exec ip netns exec internet python3 -u -m http.server --directory /tmp/site \
    --bind 198.51.100.1 80 2>/dev/null)
server=$!
trap 'kill "$server"' EXIT
read -r _ <&3

environment=(
    "HOME=/home/$user" "USER=$user" "XDG_RUNTIME_DIR=/run/user/$uid"
    PATH=/usr/local/bin:/usr/bin:/bin LC_ALL=C.UTF-8
)
cd "/home/$user"
status=0
runuser --user "$user" -- env --ignore-environment "${environment[@]}" \
    "$here/package-user.sh" || status=$?
# The session of the user ends, and with it what logind has made. No file may be in there.
rmdir "/run/user/$uid/netns-shim" "/run/user/$uid"
ip netns delete internet
exit "$status"
