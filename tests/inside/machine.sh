# SPDX-License-Identifier: Apache-2.0
# Turns a new network and mount namespace into a machine of its own: run by tests/bench.py as root,
# with `sh -eu`. Every directory written to is a tmpfs, so the real machine is left as it is and
# everything vanishes with the namespaces.
# It is as a stock Debian is: what a test needs to be kinder, it asks for (tests/kinder.py).
# Parameters: USER_NAME USER_ID SUBID, the first of the subordinate ids; PYTHON, the interpreter;
# SITE_PACKAGES, its libraries, and LIB, where they go below the prefix; TYPED, a directory of the
# user's PATH.

own() { mount -t tmpfs -o "mode=0755${2:+,$2}" tmpfs "$1"; }

# What is needed from the outside, before it is hidden.
own /run
mkdir /run/etc /run/site
mount --bind "$SITE_PACKAGES" /run/site
own /run/etc
cp -a /etc/. /run/etc
mount --move /run/etc /etc

mkdir -p /dev/net
own /dev/net
mknod -m 0666 /dev/net/tun c 10 200 # the mode that udev gives it
own /home
own /opt
own /tmp mode=1777
own "$TYPED"
own /var/lib
own /var/tmp mode=1777

# An installation of the package under test, as `pip install` would make it: see World.
prefix=/opt/netns-shim
lib=$prefix/$LIB
mkdir -p "$lib" "$prefix/bin" "$prefix/site" /opt/bench /opt/cni/bin
mount --move /run/site "$prefix/site"
mount -o remount,bind,ro "$prefix/site"
for entry in "$prefix/site"/*; do
    case ${entry##*/} in *netns_shim*) ;; *) ln -s "$entry" "$lib" ;; esac
done
ln -s "$PYTHON" "$prefix/bin/python3"
printf 'home = %s\ninclude-system-site-packages = false\n' "${PYTHON%/*}" >"$prefix/pyvenv.cfg"
printf '#!%s\nfrom netns_shim.main import run\nrun()\n' "$prefix/bin/python3" >"$prefix/bin/netns-shim"
chmod 0755 "$prefix/bin/netns-shim"
# The package of this machine's administrator is not on that one: of a read-only overlay, a device
# 0:0 above a file hides it.
for file in /usr/bin/netns-shim /usr/lib/cni/netns-shim /usr/lib/netavark/cni; do
    [ -e "$file" ] || continue
    above=/opt/hidden${file%/*}
    mkdir -p "$above"
    mknod "$above/${file##*/}" c 0 0
    mount -t overlay -o "ro,lowerdir=$above:${file%/*}" overlay "${file%/*}"
done
ln -s /usr/lib/cni/* /opt/cni/bin

echo "$USER_NAME:x:$USER_ID:$USER_ID::/home/$USER_NAME:/bin/sh" >>/etc/passwd
echo "$USER_NAME:x:$USER_ID:" >>/etc/group
# adduser gives each user a range, and the first user is seldom the one who has containers.
printf '%s:65536\n' first:100000 "$USER_NAME:$SUBID" | tee /etc/subuid >/etc/subgid
rm -f /etc/resolv.conf
printf 'search example.test\nnameserver 198.51.100.1\n' >/etc/resolv.conf

rmdir /run/etc /run/site
# Without a log-in there is no /run/user/$USER_ID. /run/netns is as in a /run that a runtime has
# made for itself: engines pin namespaces there.
mkdir -p "/home/$USER_NAME" /run/user /run/netns
chown "$USER_ID:$USER_ID" "/home/$USER_NAME" /run/netns
mount --make-rshared / # as systemd leaves it
ip link set lo up

echo ready
exec cat # until the bench closes the pipe, or dies
