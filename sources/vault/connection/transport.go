package connection

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"campaign-credsync/internal/config"
)

// MaxAnswer bounds an answer's body in bytes. The metadata of a secret takes about 250 bytes for each version kept.
const MaxAnswer = 1 << 20

// ErrTooLarge is in the error of an answer that says yes and is larger than MaxAnswer.
var ErrTooLarge = fmt.Errorf("the answer is larger than %d KiB; keep fewer versions of the secret (max_versions)", MaxAnswer>>10)

// ErrUnexpected is in the error of an answer that says yes and is not what Vault answers: nothing follows from it.
var ErrUnexpected = errors.New("the answer is not Vault's; check vault.address and what stands before it")

// newTransport speaks HTTP/1.1 only: a connection that died silently is then given up with the request that found it
// dead, where HTTP/2 would put the next request on it too. pair may be nil.
func newTransport(config config.Vault, pair *clientPair, logger *slog.Logger) (*http.Transport, error) {
	settings := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: config.TLSServerName}
	var err error
	if settings.RootCAs, err = authorities(config.CACert, logger); err != nil {
		return nil, err
	}
	if pair != nil {
		// Offered whatever authorities the server names: those of Vault's cert login are not the listener's.
		settings.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair.current(), nil }
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:     settings,
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     5 * time.Minute,
		Protocols:           new(http.Protocols),
	}
	transport.Protocols.SetHTTP1(true)
	return transport, nil
}

// bounded returns a client that bounds every answer and follows only the redirects of a standby.
func (c *Connection) bounded(transport *http.Transport) *http.Client {
	return &http.Client{Transport: &boundedTransport{next: transport, throttle: &c.throttle}, CheckRedirect: followStandby}
}

// followStandby allows one redirect, of the kind that a standby answers with: 307 to the same path on the active node, and
// not from https to http. Any other goes to somebody who is not Vault, and our token with it.
func followStandby(request *http.Request, via []*http.Request) error {
	before := via[len(via)-1].URL
	target := request.URL
	standbys := request.Response.StatusCode == http.StatusTemporaryRedirect &&
		target.EscapedPath() == before.EscapedPath() && target.RawQuery == before.RawQuery && target.User == nil &&
		(target.Scheme == "https" || target.Scheme == "http" && before.Scheme == "http")
	if standbys && len(via) == 1 {
		return nil
	}
	return &redirectError{to: origin(target), passing: standbys}
}

// redirectError is an answer that sends us to where we do not go.
type redirectError struct {
	to      string
	passing bool // as a standby does: what it took for the active node is none, or not yet
}

func (e *redirectError) Error() string {
	return "redirects to " + e.to + ", which is not followed; set vault.address to Vault itself, and api_addr of each node to its own address"
}

func origin(u *url.URL) string { return (&url.URL{Scheme: u.Scheme, Host: u.Host}).String() }

// boundedTransport bounds every answer, and tells the throttle of it.
type boundedTransport struct {
	next     http.RoundTripper
	throttle *throttle
}

// RoundTrip serves http.Client.
func (t *boundedTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	t.throttle.answered(response)
	if response.StatusCode != http.StatusSwitchingProtocols { // whose body is the connection
		response.Body = http.MaxBytesReader(nil, response.Body, MaxAnswer)
	}
	return response, nil
}
