#!/bin/bash
# Builds one tiny self-booting (BIOS) guest disk image solely from Debian packages: what a stack with real guests boots.
#
#   guest_image.sh [-o guest.qcow2] [-f qcow2|raw] [-s SIZE_MIB] [-c CACHE_DIR] [-w WORK_DIR] [-a] [-k]
#
#   -o  output file                              (default ./guest.qcow2)
#   -f  image format                             (default qcow2; qcow2 is written compressed)
#   -s  virtual size in MiB                      (default 32)
#   -c  where downloaded .deb files are kept     (default ~/.cache/cellplane/debian)
#   -w  scratch directory                        (default: mktemp, removed at the end)
#   -a  also put qemu-guest-agent in             (about +2 MiB)
#   -k  also leave vmlinuz and initrd.gz next to the output, for direct kernel boot
#
# Needs no root, no loop device, no mount, no kernel module.
# Needs on the build machine: apt-get, dpkg-deb, gzip, qemu-img, ldd (with -a).
#
# What the guest does:
#   * boots: SeaBIOS -> syslinux on a FAT partition -> Debian cloud kernel -> busybox initramfs
#   * console on ttyS0 (115200) and tty1 (VGA/VNC), a root shell on both (no password)
#   * DHCP on every ethN, also on one that is hot-plugged later
#   * reads an OpenStack config drive (filesystem label config-2, ISO 9660 or VFAT), else asks
#     http://169.254.169.254/openstack/latest/meta_data.json when it has an address
#   * runs user_data when its first line starts with "#!"
#   * keeps /persist (the FAT partition of its own disk): boot counter, anything a test writes
#   * powers off on the ACPI power button, answers virtio-balloon, logs hot-plugged disks and NICs
#   * prints, once, one line on ttyS0:
#     GUEST-READY hostname=H uuid=U source=configdrive|metadata|none ip=A boot=N mem_kb=M cpus=C disks=vda:33554432,... up=S
#   * later lines: GUEST-EVENT <what> ...   and, on the way down, GUEST-DOWN <why>
set -euo pipefail

OUT=guest.qcow2 FMT=qcow2 SIZE=32 CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/cellplane/debian WORK= QGA=0 KEEPK=0
while getopts o:f:s:c:w:akh opt; do
  case $opt in
    o) OUT=$OPTARG ;; f) FMT=$OPTARG ;; s) SIZE=$OPTARG ;; c) CACHE=$OPTARG ;;
    w) WORK=$OPTARG ;; a) QGA=1 ;; k) KEEPK=1 ;;
    *) sed -n '2,31p' "$0"; exit 2 ;;
  esac
done
export PATH=$PATH:/sbin:/usr/sbin
for t in apt-get dpkg-deb gzip qemu-img; do
  command -v $t >/dev/null || { echo "missing: $t" >&2; exit 1; }
done
OUT=$(realpath -m "$OUT"); mkdir -p "$CACHE" "$(dirname "$OUT")"; CACHE=$(realpath "$CACHE")
if [ -z "$WORK" ]; then WORK=$(mktemp -d); trap 'rm -rf "$WORK"' EXIT; fi
WORK=$(realpath -m "$WORK"); mkdir -p "$WORK"

# ---------------------------------------------------------------- packages
KPKG=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/{print $2; exit}')
[ -n "$KPKG" ] || { echo "linux-image-cloud-amd64 unknown to apt; run apt-get update" >&2; exit 1; }
get() {   # get PACKAGE: the .deb into the cache, unpacked under $WORK/x
  local deb
  deb=$(ls -t "$CACHE/$1"_*.deb 2>/dev/null | head -1 || true)
  if [ -z "$deb" ]; then
    (cd "$CACHE" && apt-get -qq -o APT::Sandbox::User=root download "$1")
    deb=$(ls -t "$CACHE/$1"_*.deb | head -1)
  fi
  dpkg-deb -x "$deb" "$WORK/x"
}
rm -rf "$WORK/x" "$WORK/root"; mkdir -p "$WORK/x" "$WORK/root"
for p in "$KPKG" busybox-static syslinux syslinux-common mtools; do get "$p"; done
[ $QGA = 0 ] || get qemu-guest-agent
BB=$WORK/x/bin/busybox; [ -x "$BB" ] || BB=$WORK/x/usr/bin/busybox
KVER=${KPKG#linux-image-}
MODDIR=$WORK/x/lib/modules/$KVER; [ -d "$MODDIR" ] || MODDIR=$WORK/x/usr/lib/modules/$KVER

# ---------------------------------------------------------------- root tree
R=$WORK/root
mkdir -p $R/{bin,dev,proc,sys,etc,tmp,run,root,persist,mnt,lib/modules,etc/udhcpc,etc/acpi/PWRF,var/log,var/run}
cp "$BB" $R/bin/busybox
$BB --list | while read -r a; do [ "$a" = busybox ] || ln -sf busybox "$R/bin/$a"; done
ln -s bin $R/sbin; ln -s /bin/busybox $R/init

# modules, dependencies first; "modules.list" is the load order
declare -A SEEN=()
addmod() {
  local name=$1 f dep
  [ -z "${SEEN[$name]:-}" ] || return 0; SEEN[$name]=1
  f=$(find "$MODDIR" -name "$name.ko*" -o -name "${name//_/-}.ko*" | head -1)
  [ -n "$f" ] || return 0                       # built in, or not in this kernel
  case $f in *.xz) xz -dc "$f" > "$WORK/m.ko" ;; *) cp "$f" "$WORK/m.ko" ;; esac
  for dep in $(tr '\0' '\n' < "$WORK/m.ko" | sed -n 's/^depends=//p' | tr ',' ' '); do addmod "$dep"; done
  case $f in *.xz) xz -dc "$f" > "$R/lib/modules/$name.ko" ;; *) cp "$f" "$R/lib/modules/$name.ko" ;; esac
  echo "$name" >> $R/lib/modules/modules.list
}
for m in virtio_pci virtio_blk virtio_net virtio_console virtio_balloon virtio-rng virtio_scsi \
         sd_mod sr_mod ata_piix ahci e1000 e1000e isofs vfat nls_cp437 nls_ascii nls_iso8859-1 nls_utf8 \
         button evdev; do addmod "$m"; done

if [ $QGA = 1 ]; then                            # dynamic: take its libraries from this machine
  mkdir -p $R/usr/sbin $R/lib64 $R/lib/x86_64-linux-gnu
  q=$(find "$WORK/x" -name qemu-ga -type f | head -1); cp "$q" $R/usr/sbin/qemu-ga
  if ldd "$q" | grep -q 'not found'; then ldd "$q" | grep 'not found' >&2; echo "apt-get install these (or qemu-guest-agent) for -a" >&2; exit 1; fi
  ldd "$q" | awk '{for(i=1;i<=NF;i++) if($i ~ /^\//) print $i}' | while read -r l; do
    case $l in */ld-linux*) cp -L "$l" $R/lib64/ ;; *) cp -L "$l" $R/lib/x86_64-linux-gnu/ ;; esac
  done
fi

cat > $R/etc/inittab <<'X'
::sysinit:/etc/rcS
ttyS0::respawn:/bin/getty -L -n -l /etc/shell 115200 ttyS0 vt100
tty1::respawn:/bin/getty -n -l /etc/shell 38400 tty1 linux
::ctrlaltdel:/bin/reboot
::shutdown:/etc/rcK
X
printf 'root::0:0:root:/root:/bin/sh\n' > $R/etc/passwd
printf 'root:x:0:\n' > $R/etc/group
printf 'guest\n' > $R/etc/hostname
cat > $R/etc/shell <<'X'
#!/bin/sh
export HOME=/root PS1='root@$(hostname):\w# ' PATH=/bin:/sbin:/usr/sbin; cd /root
echo; echo "$(hostname) shell on $(tty)"
exec /bin/sh -i
X
cat > $R/bin/chpasswd <<'X'
#!/bin/sh
# what qemu-guest-agent calls for guest-set-user-password: "user:password" lines on stdin, -e when crypted
while IFS=: read -r u p; do
  [ "$1" = -e ] || p=$(mkpasswd -m sha512 "$p")
  sed -i "s#^$u:[^:]*:#$u:$p:#" /etc/passwd
  echo "GUEST-EVENT password-set user=$u" > /dev/ttyS0
done
X
cat > $R/bin/shutdown <<'X'
#!/bin/sh
# what qemu-guest-agent calls for guest-shutdown: -P power off, -H halt, -r reboot
case " $* " in *" -r "*) exec /bin/reboot ;; *" -H "*) exec /bin/halt ;; *) exec /bin/poweroff ;; esac
X
cat > $R/etc/rcK <<'X'
#!/bin/sh
echo "GUEST-DOWN ${1:-shutdown} hostname=$(hostname)" > /dev/ttyS0
sync; umount /persist 2>/dev/null
X
cat > $R/etc/acpi/PWRF/00000080 <<'X'
#!/bin/sh
echo "GUEST-EVENT power-button" > /dev/ttyS0
exec /bin/poweroff
X
cat > $R/etc/udhcpc/default.script <<'X'
#!/bin/sh
case $1 in
  deconfig) ip link set "$interface" up; ip -4 addr flush dev "$interface" ;;
  bound|renew)
    ip -4 addr flush dev "$interface"
    ip addr add "$ip/${mask:-24}" dev "$interface"
    [ -n "$mtu" ] && ip link set "$interface" mtu "$mtu"
    for r in $router; do ip route add default via "$r" dev "$interface" 2>/dev/null; done
    : > /etc/resolv.conf; for d in $dns; do echo "nameserver $d" >> /etc/resolv.conf; done
    [ "$1" = renew ] || echo "GUEST-EVENT dhcp if=$interface ip=$ip mac=$(cat /sys/class/net/$interface/address)" > /dev/ttyS0
    set -- $staticroutes
    while [ $# -ge 2 ]; do ip route replace "$1" via "$2" dev "$interface" 2>/dev/null; shift 2; done ;;
esac
X
cat > $R/etc/hotplug <<'X'
#!/bin/sh
# called by the kernel uevent listener: ACTION SUBSYSTEM DEVPATH in the environment
n=${DEVPATH##*/}
case $SUBSYSTEM:$ACTION:$n in
  block:add:vd?|block:add:sd?)      echo "GUEST-EVENT disk-add $n bytes=$(( $(cat /sys/block/$n/size) * 512 )) serial=$(cat /sys/block/$n/serial 2>/dev/null)" > /dev/ttyS0 ;;
  block:remove:vd?|block:remove:sd?) echo "GUEST-EVENT disk-remove $n" > /dev/ttyS0 ;;
  block:change:vd?|block:change:sd?) echo "GUEST-EVENT disk-change $n bytes=$(( $(cat /sys/block/$n/size) * 512 ))" > /dev/ttyS0 ;;
  net:add:eth*)    echo "GUEST-EVENT nic-add $n mac=$(cat /sys/class/net/$n/address)" > /dev/ttyS0; ip link set $n up; udhcpc -b -q -O staticroutes -t 6 -T 2 -A 5 -i $n >/dev/null 2>&1 & ;;
  net:remove:eth*) echo "GUEST-EVENT nic-remove $n" > /dev/ttyS0 ;;
  cpu:add:cpu*)    echo 1 > /sys/$DEVPATH/online 2>/dev/null; echo "GUEST-EVENT cpu-add $n" > /dev/ttyS0 ;;
  cpu:remove:cpu*) echo "GUEST-EVENT cpu-remove $n" > /dev/ttyS0 ;;
  memory:add:memory*) echo online > /sys/$DEVPATH/state 2>/dev/null ;;
esac
X
cat > $R/etc/rcS <<'X'
#!/bin/sh
export PATH=/bin:/sbin:/usr/sbin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm /run; mount -t devpts devpts /dev/pts; mount -t tmpfs tmpfs /run
while read -r m; do insmod /lib/modules/$m.ko 2>/dev/null; done < /lib/modules/modules.list
hostname -F /etc/hostname; ip link set lo up
for i in 1 2 3 4 5 6 7 8 9 10; do ls /sys/block | grep -qE '^(vd|sd)' && break; sleep 0.1; done

# own disk: a FAT partition with the label GUESTBOOT, whichever bus it is on
root=$(findfs LABEL=GUESTBOOT 2>/dev/null); boot=0
if [ -n "$root" ] && mount -t vfat -o sync "$root" /persist 2>/dev/null; then
  boot=$(( $(cat /persist/bootcnt 2>/dev/null || echo 0) + 1 )); echo $boot > /persist/bootcnt
fi

# network: DHCP on everything there is, all at once
pids=
for d in /sys/class/net/eth*; do
  [ -e "$d" ] || continue; i=${d##*/}; ip link set $i up
  udhcpc -n -q -O staticroutes -t 5 -T 2 -i $i >/dev/null 2>&1 & pids="$pids $!"
done
for p in $pids; do wait $p; done
ip=$(ip -4 -o addr show scope global | awk '{sub("/.*","",$4); print $4}' | tr '\n' ','); ip=${ip%,}

# metadata
src=none; md=
cfg=$(findfs LABEL=config-2 2>/dev/null || findfs LABEL=CONFIG-2 2>/dev/null)
if [ -n "$cfg" ] && { mount -o ro -t iso9660 $cfg /mnt 2>/dev/null || mount -o ro -t vfat $cfg /mnt 2>/dev/null; }; then
  if [ -f /mnt/openstack/latest/meta_data.json ]; then
    src=configdrive; mkdir -p /run/cfg; cp -r /mnt/openstack/latest/. /run/cfg/; fi
  umount /mnt
fi
# (the static busybox "wget" crashes in name look-up, so plain HTTP/1.0 over nc)
fetch() {
  printf 'GET /openstack/latest/%s HTTP/1.0\r\nHost: 169.254.169.254\r\n\r\n' "$1" | timeout 6 nc -w 3 169.254.169.254 80 > /run/reply 2>/dev/null
  head -n 1 /run/reply | grep -q ' 200' || return 1
  tr -d '\r' < /run/reply | sed '1,/^$/d' > "/run/cfg/$1"
}
if [ $src = none ] && [ -n "$ip" ]; then
  mkdir -p /run/cfg
  if fetch meta_data.json; then src=metadata; fetch user_data; fi
fi
js() { cat /run/cfg/meta_data.json 2>/dev/null | tr -d '\n' | sed -n 's/.*"'$1'": *"\([^"]*\)".*/\1/p'; }
uuid=$(js uuid); hn=$(js hostname); [ -n "$hn" ] || hn=$(js name)
[ -n "$hn" ] && { echo "$hn" > /etc/hostname; hostname "$hn"; }
mkdir -p /root/.ssh; cat /run/cfg/meta_data.json 2>/dev/null | tr -d '\n' | grep -o 'ssh-[a-z0-9-]* [A-Za-z0-9+/=]*' > /root/.ssh/authorized_keys
if [ -f /run/cfg/user_data ] && head -c 2 /run/cfg/user_data | grep -q '#!'; then
  chmod +x /run/cfg/user_data; /run/cfg/user_data > /run/user_data.log 2>&1
  echo "GUEST-EVENT user-data exit=$?" > /dev/ttyS0
fi

# power button, hot-plug, guest agent
acpid -l /run/acpid.log -p /run/acpid.pid
uevent /etc/hotplug >/dev/null 2>&1 &
if [ -x /usr/sbin/qemu-ga ]; then
  for v in /sys/class/virtio-ports/*; do
    [ "$(cat $v/name 2>/dev/null)" = org.qemu.guest_agent.0 ] || continue
    /usr/sbin/qemu-ga -d -m virtio-serial -p /dev/${v##*/} -t /run -f /run/qga.pid -l /run/qga.log
  done
fi
disks=; for b in /sys/block/vd? /sys/block/sd? /sys/block/sr?; do [ -e "$b" ] && disks="$disks,${b##*/}:$(( $(cat $b/size) * 512 ))"; done
echo "GUEST-READY hostname=$(hostname) uuid=${uuid:-none} source=$src ip=${ip:-none} boot=$boot mem_kb=$(awk '/MemTotal/{print $2}' /proc/meminfo) cpus=$(nproc) disks=${disks#,} up=$(cut -d' ' -f1 /proc/uptime)" > /dev/ttyS0
X
chmod +x $R/bin/chpasswd $R/bin/shutdown $R/etc/rcS $R/etc/rcK $R/etc/hotplug $R/etc/shell $R/etc/acpi/PWRF/00000080 $R/etc/udhcpc/default.script

(cd $R && find . -mindepth 1 | LC_ALL=C sort | $BB cpio -o -H newc -R 0:0 2>/dev/null | gzip -9n) > "$WORK/initrd.gz"
KERNEL=$(ls "$WORK"/x/boot/vmlinuz-*)

# ---------------------------------------------------------------- disk: MBR + one FAT16 partition + syslinux
CMDLINE='console=tty0 console=ttyS0,115200 quiet panic=5 no_timer_check tsc=reliable mitigations=off nokaslr net.ifnames=0 random.trust_cpu=on'
cat > "$WORK/syslinux.cfg" <<X
SERIAL 0 115200
DEFAULT linux
PROMPT 0
TIMEOUT 0
LABEL linux
  KERNEL vmlinuz
  INITRD initrd.gz
  APPEND $CMDLINE
X
RAW=$WORK/disk.raw; rm -f "$RAW"; truncate -s ${SIZE}M "$RAW"
MBR=$(find "$WORK/x" -name mbr.bin -path '*mbr*' | head -1)
dd if="$MBR" of="$RAW" bs=440 count=1 conv=notrunc status=none
le32() { printf '\\x%02x\\x%02x\\x%02x\\x%02x' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24 & 255)); }
# disk id; one bootable partition, type 0e, from sector 2048 to the end; boot signature
printf "$(le32 1735746931)\\0\\0\\x80\\x20\\x21\\x00\\x0e\\xff\\xff\\xff$(le32 2048)$(le32 $(( (SIZE - 1) * 2048 )))" |
  dd of="$RAW" bs=1 seek=440 conv=notrunc status=none
printf '\x55\xaa' | dd of="$RAW" bs=1 seek=510 conv=notrunc status=none
export MTOOLS_SKIP_CHECK=1 MTOOLSRC=/dev/null PATH=$WORK/x/usr/bin:$PATH
mformat -i "$RAW"@@1M -v GUESTBOOT -H 2048 -T $(( (SIZE - 1) * 2048 )) -h 64 -s 32 ::
mcopy -i "$RAW"@@1M "$KERNEL" ::vmlinuz
mcopy -i "$RAW"@@1M "$WORK/initrd.gz" ::initrd.gz
mcopy -i "$RAW"@@1M "$WORK/syslinux.cfg" ::syslinux.cfg
syslinux --offset 1048576 --install "$RAW"
case $FMT in
  raw) cp --sparse=always "$RAW" "$OUT" ;;
  qcow2) qemu-img convert -q -c -f raw -O qcow2 "$RAW" "$OUT" ;;
  *) echo "format $FMT?" >&2; exit 2 ;;
esac
if [ $KEEPK = 1 ]; then cp "$KERNEL" "$(dirname "$OUT")/vmlinuz"; cp "$WORK/initrd.gz" "$(dirname "$OUT")/initrd.gz"; fi
echo "built $OUT ($(stat -c %s "$OUT") bytes, virtual ${SIZE} MiB, kernel $KVER, initrd $(stat -c %s "$WORK/initrd.gz") bytes)"
