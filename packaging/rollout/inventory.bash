# What rollout is told: the inventory and the package. Read by rollout.
# shellcheck shell=bash disable=SC2034,SC2154,SC2004 # the variables belong to rollout, some of them associative

# Sets targets, and for each target instance_of, path_of and role_of.
read_inventory() { # FILE TARGET...
	local file=$1 line number=0 bad=0 target instance path rest name
	local -A role_at=()
	shift
	[ -r "$file" ] || wrong "$file cannot be read"
	while IFS= read -r line || [ -n "$line" ]; do
		number=$((number + 1))
		read -r target instance path rest < <(printf '%s\n' "${line%%#*}")
		[ -n "$target" ] || continue
		name=${target#*@}
		name=$role_prefix${name,,}
		problem=
		if [ -z "$path" ] || [ -n "$rest" ]; then
			problem="want three fields: ssh target, instance, path of the secret"
		elif ! [[ $target =~ ^([A-Za-z0-9_][A-Za-z0-9._-]*@)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$ ]]; then
			problem="$(printf %q "$target") is no ssh target: want HOST or USER@HOST"
		elif ! [[ $instance =~ ^[A-Za-z0-9_][A-Za-z0-9_-]{0,127}$ ]]; then
			problem="$(printf %q "$instance") is no name of an instance: want letters, digits, _ and -"
		elif ! [[ $path =~ ^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$ ]]; then
			problem="$(printf %q "$path") is no path: want letters, digits, . _ - and single /, as in campaign/prod/oauth"
		elif [[ $path == data/* ]]; then
			problem="$path begins with data/: want the path within the mount"
		elif [ -n "${role_at[$name]:-}" ]; then
			problem="the host ${target#*@} is in line ${role_at[$name]}, too: one line a host"
		fi
		if [ -n "$problem" ]; then
			printf '%s:%d: %s\n' "$file" "$number" "$problem" >&2
			bad=1
			continue
		fi
		role_at[$name]=$number
		targets+=("$target")
		instance_of[$target]=$instance path_of[$target]=$path role_of[$target]=$name
	done <"$file"
	[ $bad = 0 ] || exit 2
	[ ${#targets[@]} -gt 0 ] || wrong "$file has no hosts"
	[ $# -gt 0 ] || return 0
	for target; do [ -n "${path_of[$target]:-}" ] || wrong "$file has no host $target"; done
	targets=("$@")
}

# Sets format, version and machine of the package from its name, and binary, the checksum of the program in a tar.gz.
read_package() {
	[ -n "$package" ] || wrong "$verb needs --package"
	[ -r "$package" ] || wrong "$package cannot be read"
	local name=${package##*/}
	binary=
	if [[ $name =~ ^campaign-credsync_(.+)_(amd64|arm64)\.deb$ ]]; then
		format=deb
	elif [[ $name =~ ^campaign-credsync-(.+)\.(x86_64|aarch64)\.rpm$ ]]; then
		format=rpm
	elif [[ $name =~ ^campaign-credsync_(.+)_linux_(amd64|arm64)\.tar\.gz$ ]]; then
		format=tar
		binary=$(tar -xzOf "$package" usr/bin/campaign-credsync | sha256sum) || wrong "$package has no program"
		binary=${binary%% *}
	else
		wrong "$name is not named as make package does: the name tells version and architecture"
	fi
	version=${BASH_REMATCH[1]} machine=${BASH_REMATCH[2]}
	case $machine in amd64) machine=x86_64 ;; arm64) machine=aarch64 ;; esac
}

# Without hold, the first start would replace a credential that works; without @ROLE_ID@, all hosts would share a role.
read_template() {
	[ -r "$template" ] || wrong "$template cannot be read"
	local text='' line want
	while IFS= read -r line || [ -n "$line" ]; do text+=${line%%#*}$'\n'; done <"$template"
	for want in 'first_apply: hold' 'secret_id_wrapped: true' @VAULT_ADDR@ @AUTH_MOUNT@ @ROLE_ID@ @INSTANCE@ @MOUNT@ @PATH@; do
		[[ $text == *"$want"* ]] || wrong "$template has no $want"
	done
}
