package vaulttest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// While a token is being made, the tokens are not listed. A server in place of Vault makes that take long enough to be seen.
func TestListingWaitsForTokensBeingMade(t *testing.T) {
	for name, path := range map[string]string{"by a login through a proxy": "auth/approle/login", "by a test": "auth/token/create"} {
		t.Run(name, func(t *testing.T) {
			begun, listed := make(chan struct{}), make(chan struct{})
			vault := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch strings.TrimPrefix(r.URL.Path, "/v1/") {
				case path:
					close(begun)
					select {
					case <-listed:
						t.Error("they are listed meanwhile")
					case <-time.After(100 * time.Millisecond): // long for a request
					}
				case "auth/token/accessors":
					close(listed)
				}
				io.WriteString(w, `{}`)
			}))
			defer vault.Close()
			s := newServer()
			s.Address = vault.URL
			defer s.client.CloseIdleConnections()
			maker := s
			if path == "auth/approle/login" {
				maker = newServer()
				maker.Address = s.Proxy(t).Address
				defer maker.client.CloseIdleConnections()
			}
			made := make(chan error)
			go func() { made <- maker.Call(t.Context(), http.MethodPost, path, nil, nil) }()
			<-begun
			if _, err := s.tokens(t.Context(), func(liveToken) bool { return true }); err != nil {
				t.Error(err)
			}
			if err := <-made; err != nil {
				t.Error(err)
			}
		})
	}
}
