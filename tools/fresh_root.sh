#!/usr/bin/env bash
# Runs README.md line by line in a new Debian: tools/fresh_root.sh [PORT]
# Run it by hand, as root. It needs debootstrap, some minutes, and 2 GB in TMPDIR. The new Debian has no git
# configuration, no pip cache, and only the committed files of this repository. From this machine it uses apt's mirror and
# pip's settings, which are read when it runs and passed as environment variables.
set -euo pipefail
port=${1:-3001}
here=$(cd "$(dirname "$0")/.." && pwd)
. /etc/os-release
mirror=$(apt-get indextargets --format '$(SITE) $(CODENAME)' 'Created-By: Packages' 'Component: main' |
    sed -n "s/ $VERSION_CODENAME\$//p" | head -n 1)

root=$(mktemp -d)
trap 'rm -rf --one-file-system "$root"' EXIT
echo "Making a Debian $VERSION_CODENAME in $root"
debootstrap --variant=minbase "$VERSION_CODENAME" "$root" "$mirror" >"$root.log" || { cat "$root.log"; exit 1; }
rm -f "$root.log"
cp /etc/hosts /etc/resolv.conf "$root/etc/"
git clone --quiet --no-hardlinks "$here" "$root/root/image-gateway"

# pip's settings become variables: global.extra-index-url becomes PIP_EXTRA_INDEX_URL. Its certificates are copied to a
# path that no package writes to.
surroundings=(HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive)
while IFS='=' read -r name value; do
    name=${name##*.} value=${value#\'} value=${value%\'}
    if [ "$name" = cert ]; then
        cp "$value" "$root/root/pip-certificates"
        value=/root/pip-certificates
    fi
    surroundings+=("PIP_$(tr 'a-z-' 'A-Z_' <<<"$name")=$value")
done < <(python3 -m pip config list)
for name in http_proxy https_proxy no_proxy; do
    if [ -n "${!name:-}" ]; then surroundings+=("$name=${!name}"); fi
done

python3 "$here/tools/readme.py" --install --port "$port" --root "$root" --folder /root/image-gateway -- \
    chroot "$root" env -i "${surroundings[@]}" sh
