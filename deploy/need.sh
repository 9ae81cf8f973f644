#!/bin/sh
# Installs what is missing of the things named: go gcc postgresql chromium npm.
# Debian and Ubuntu by apt (as root or with sudo), macOS by brew; elsewhere it says what to install.
set -eu

have() {
	case $1 in
	postgresql) ls /usr/lib/postgresql/*/bin/postgres /opt/homebrew/opt/postgresql*/bin/postgres \
		/usr/local/opt/postgresql*/bin/postgres /usr/pgsql-*/bin/postgres 2>/dev/null | grep -q . || command -v postgres >/dev/null ;;
	chromium) [ -x /usr/lib/chromium/chromium-headless-shell ] || [ -x /usr/lib/chromium/chromium ] || [ -d "/Applications/Google Chrome.app" ] || [ -d /Applications/Chromium.app ] ||
		command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null ;;
	gcc) command -v cc >/dev/null ;;
	*) command -v "$1" >/dev/null ;;
	esac
}

missing=
for thing in "$@"; do
	have "$thing" || missing="$missing $thing"
done
[ -n "$missing" ] || exit 0

case " $missing " in *" go "*)
	echo "Go 1.26 or newer is missing: https://go.dev/doc/install" >&2
	exit 1 ;;
esac

packages=
if command -v apt-get >/dev/null; then
	for thing in $missing; do
		case $thing in
		gcc) packages="$packages gcc libc6-dev" ;;
		npm) packages="$packages nodejs npm" ;;
		*) packages="$packages $thing" ;;
		esac
	done
	as_root=
	if [ "$(id -u)" != 0 ]; then
		command -v sudo >/dev/null || { echo "Missing:$missing. Install as root: apt-get install$packages" >&2; exit 1; }
		as_root=sudo
	fi
	echo "Installing$packages" >&2
	export DEBIAN_FRONTEND=noninteractive
	install() { $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null </dev/null; }
	$as_root apt-get update -qq </dev/null
	case $packages in *chromium*)
		# The one without windows takes less of everything; not every distribution has it.
		! apt-cache show chromium-headless-shell >/dev/null 2>&1 || packages=$(echo "$packages" | sed 's/chromium/chromium-headless-shell/') ;;
	esac
	case $packages in *postgresql*)
		# Only the binaries are wanted, not a server that starts with the machine.
		install postgresql-common
		$as_root sed -i 's/^#*create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf ;;
	esac
	# shellcheck disable=SC2086
	install $packages
elif command -v brew >/dev/null; then
	for thing in $missing; do
		case $thing in
		postgresql) brew install postgresql@17 ;;
		chromium) brew install --cask chromium ;;
		npm) brew install node ;;
		gcc) xcode-select --install ;;
		esac
	done
else
	echo "Install these with your system's package manager, then run this again:$missing" >&2
	exit 1
fi
