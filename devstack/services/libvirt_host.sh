#!/usr/bin/env bash
# One of several libvirt hosts on this machine (root): namespaces of its own, and in them its libvirtd.
#
#   libvirt_host.sh namespaces NAME DIRECTORY   makes the namespaces and keeps them, as the process that this was started as
#   libvirt_host.sh libvirtd DIRECTORY          becomes the libvirtd in them
#
# libvirt's directories are compiled in, so each host gets its own of them from DIRECTORY. The namespaces have no names anywhere: they end
# with the last process in them. There is no cgroup file system in them, and libvirt goes without: two daemons would share their groups.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin

wait_s=15

inside() {
    local directory=$2
    hostname "$1"
    ip link set lo up
    # Out of sight is not enough: libvirt goes by the list of mounts.
    ! mountpoint -q /sys/fs/cgroup || umount --recursive --lazy /sys/fs/cgroup
    mount -t sysfs sysfs /sys
    mount --bind "$directory/hosts" /etc/hosts
    mount -t tmpfs -o size=1m tmpfs /run
    mkdir /run/libvirt
    mount --bind "$directory/run" /run/libvirt
    mount --bind "$directory/etc" /etc/libvirt
    mount --bind "$directory/log" /var/log/libvirt
    mount --bind "$directory/cache" /var/cache/libvirt
    # The last one: whoever sees it sees all.
    mount --bind "$directory/lib" /var/lib/libvirt
    exec sleep infinity
}

namespaces() {
    local directory=$2
    printf '%s\n' "$directory" >"$directory/lib/host"
    printf '%s\n' "$$" >"$directory/namespaces.pid"
    exec unshare --net --mount --uts --propagation private "$BASH" "$0" inside "$@"
}

is_made() {
    local pid
    pid=$(cat "$1/namespaces.pid" 2>/dev/null) && [ "$(cat "/proc/$pid/root/var/lib/libvirt/host" 2>/dev/null)" = "$1" ]
}

libvirtd() {
    local directory=$1 until=$((SECONDS + wait_s))
    until is_made "$directory"; do
        [ "$SECONDS" -lt "$until" ] || { echo "no namespaces of $directory within $wait_s s" >&2; exit 1; }
        sleep 0.1
    done
    rm -f "$directory/run/libvirtd.pid"
    exec nsenter --target "$(cat "$directory/namespaces.pid")" --mount --net --uts libvirtd --pid-file /run/libvirt/libvirtd.pid
}

action=$1; shift
case $action in
    namespaces | inside | libvirtd) "$action" "$@" ;;
    *) echo "libvirt_host.sh: $action?" >&2; exit 2 ;;
esac
