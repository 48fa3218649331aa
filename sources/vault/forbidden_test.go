package vault_test

import "testing"

// A path that stays forbidden costs one request a poll, in turns for metadata and data: either may be allowed again.
func TestForbiddenPathCostsOneRequest(t *testing.T) {
	for _, back := range []string{"metadata and data", "data"} {
		t.Run(back, func(t *testing.T) {
			l := newLab(t)
			l.Server.MustWrite(path, oauth())
			kv := l.KV(l.Vault())
			l.Server.MustSetPolicy(l.RoleID, `path "none" { capabilities = ["read"] }`)
			l.MustFail(kv, "permission denied", "policy that allows to read")
			l.Proxy.Requests()
			asked := map[string]int{}
			for range 6 {
				l.MustFail(kv, "permission denied", "policy that allows to read")
			}
			for _, r := range l.Proxy.Requests() {
				asked[map[bool]string{true: "data", false: "metadata"}[r.DataRead()]]++
			}
			if asked["data"] != 3 || asked["metadata"] != 3 {
				t.Errorf("asked for %v in 6 polls, want 3 of each", asked)
			}
			policy := l.Server.ReadPolicy(path)
			if back == "data" {
				policy = `path "` + l.Server.Mount + `/data/` + path + `" { capabilities = ["read"] }`
			}
			l.Server.MustSetPolicy(l.RoleID, policy)
			for range 2 {
				reading, err := kv.Poll(t.Context(), always)
				if err == nil && reading.Credential != nil {
					return
				}
			}
			t.Error("not read within two polls")
		})
	}
}
