#!/bin/sh
# Run a static x86-64 program on a processor that this machine does not have:
#
#     emulate/x86.sh MODEL PROGRAM [ARGUMENT...]
#
# Bochs interprets a machine with a processor of MODEL (`bochs --help cpu` lists them), which boots
# Linux with PROGRAM on a RAM disk. What PROGRAM prints comes out of the serial port; the exit
# status is PROGRAM's. FILES may list further files that it reads by their absolute paths.
#
# Needs Debian's packages bochs, bochsbios, vgabios, busybox-static, cpio, grub-pc-bin, grub-common,
# mtools and xorriso, and a kernel: KERNEL, or the newest in /boot or /usr/lib/modules. AVX-VNNI
# (models arrow_lake, wildcat_lake) needs bochs 3; tigerlake and sapphire_rapids have AVX-512 VNNI,
# and the second AVX-512 BF16 too.
set -eu

[ $# -ge 2 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
model=$1 program=$(realpath "$2")
shift 2
kernel=${KERNEL:-$(ls -t /boot/vmlinuz-* /usr/lib/modules/*/vmlinuz 2>/dev/null | head -n 1)}
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT

# The RAM disk: the program, a shell to start it, and the files it reads.
mkdir -p "$work/disk/bin" "$work/disk/proc" "$work/disk/dev" "$work/disk/tmp" "$work/iso/boot/grub"
cp "$(command -v busybox)" "$work/disk/bin/busybox"
cp "$program" "$work/disk/program"
for file in ${FILES:-}; do
    mkdir -p "$work/disk$(dirname "$file")"
    cp "$file" "$work/disk$file"
done
quoted=
for argument; do quoted="$quoted '$(printf %s "$argument" | sed "s/'/'\\\\''/g")'"; done
cat >"$work/disk/init" <<INIT
#!/bin/sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
export RUST_BACKTRACE=0 ${VARIABLES:-}
status=0
cd /tmp
/program $quoted </dev/null >/dev/ttyS0 2>&1 || status=\$?
echo "program ended with \$status" >/dev/ttyS0
/bin/busybox sleep 1
/bin/busybox poweroff -f
INIT
ln -s busybox "$work/disk/bin/sh"
chmod +x "$work/disk/init"
(cd "$work/disk" && find . | cpio --quiet -o -H newc) >"$work/iso/boot/disk"
cp "$kernel" "$work/iso/boot/kernel"

# Interpreting is slow: no timing, no mitigations, nothing that polls. Bochs lacks what Linux needs to
# switch on AMX, and does not leave system management mode with pages of five levels.
options="clearcpuid=amx_tile no5lvl console=ttyS0 ${QUIET-quiet loglevel=3} mitigations=off nosmp nokaslr tsc=reliable audit=0 panic=0 ${OPTIONS:-}"
cat >"$work/iso/boot/grub/grub.cfg" <<GRUB
linux /boot/kernel $options
initrd /boot/disk
boot
GRUB
grub-mkrescue -d "${GRUB:-/usr/lib/grub/i386-pc}" -o "$work/cd" "$work/iso" >"$work/mkrescue" 2>&1 || {
    cat "$work/mkrescue" >&2
    exit 2
}
: >"$work/serial"
cat >"$work/bochsrc" <<BOCHS
cpu: model=$model, count=1, ips=200000000, reset_on_triple_fault=0
memory: guest=${MEMORY:-1024}, host=${MEMORY:-1024}
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0: enabled=1
ata0-master: type=cdrom, path="$work/cd", status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$work/serial
display_library: ${DISPLAY_LIBRARY:-rfb, options="timeout=0"}
clock: sync=none
log: $work/log
panic: action=fatal
error: action=ignore
info: action=ignore
BOCHS
bochs -q -f "$work/bochsrc" >"$work/out" 2>&1 </dev/null &
bochs=$!
# A machine that has halted stays: what it printed says when it is done.
ended='^program ended with \([0-9]*\).*'
waited=0
while kill -0 "$bochs" 2>/dev/null && ! grep -q "$ended\|Kernel panic" "$work/serial" && [ "$waited" -lt "${SECONDS_MAX:-3600}" ]; do
    sleep 1
    waited=$((waited + 1))
done
kill "$bochs" 2>/dev/null || true
tr -d "\r" <"$work/serial"
status=$(sed -n "s/$ended/\1/p" "$work/serial")
[ -n "$status" ] || { cat "$work/log" "$work/out" >&2; exit 2; }
exit "$status"
