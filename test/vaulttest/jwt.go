package vaulttest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// Signer signs JSON web tokens (ES256) as an identity provider, or a cluster for its service accounts, does. Its methods may be
// called concurrently, but those that end the test.
type Signer struct {
	key *ecdsa.PrivateKey
}

// MustSigner makes a signer with a key of its own.
func MustSigner(t testing.TB) *Signer {
	t.Helper()
	return &Signer{mustKey(t)}
}

// PublicKey is the key to verify with, PEM.
func (s *Signer) PublicKey() string {
	der, err := x509.MarshalPKIXPublicKey(&s.key.PublicKey)
	if err != nil {
		panic(err) // a P-256 key always marshals
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// Sign returns a token with claims, which get an issue time and, where they have none, an end in an hour.
func (s *Signer) Sign(claims map[string]any) string {
	all := map[string]any{"iat": time.Now().Add(-time.Minute).Unix(), "exp": time.Now().Add(time.Hour).Unix()}
	for name, value := range claims {
		all[name] = value
	}
	payload, err := json.Marshal(all)
	if err != nil {
		panic(err) // claims of tests always marshal
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(payload)
	digest := sha256.Sum256([]byte(text))
	r, v, err := ecdsa.Sign(rand.Reader, s.key, digest[:])
	if err != nil {
		panic(err) // only a broken source of randomness
	}
	signature := append(r.FillBytes(make([]byte, 32)), v.FillBytes(make([]byte, 32))...)
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

var errNotSigned = errors.New("token is not signed by this cluster, or has expired")

// verify returns the claims of a token of ours that has not expired.
func (s *Signer) verify(token string) (map[string]any, error) {
	text, encoded, ok := cutLast(token, ".")
	signature, err := base64.RawURLEncoding.DecodeString(encoded)
	if !ok || err != nil || len(signature) != 64 {
		return nil, errNotSigned
	}
	digest := sha256.Sum256([]byte(text))
	r, v := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
	_, encoded, _ = strings.Cut(text, ".")
	payload, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil || !ecdsa.Verify(&s.key.PublicKey, digest[:], r, v) {
		return nil, errNotSigned
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		return nil, err
	}
	if end, ok := claims["exp"].(float64); !ok || time.Now().Unix() >= int64(end) {
		return nil, errNotSigned
	}
	return claims, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// ServiceAccount returns the token of a service account, as Kubernetes projects it into a pod, that ends at end.
func (s *Signer) ServiceAccount(namespace, name string, end time.Time) string {
	return s.Sign(map[string]any{
		"iss": "https://kubernetes.default.svc.cluster.local", "exp": end.Unix(),
		"sub": "system:serviceaccount:" + namespace + ":" + name,
		"kubernetes.io": map[string]any{
			"namespace":      namespace,
			"serviceaccount": map[string]any{"name": name, "uid": "uid-of-" + name},
		},
	})
}

// MustReviewer starts what stands in for a Kubernetes API server: its TokenReview endpoint, the only part of one that
// Vault's login by Kubernetes asks. It vouches for tokens that this signer signed and that have not expired.
func (s *Signer) MustReviewer(t testing.TB) (address string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			Spec struct{ Token string }
		}
		if r.Method != http.MethodPost || r.URL.Path != "/apis/authentication.k8s.io/v1/tokenreviews" ||
			json.NewDecoder(r.Body).Decode(&review) != nil {
			http.NotFound(w, r)
			return
		}
		status := map[string]any{"authenticated": false, "error": errNotSigned.Error()}
		if claims, err := s.verify(review.Spec.Token); err == nil {
			name, _ := claims["sub"].(string)
			uid := "uid-of-" + name[strings.LastIndex(name, ":")+1:]
			status = map[string]any{"authenticated": true, "user": map[string]any{"username": name, "uid": uid}}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		json.NewEncoder(w).Encode(map[string]any{
			"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": status,
		})
	}))
	t.Cleanup(server.Close)
	return server.URL
}
