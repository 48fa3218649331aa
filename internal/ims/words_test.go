package ims_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/ims"
)

// Whatever IMS, or who answers in its place, makes of the secret in its words, no piece of it is quoted.
func TestWordsThatHoldTheSecret(t *testing.T) {
	const old = "0a1b2c3d-4e5f-4000-8000-0a1b2c3d4e5f" // the shape of older secrets
	for _, secret := range []string{canary, old} {
		every := ""
		for _, b := range []byte(secret) {
			every += fmt.Sprintf("%%%02x", b)
		}
		for name, form := range map[string]string{
			"as it is": secret, "its begin": secret[:20], "its end": secret[len(secret)-14:], "twice": secret + secret[:9], "in capitals": strings.ToUpper(secret),
			"for a URL": url.QueryEscape(secret), "for a URL, small": strings.ToLower(url.QueryEscape(secret)), "each character": every,
			"in one another": url.QueryEscape(url.QueryEscape(every)), "for HTML": strings.ReplaceAll(secret, "a", "&#97;"),
			"cut within an encoding": url.QueryEscape(secret)[:16],
		} {
			for _, code := range []string{"invalid_client", "invalid_request"} {
				said, _ := json.Marshal(map[string]string{"error": code, "error_description": "invalid client_secret " + form + " parameter"})
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.WriteHeader(http.StatusBadRequest)
					w.Write(said)
				}))
				err := ims.New(server.URL, []string{"openid"}).Probe(t.Context(), credential.Credential{ClientID: "c", ClientSecret: credential.NewSecret(secret)})
				server.Close()
				text := strings.ToLower(fmt.Sprint(err))
				for i := range len(secret) - 7 {
					if strings.Contains(text, strings.ToLower(secret[i:i+8])) {
						t.Fatalf("%s, %s: the error shows a piece: %v", name, code, err)
					}
				}
				if strings.Contains(text, strings.ToLower(form)) || !strings.Contains(text, code) {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	}
}
