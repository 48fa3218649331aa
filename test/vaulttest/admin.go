package vaulttest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Write writes data as a new version of the secret at path, below Mount, and returns the version's number.
func (s *Server) Write(ctx context.Context, path string, data map[string]any) (version int, err error) {
	var answer struct {
		Data struct{ Version int }
	}
	err = s.Call(ctx, http.MethodPost, s.Mount+"/data/"+path, map[string]any{"data": data}, &answer)
	return answer.Data.Version, err
}

// Delete deletes versions of a secret so that Undelete can bring them back.
func (s *Server) Delete(ctx context.Context, path string, versions ...int) error {
	return s.versions(ctx, "delete", path, versions)
}

// Undelete brings deleted versions back.
func (s *Server) Undelete(ctx context.Context, path string, versions ...int) error {
	return s.versions(ctx, "undelete", path, versions)
}

// Destroy deletes versions for good.
func (s *Server) Destroy(ctx context.Context, path string, versions ...int) error {
	return s.versions(ctx, "destroy", path, versions)
}

func (s *Server) versions(ctx context.Context, verb, path string, versions []int) error {
	return s.Call(ctx, http.MethodPost, s.Mount+"/"+verb+"/"+path, map[string]any{"versions": versions}, nil)
}

// DeleteAll deletes a secret with all its versions: the next one written is version 1 again.
func (s *Server) DeleteAll(ctx context.Context, path string) error {
	return s.Call(ctx, http.MethodDelete, s.Mount+"/metadata/"+path, nil, nil)
}

// ReadPolicy is the least policy for the secret at path: to read its data and its metadata.
func (s *Server) ReadPolicy(path string) string {
	return fmt.Sprintf(`path "%[1]s/data/%[2]s" { capabilities = ["read"] } path "%[1]s/metadata/%[2]s" { capabilities = ["read"] }`,
		s.Mount, path)
}

// PushRules are the rules of a policy that allows polls of the secret at path, and events of it. With an external Vault the test
// is skipped: it may be an OpenBao, which refuses a policy that speaks of events.
func (s *Server) PushRules(path string) []string {
	if s.External && s.t != nil {
		s.t.Helper()
		s.t.Skip("an external Vault may refuse a policy that speaks of events")
	}
	return []string{
		fmt.Sprintf(`path "%s/metadata/%s" { capabilities = ["read"] }`, s.Mount, path),
		fmt.Sprintf(`path "%s/data/%s" { capabilities = ["read", "subscribe"] subscribe_event_types = ["kv-v2/data-*"] }`, s.Mount, path),
		`path "sys/events/subscribe/kv-v2/data-*" { capabilities = ["read"] }`,
	}
}

// PushPolicy is the least policy for polls and events of the secret at path.
func (s *Server) PushPolicy(path string) string { return strings.Join(s.PushRules(path), "\n") }

// Role makes a policy from policyHCL and an AppRole role that has it, whose tokens live for ttl (0: Vault's default). The
// role is known by its role id from then on.
func (s *Server) Role(ctx context.Context, policyHCL string, ttl time.Duration) (roleID, secretID string, err error) {
	name, err := s.policy(ctx, policyHCL)
	if err != nil {
		return "", "", err
	}
	path := "auth/" + s.AuthMount + "/role/" + name
	if err := s.Call(ctx, http.MethodPost, path, map[string]any{
		"token_policies": name, "token_ttl": ttl.String(), "token_max_ttl": ttl.String(),
	}, nil); err != nil {
		return "", "", err
	}
	var answer struct {
		Data struct {
			RoleID string `json:"role_id"`
		}
	}
	if err := s.Call(ctx, http.MethodGet, path+"/role-id", nil, &answer); err != nil {
		return "", "", err
	}
	s.mu.Lock()
	s.roles[answer.Data.RoleID] = name
	s.mu.Unlock()
	secretID, err = s.SecretID(ctx, answer.Data.RoleID)
	return answer.Data.RoleID, secretID, err
}

// policy makes a policy with a name of its own.
func (s *Server) policy(ctx context.Context, policyHCL string) (name string, err error) {
	name = "credsync-" + strings.TrimPrefix(s.Mount, "kv-") + "-" + strings.ToLower(rand.Text()[:10])
	if err := s.Call(ctx, http.MethodPost, "sys/policies/acl/"+name, map[string]any{"policy": policyHCL}, nil); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.policies = append(s.policies, name)
	return name, nil
}

func (s *Server) roleName(roleID string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.roles[roleID]
}

// SetPolicy replaces the policy of a role, for the tokens it has already, too.
func (s *Server) SetPolicy(ctx context.Context, roleID, policyHCL string) error {
	return s.Call(ctx, http.MethodPost, "sys/policies/acl/"+s.roleName(roleID), map[string]any{"policy": policyHCL}, nil)
}

// SecretID makes another secret-id for a role.
func (s *Server) SecretID(ctx context.Context, roleID string) (string, error) {
	var answer struct {
		Data struct {
			SecretID string `json:"secret_id"`
		}
	}
	err := s.Call(ctx, http.MethodPost, "auth/"+s.AuthMount+"/role/"+s.roleName(roleID)+"/secret-id", nil, &answer)
	return answer.Data.SecretID, err
}

// DestroySecretID makes a secret-id of a role a stale one.
func (s *Server) DestroySecretID(ctx context.Context, roleID, secretID string) error {
	return s.Call(ctx, http.MethodPost, "auth/"+s.AuthMount+"/role/"+s.roleName(roleID)+"/secret-id/destroy",
		map[string]any{"secret_id": secretID}, nil)
}

// NewToken makes a token with a policy of its own, which ends after ttl (0: Vault's default).
func (s *Server) NewToken(ctx context.Context, policyHCL string, ttl time.Duration) (string, error) {
	name, err := s.policy(ctx, policyHCL)
	if err != nil {
		return "", err
	}
	var answer struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		}
	}
	body := map[string]any{"policies": []string{name}}
	if ttl > 0 {
		body["ttl"] = ttl.String()
	}
	err = s.Call(ctx, http.MethodPost, "auth/token/create", body, &answer)
	return answer.Auth.ClientToken, err
}

// MustPeriodicToken makes a token that lives for another period each time it is renewed.
func (s *Server) MustPeriodicToken(policyHCL string, period time.Duration) (token string) {
	name, err := s.policy(s.ctx(), policyHCL)
	s.must(err)
	var answer struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		}
	}
	s.must(s.Call(s.ctx(), http.MethodPost, "auth/token/create",
		map[string]any{"policies": []string{name}, "period": period.String()}, &answer))
	return answer.Auth.ClientToken
}

// MustRenew renews a token, as whoever looks after it does.
func (s *Server) MustRenew(token string) {
	s.must(s.Call(s.ctx(), http.MethodPost, "auth/token/renew", map[string]any{"token": token}, nil))
}

// Revoke revokes a token, as an operator would in an emergency.
func (s *Server) Revoke(ctx context.Context, token string) error {
	return s.Call(ctx, http.MethodPost, "auth/token/revoke", map[string]any{"token": token}, nil)
}

// RoleTokens lists the accessors of the live tokens that logins with a role have made.
func (s *Server) RoleTokens(ctx context.Context, roleID string) ([]string, error) {
	return s.TokensOf(ctx, s.roleName(roleID))
}

// TokensOf is RoleTokens of a role by its name.
func (s *Server) TokensOf(ctx context.Context, role string) ([]string, error) {
	return s.tokens(ctx, func(t liveToken) bool { return t.Meta["role_name"] == role })
}

type liveToken struct {
	Path string
	Meta map[string]string
}

// makings are, by the address of a Vault, what is locked while accessors are listed there, and read-locked while a token may be made. A
// token can be looked up by its accessor a moment before it has a lease, and Vault then revokes it, whoever it belongs to.
var makings sync.Map

func making(address string) *sync.RWMutex {
	lock, _ := makings.LoadOrStore(address, new(sync.RWMutex))
	return lock.(*sync.RWMutex)
}

// tokens lists the accessors of the live tokens that fit. It ends none that are made meanwhile by this process or through its proxies.
func (s *Server) tokens(ctx context.Context, fits func(liveToken) bool) ([]string, error) {
	var list struct{ Data struct{ Keys []string } }
	lock := making(s.Address)
	lock.Lock()
	err := s.Call(ctx, "LIST", "auth/token/accessors", nil, &list)
	lock.Unlock()
	if err != nil {
		return nil, err
	}
	var found []string
	for _, accessor := range list.Data.Keys {
		var token struct{ Data liveToken }
		err := s.Call(ctx, http.MethodPost, "auth/token/lookup-accessor", map[string]any{"accessor": accessor}, &token)
		if hasEnded(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if fits(token.Data) {
			found = append(found, accessor)
		}
	}
	return found, nil
}

// hasEnded reports whether an error about an accessor says that its token has ended since it was listed.
func hasEnded(err error) bool {
	answer, ok := errors.AsType[*StatusError](err)
	return ok && (answer.Status == http.StatusForbidden || answer.Status == http.StatusNotFound || strings.Contains(answer.Error(), "invalid accessor"))
}

// RevokeRoleTokens revokes every token that logins with a role have made.
func (s *Server) RevokeRoleTokens(ctx context.Context, roleID string) error {
	accessors, err := s.RoleTokens(ctx, roleID)
	if err != nil {
		return err
	}
	for _, accessor := range accessors {
		err := s.Call(ctx, http.MethodPost, "auth/token/revoke-accessor", map[string]any{"accessor": accessor}, nil)
		if err != nil && !hasEnded(err) {
			return err
		}
	}
	return nil
}

var errExternal = errors.New("an external Vault is not sealed for a test")

// Seal seals the Vault: it answers 503 to everything until Unseal.
func (s *Server) Seal(ctx context.Context) error {
	switch {
	case s.External:
		return errExternal
	case s.UnsealKey == "":
		return errShared
	}
	return s.Call(ctx, http.MethodPost, "sys/seal", nil, nil)
}

// Unseal undoes Seal and returns when requests are served again.
func (s *Server) Unseal(ctx context.Context) error {
	if s.External {
		return errExternal
	}
	if err := s.call(ctx, "", http.MethodPost, "sys/unseal", map[string]any{"key": s.UnsealKey}, nil); err != nil {
		return err
	}
	for {
		// The KV mount comes back last.
		if err := s.Call(ctx, http.MethodGet, s.Mount+"/config", nil, nil); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Server) must(err error) {
	if s.t == nil && err != nil {
		panic(err)
	}
	if s.t != nil {
		s.t.Helper()
		if errors.Is(err, errExternal) {
			s.t.Skip(err)
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *Server) ctx() context.Context {
	if s.t == nil {
		return context.Background()
	}
	return s.t.Context()
}

// MustWrite is Write that ends the test when it fails, as are those below.
func (s *Server) MustWrite(path string, data map[string]any) (version int) {
	version, err := s.Write(s.ctx(), path, data)
	s.must(err)
	return version
}

// MustDelete deletes versions softly.
func (s *Server) MustDelete(path string, versions ...int) {
	s.must(s.Delete(s.ctx(), path, versions...))
}

// MustUndelete brings versions back.
func (s *Server) MustUndelete(path string, versions ...int) {
	s.must(s.Undelete(s.ctx(), path, versions...))
}

// MustDestroy deletes versions for good.
func (s *Server) MustDestroy(path string, versions ...int) {
	s.must(s.Destroy(s.ctx(), path, versions...))
}

// MustDeleteAll deletes a secret with its metadata.
func (s *Server) MustDeleteAll(path string) { s.must(s.DeleteAll(s.ctx(), path)) }

// MustRole makes a policy and a role with a secret-id.
func (s *Server) MustRole(policyHCL string, ttl time.Duration) (roleID, secretID string) {
	roleID, secretID, err := s.Role(s.ctx(), policyHCL, ttl)
	s.must(err)
	return roleID, secretID
}

// MustSecretID makes another secret-id for a role.
func (s *Server) MustSecretID(roleID string) string {
	secretID, err := s.SecretID(s.ctx(), roleID)
	s.must(err)
	return secretID
}

// MustSetPolicy replaces the policy of a role.
func (s *Server) MustSetPolicy(roleID, policyHCL string) {
	s.must(s.SetPolicy(s.ctx(), roleID, policyHCL))
}

// MustToken makes a token with a policy of its own.
func (s *Server) MustToken(policyHCL string, ttl time.Duration) string {
	token, err := s.NewToken(s.ctx(), policyHCL, ttl)
	s.must(err)
	return token
}

// MustRevoke revokes a token.
func (s *Server) MustRevoke(token string) { s.must(s.Revoke(s.ctx(), token)) }

// MustRoleTokens counts the live tokens of a role.
func (s *Server) MustRoleTokens(roleID string) int {
	accessors, err := s.RoleTokens(s.ctx(), roleID)
	s.must(err)
	return len(accessors)
}

// MustRevokeRoleTokens revokes every token of a role.
func (s *Server) MustRevokeRoleTokens(roleID string) { s.must(s.RevokeRoleTokens(s.ctx(), roleID)) }

// MustSeal seals the Vault; with an external one the test is skipped.
func (s *Server) MustSeal() { s.must(s.Seal(s.ctx())) }

// MustUnseal unseals it.
func (s *Server) MustUnseal() { s.must(s.Unseal(s.ctx())) }
