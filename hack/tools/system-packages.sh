#!/usr/bin/env bash
# Installs the system packages that a lab needs, if any is missing: with apt
# when run as root, else it says what to install.
#
#   system-packages.sh            what every lab needs
#   system-packages.sh --tests    also what the tests need
set -euo pipefail

# program:package
needed=(ip:iproute2 nft:nftables flock:util-linux chroot:coreutils)
case ${1:-} in
"") ;;
--tests) needed+=(promtool:prometheus) ;;
*)
    echo "system-packages.sh: what is $1?" >&2
    exit 2
    ;;
esac
PATH=$PATH:/usr/sbin:/sbin

missing=()
for pair in "${needed[@]}"; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
done
((${#missing[@]})) || exit 0

if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    echo "installing ${missing[*]}" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get install --yes --quiet=2 --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
        { apt-get update --quiet=2 && apt-get install --yes --quiet=2 --no-install-recommends "${missing[@]}" >/dev/null; }
else
    echo "please install these system packages: ${missing[*]}" >&2
    exit 1
fi
