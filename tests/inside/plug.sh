# SPDX-License-Identifier: Apache-2.0
# Brings the machine's network up, or down and up again: run by root in its network namespace. The
# IPv6 addresses are tentative for one or two seconds after this, as on every machine.
ip link set eth0 down
ip -batch - <<EOF
address replace 198.51.100.2/24 dev eth0
address replace 2001:db8:100::2/64 dev eth0
link set eth0 up
route replace default via 198.51.100.1
route replace default via 2001:db8:100::1
EOF
