# SPDX-License-Identifier: Apache-2.0
# Turns a new network namespace into the internet and joins a machine to it: run by tests/bench.py
# as root, with `sh -eu`. $1 is a process of the machine, in whose namespace the other end comes up.

echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
echo 1 >/proc/sys/net/ipv4/ip_forward

ip -batch - <<EOF
link set lo up
address add 1.1.1.1/32 dev lo
link add eth0 type veth peer name eth0 netns $1
address add 198.51.100.1/24 dev eth0
address add 2001:db8:100::1/64 dev eth0 nodad
link set eth0 up
EOF
nsenter --target="$1" --net sh -eu "$(dirname "$0")/plug.sh"
exec /usr/bin/python3 -I "$(dirname "$0")/internet.py" "/proc/$1/root/dev/net/tun"
