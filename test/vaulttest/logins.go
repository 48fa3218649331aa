package vaulttest

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

// enable mounts a login method of its own, and returns where.
func (s *Server) enable(ctx context.Context, method string, config map[string]any) (mount string, err error) {
	mount = method + strings.TrimPrefix(s.Mount, "kv") + "-" + strings.ToLower(rand.Text()[:10])
	s.mu.Lock()
	s.logins = append(s.logins, mount)
	s.mu.Unlock()
	if err := s.Call(ctx, http.MethodPost, "sys/auth/"+mount, map[string]any{"type": method}, nil); err != nil || config == nil {
		return mount, err
	}
	return mount, s.Call(ctx, http.MethodPost, "auth/"+mount+"/config", config, nil)
}

// role makes a policy and a role of a login method that has it, both of the same name.
func (s *Server) role(ctx context.Context, mount, kind, policyHCL string, ttl time.Duration, more map[string]any) (name string, err error) {
	if name, err = s.policy(ctx, policyHCL); err != nil {
		return "", err
	}
	body := map[string]any{"token_policies": name, "token_ttl": ttl.String(), "token_max_ttl": ttl.String()}
	for key, value := range more {
		body[key] = value
	}
	return name, s.Call(ctx, http.MethodPost, "auth/"+mount+"/"+kind+"/"+name, body, nil)
}

// MustCertRole makes a role of the login by certificate that trusts what the authority signed.
func (s *Server) MustCertRole(policyHCL string, ttl time.Duration, authority *Authority) (mount, role string) {
	certificate, err := os.ReadFile(authority.File)
	s.must(err)
	mount, err = s.enable(s.ctx(), "cert", nil)
	s.must(err)
	role, err = s.role(s.ctx(), mount, "certs", policyHCL, ttl, map[string]any{"certificate": string(certificate)})
	s.must(err)
	return mount, role
}

// MustJWTRole makes a role of the login by JWT for the subject of tokens that signer signed, with the audience "vault".
func (s *Server) MustJWTRole(policyHCL string, ttl time.Duration, signer *Signer, subject string) (mount, role string) {
	mount, err := s.enable(s.ctx(), "jwt", map[string]any{"jwt_validation_pubkeys": []string{signer.PublicKey()}})
	s.must(err)
	role, err = s.role(s.ctx(), mount, "role", policyHCL, ttl, map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_subject": subject, "bound_audiences": []string{"vault"},
		"clock_skew_leeway": "-1", "expiration_leeway": "-1",
	})
	s.must(err)
	return mount, role
}

// MustKubernetesRole makes a role of the login by Kubernetes for a service account of the cluster that signer stands for;
// reviewer is its MustReviewer.
func (s *Server) MustKubernetesRole(policyHCL string, ttl time.Duration, reviewer, namespace, account string) (mount, role string) {
	mount, err := s.enable(s.ctx(), "kubernetes", map[string]any{"kubernetes_host": reviewer, "disable_local_ca_jwt": true})
	s.must(err)
	role, err = s.role(s.ctx(), mount, "role", policyHCL, ttl, map[string]any{
		"bound_service_account_names": []string{account}, "bound_service_account_namespaces": []string{namespace},
		"alias_name_source": "serviceaccount_name",
	})
	s.must(err)
	return mount, role
}

// RoleName returns the name of an AppRole role.
func (s *Server) RoleName(roleID string) string { return s.roleName(roleID) }

// MustSetRole changes settings of an AppRole role.
func (s *Server) MustSetRole(roleID string, settings map[string]any) {
	s.must(s.Call(s.ctx(), http.MethodPost, "auth/"+s.AuthMount+"/role/"+s.roleName(roleID), settings, nil))
}

// LookupPolicy lets a role's tokens look secret-ids of that role up.
func (s *Server) LookupPolicy(roleID string) string {
	return `path "auth/` + s.AuthMount + `/role/` + s.roleName(roleID) + `/secret-id/lookup" { capabilities = ["update"] }`
}

// Wrap makes a request whose answer is wrapped, and returns the token to unwrap it with once, before ttl is over.
func (s *Server) Wrap(ctx context.Context, method, path string, body any, ttl time.Duration) (token string, err error) {
	var answer struct {
		WrapInfo struct{ Token string } `json:"wrap_info"`
	}
	err = s.callWith(ctx, http.Header{"X-Vault-Wrap-TTL": {ttl.String()}}, s.Token, method, path, body, &answer)
	if err == nil && answer.WrapInfo.Token == "" {
		err = errors.New("the answer was not wrapped")
	}
	return answer.WrapInfo.Token, err
}

// MustWrappedSecretID makes a secret-id for a role and returns it wrapped.
func (s *Server) MustWrappedSecretID(roleID string, ttl time.Duration) (token string) {
	token, err := s.Wrap(s.ctx(), http.MethodPost, "auth/"+s.AuthMount+"/role/"+s.roleName(roleID)+"/secret-id", nil, ttl)
	s.must(err)
	return token
}

// MustSecretIDs lists the accessors of a role's secret-ids.
func (s *Server) MustSecretIDs(roleID string) (accessors []string) {
	var list struct{ Data struct{ Keys []string } }
	s.must(s.Call(s.ctx(), "LIST", "auth/"+s.AuthMount+"/role/"+s.roleName(roleID)+"/secret-id", nil, &list))
	return list.Data.Keys
}

// MustDestroySecretIDs destroys every secret-id of a role but those whose accessors are to keep.
func (s *Server) MustDestroySecretIDs(roleID string, keep ...string) {
	for _, accessor := range s.MustSecretIDs(roleID) {
		if !slices.Contains(keep, accessor) {
			s.must(s.Call(s.ctx(), http.MethodPost, "auth/"+s.AuthMount+"/role/"+s.roleName(roleID)+"/secret-id-accessor/destroy",
				map[string]any{"secret_id_accessor": accessor}, nil))
		}
	}
}

// MustUnwrap unwraps, as somebody else would, and returns what was wrapped.
func (s *Server) MustUnwrap(token string) map[string]any {
	var answer struct{ Data map[string]any }
	s.must(s.call(s.ctx(), token, http.MethodPost, "sys/wrapping/unwrap", nil, &answer))
	return answer.Data
}

// MountTokens lists the accessors of the live tokens that logins at a mount have made.
func (s *Server) MountTokens(ctx context.Context, mount string) ([]string, error) {
	return s.tokens(ctx, func(t liveToken) bool { return t.Path == "auth/"+mount+"/login" })
}

// MustMountTokens counts them.
func (s *Server) MustMountTokens(mount string) int {
	accessors, err := s.MountTokens(s.ctx(), mount)
	s.must(err)
	return len(accessors)
}

// MustMountNames lists the common names of the certificates that live tokens of a mount were got with.
func (s *Server) MustMountNames(mount string) (names []string) {
	_, err := s.tokens(s.ctx(), func(t liveToken) bool {
		if t.Path == "auth/"+mount+"/login" {
			names = append(names, t.Meta["common_name"])
		}
		return false
	})
	s.must(err)
	return names
}

// MustRevokeMountTokens revokes them.
func (s *Server) MustRevokeMountTokens(mount string) {
	accessors, err := s.MountTokens(s.ctx(), mount)
	s.must(err)
	for _, accessor := range accessors {
		if err := s.Call(s.ctx(), http.MethodPost, "auth/token/revoke-accessor", map[string]any{"accessor": accessor}, nil); !hasEnded(err) {
			s.must(err)
		}
	}
}
