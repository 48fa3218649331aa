package connection

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// MaxAnswer bounds an answer's body in bytes. The metadata of a secret takes about 250 bytes for each version kept.
const MaxAnswer = 1 << 20

// ErrTooLarge is in the error of an answer that is larger than MaxAnswer.
var ErrTooLarge = fmt.Errorf("the answer is larger than %d KiB", MaxAnswer>>10)

// newTransport speaks HTTP/1.1 only: a connection that died silently is then given up with the request that found it
// dead, where HTTP/2 would put the next request on it too. pair may be nil.
func newTransport(config Config, pair *clientPair) (*http.Transport, error) {
	settings := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: config.TLSServerName}
	if config.CACert != "" {
		var unreadable string
		var err error
		if settings.RootCAs, unreadable, err = authorities(config.CACert); err != nil {
			return nil, &SettingError{"vault.ca_cert", err}
		}
		if unreadable != "" {
			config.Logger.Warn("an authority's certificate is not used", "reason", "vault.ca_cert: "+unreadable)
		}
	}
	if pair != nil {
		// Offered whatever authorities the server names: those of Vault's cert login are not the listener's.
		settings.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair.current(), nil }
	}
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       settings,
		TLSHandshakeTimeout:   10 * time.Second,
		MaxIdleConnsPerHost:   1,
		MaxIdleConns:          2, // to Vault, and to where a standby redirects
		IdleConnTimeout:       5 * time.Minute,
		ResponseHeaderTimeout: requestTimeout,
		Protocols:             new(http.Protocols),
	}
	transport.Protocols.SetHTTP1(true)
	return transport, nil
}

// bounded returns a client that bounds every answer and follows only the redirects of a standby.
func bounded(transport *http.Transport, throttle *throttle) *http.Client {
	return &http.Client{Transport: &boundedTransport{next: transport, throttle: throttle}, CheckRedirect: followStandby}
}

// followStandby allows one redirect, of the kind that a standby answers with: 307 to the same path on the active node, and
// not from https to http. Any other goes to somebody who is not Vault, and our token with it.
func followStandby(request *http.Request, via []*http.Request) error {
	before := via[len(via)-1].URL
	target := request.URL
	standbys := request.Response.StatusCode == http.StatusTemporaryRedirect &&
		target.EscapedPath() == before.EscapedPath() && target.RawQuery == before.RawQuery && target.User == nil &&
		(target.Scheme == "https" || target.Scheme == "http" && before.Scheme == "http")
	switch {
	case !standbys:
		return &redirectError{to: origin(target)}
	case len(via) > 1: // its sender took it for the active node: it was, a moment ago, or will be
		return &redirectError{to: origin(before), again: true}
	}
	return nil
}

// redirectError is an answer that sends us to where we do not go.
type redirectError struct {
	to    string
	again bool // it was followed once, and sends us on as a standby does
}

func (e *redirectError) Error() string { return "redirects to " + e.to }

func origin(u *url.URL) string { return (&url.URL{Scheme: u.Scheme, Host: u.Host}).String() }

// boundedTransport bounds every answer, tells the throttle of it, and has an error answer that is not Vault's be an error.
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
	t.throttle.answered(response, time.Now())
	if response.StatusCode == http.StatusSwitchingProtocols {
		return response, nil // its body is the connection, which is bounded by who asked for it
	}
	response.Body = &boundedBody{ReadCloser: response.Body, left: MaxAnswer}
	if response.StatusCode < 400 {
		return response, nil
	}
	return vaultsOwn(response)
}

// boundedBody fails, rather than ending early, when a body is larger than allowed.
type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, ErrTooLarge
	}
	return n, err
}

// foreignError is an error answer that Vault did not write: a proxy did, or another server at this address. Its status says
// nothing about the token, the policy or the secret.
type foreignError struct {
	status int
	said   string // from outside; empty where it may hold what was to be read
}

func (e *foreignError) Error() string { return fmt.Sprintf("another program answers %d", e.status) }

// vaultsOwn returns an error answer that has the form of Vault's: a list of errors, or, as a 404 may have, what a secret is
// in. vault/api takes any JSON object for one.
func vaultsOwn(response *http.Response) (*http.Response, error) {
	content, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil && !errors.Is(err, ErrTooLarge) {
		return nil, err
	}
	var form struct {
		Errors        []string `json:"errors"`
		LeaseDuration *int     `json:"lease_duration"`
	}
	switch {
	case err != nil:
		content = []byte(err.Error())
	case json.Unmarshal(content, &form) == nil && (form.Errors != nil || form.LeaseDuration != nil):
		response.Body = io.NopCloser(bytes.NewReader(content))
		return response, nil
	}
	foreign := &foreignError{status: response.StatusCode}
	if asked := response.Request; asked.Method != http.MethodGet && !strings.HasSuffix(asked.URL.Path, "/unwrap") {
		foreign.said = strings.Join(strings.Fields(markup.ReplaceAllString(string(content), " ")), " ")
	}
	return nil, foreign
}

// markup is what nobody reads of a page.
var markup = regexp.MustCompile(`(?is)<(?:style|script)\b.*?</(?:style|script)>|<[^>]*>`)
