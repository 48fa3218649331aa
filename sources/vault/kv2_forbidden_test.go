package vault_test

import "testing"

// A path that stays forbidden costs two light requests a poll: metadata or data may be allowed again.
func TestForbiddenPathIsReadOnceAllowed(t *testing.T) {
	for _, back := range []string{"metadata and data", "data"} {
		t.Run(back, func(t *testing.T) {
			l := newLab(t)
			l.Server.MustWrite(path, oauth())
			kv := l.KV(l.Vault())
			l.Server.MustSetPolicy(l.RoleID, `path "none" { capabilities = ["read"] }`)
			l.MustFail(kv, "permission denied", "policy that allows to read")
			l.Proxy.Requests()
			for range 3 {
				l.MustFail(kv, "permission denied", "policy that allows to read")
			}
			if n := len(l.Proxy.Requests()); n != 6 {
				t.Errorf("%d requests in 3 polls, want 6", n)
			}
			policy := l.Server.ReadPolicy(path)
			if back == "data" {
				policy = `path "` + l.Server.Mount + `/data/` + path + `" { capabilities = ["read"] }`
			}
			l.Server.MustSetPolicy(l.RoleID, policy)
			l.Picked(l.MustPoll(kv, always))
		})
	}
}
