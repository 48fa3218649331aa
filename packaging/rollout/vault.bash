# What rollout does in Vault. Read by rollout.
# shellcheck shell=bash disable=SC2034,SC2154 # the variables belong to rollout

read_token() {
	[ -n "${VAULT_ADDR:-}" ] || wrong "VAULT_ADDR is not set"
	VAULT_ADDR=${VAULT_ADDR%/}
	[[ $VAULT_ADDR =~ ^https?://[A-Za-z0-9.:_/-]+$|^https?://\[[0-9A-Fa-f:]+\](:[0-9]+)?$ ]] || wrong "VAULT_ADDR is no address"
	[[ ${VAULT_NAMESPACE:=} =~ ^[A-Za-z0-9._/-]*$ ]] || wrong "VAULT_NAMESPACE is no namespace"
	token=${VAULT_TOKEN:-}
	[ -n "$token" ] || token=$(cat ~/.vault-token 2>/dev/null) || wrong "there is neither VAULT_TOKEN nor ~/.vault-token: vault login"
	[[ $token =~ ^[A-Za-z0-9._-]+$ ]] || wrong "the token of Vault has characters that no token has"
}

# Sets vault_status and vault_answer. The token goes through a pipe.
vault() { # METHOD PATH [JSON [HEADER]]
	local all
	all=$(printf 'header = "X-Vault-Token: %s"\n' "$token" | curl --disable --config - --silent --show-error --max-time 30 \
		${VAULT_CACERT:+--cacert "$VAULT_CACERT"} ${VAULT_NAMESPACE:+--header "X-Vault-Namespace: $VAULT_NAMESPACE"} \
		--header 'X-Vault-Request: true' ${4:+--header "$4"} ${3:+--data "$3"} --request "$1" \
		--write-out '\n%{http_code}' "$VAULT_ADDR/v1/$2" 2>&1) || {
		[[ $all =~ curl:\ \([0-9]+\)[^$'\n']* ]] || fail "curl ends without a word"
		fail "$(printf %s "${BASH_REMATCH[0]}" | plain)" # and not what came of the answer: that may be a token
	}
	vault_status=${all##*$'\n'} vault_answer=${all%$'\n'*}
}

field() { printf %s "$vault_answer" | jq -r "$1 // empty"; }

# The end, unless Vault did it.
done_by_vault() {
	[[ $vault_status == 2* ]] || fail "Vault answers $vault_status: $(printf %s "$vault_answer" | jq -r '.errors | join(", ")' 2>/dev/null | plain || true)"
}

# Whether it is there.
is_in_vault() { # PATH
	vault GET "$1"
	[ "$vault_status" != 404 ] || return 1
	done_by_vault
}

check_permissions() {
	local target role need=() paths missing
	step="permissions of the Vault token"
	for target in "${targets[@]}"; do
		role=auth/$auth_mount/role/${role_of[$target]}
		need+=("sys/policies/acl/${role_of[$target]} read create update delete" "$role read create update delete" "$role/role-id read"
			"$role/secret-id update list" "$role/secret-id-accessor/destroy update")
	done
	paths=$(printf '%s\n' "${need[@]}" | jq -Rn '{paths: [inputs | split(" ")[0]]}')
	vault POST sys/capabilities-self "$paths"
	done_by_vault
	missing=$(printf '%s\n' "${need[@]}" | jq -Rrn --slurpfile all <(printf %s "$vault_answer") '
		inputs | split(" ") as [$path] | (split(" ")[1:] - $all[0].data[$path]) as $lacks
		| select($lacks != [] and ($all[0].data[$path] | index("root") | not)) | "  \($path): \($lacks | join(", "))"')
	[ -z "$missing" ] || fail $'it lacks these:\n'"$missing"$'\nSee docs/rollout.md for its policy.'
}

policy() {
	printf 'path "%s/data/%s" { capabilities = ["read"] }\npath "%s/metadata/%s" { capabilities = ["read"] }\n' "$mount" "$path" "$mount" "$path"
	printf 'path "auth/%s/role/%s/secret-id/lookup" { capabilities = ["update"] }\n' "$auth_mount" "$role"
}

make_policy() {
	vault POST "sys/policies/acl/$role" "$(policy | jq -Rs '{policy: .}')"
	done_by_vault
}

make_role() {
	vault POST "auth/$auth_mount/role/$role" "$(jq -n --arg p "$role" '{token_policies: [$p], token_ttl: "1h", token_max_ttl: "1h"}')"
	done_by_vault
}

policy_is_ours() { [ "$(field .data.policy)" = "$(policy)" ]; }
role_is_ours() { [ "$(field '.data | select(.bind_secret_id) | .token_policies | join(",")')" = "$role" ]; }

# Sets role_id; empty where there is no role.
ask_role_id() {
	role_id=
	is_in_vault "auth/$auth_mount/role/$role/role-id" || return 0
	role_id=$(field .data.role_id)
	[[ $role_id =~ ^[A-Za-z0-9._-]+$ ]] || fail "the role-id of $role has characters that do not fit into a configuration"
}

# Sets accessors, those of the role's secret-ids.
list_secret_ids() {
	accessors=
	vault LIST "auth/$auth_mount/role/$role/secret-id"
	[ "$vault_status" != 404 ] || return 0
	done_by_vault
	accessors=$(field '.data.keys[]')
}

destroy_secret_ids() { # ACCESSOR...
	local accessor
	for accessor; do
		vault POST "auth/$auth_mount/role/$role/secret-id-accessor/destroy" "$(jq -n --arg a "$accessor" '{secret_id_accessor: $a}')"
		done_by_vault
	done
}

# The host gets a token that is good for one look at the secret-id. Nobody has seen the secret-id then. Sets superseded, the secret-ids of
# before: the role is for this host only.
issue_secret_id() {
	list_secret_ids
	issued=yes superseded=$accessors
	vault POST "auth/$auth_mount/role/$role/secret-id" '{}' 'X-Vault-Wrap-TTL: 10m'
	done_by_vault
	field .wrap_info.token | send secret-id || exit
}
