package sources

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// maxAnswer bounds an answer's body in bytes. The metadata of a secret takes about 250 bytes for each version kept.
const maxAnswer = 1 << 20

// maxPEM is above any bundle of authorities. In bytes.
const maxPEM = 16 << 20

var errTooLarge = fmt.Errorf("the answer is larger than %d KiB", maxAnswer>>10)

// HostURL takes an address that is scheme, host and port only. problem is empty, or says what is wrong, without the address, which
// may hold a password.
func HostURL(address string) (u *url.URL, problem string) {
	const shape = "must be an http or https URL of a host"
	u, err := url.Parse(address)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return nil, shape
	case u.User != nil:
		return nil, "must not hold a user or a password"
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.ForceQuery, u.Fragment != "", strings.ContainsAny(address, "# "):
		return nil, shape + " with nothing behind it"
	}
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return nil, "has a port that is not from 1 to 65535"
		}
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, ""
}

// newTransport speaks HTTP/1.1 only: a connection that died silently is then given up with the request that found it
// dead, where HTTP/2 would put the next request on it too. pair may be nil. unreadable names a certificate of vault.ca_cert
// that is passed over.
func newTransport(config VaultConfig, pair *clientPair) (transport *http.Transport, unreadable string, err error) {
	settings := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: config.TLSServerName}
	if config.CACert != "" {
		if settings.RootCAs, unreadable, err = authorities(config.CACert); err != nil {
			return nil, "", &SettingError{"vault.ca_cert", err}
		}
	}
	if pair != nil {
		// Offered whatever authorities the server names: those of Vault's cert login are not the listener's.
		settings.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair.current(), nil }
	}
	transport = &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:     settings,
		TLSHandshakeTimeout: 10 * time.Second,
		// One connection, kept: a fleet that opened one for each path would cost Vault a handshake for each poll. How long
		// one waits for it: gate.bound. The second one kept is to where a standby redirects.
		MaxConnsPerHost:       1,
		MaxIdleConnsPerHost:   1,
		MaxIdleConns:          2,
		IdleConnTimeout:       5 * time.Minute,
		ResponseHeaderTimeout: requestTimeout,
		Protocols:             new(http.Protocols),
	}
	transport.Protocols.SetHTTP1(true)
	return transport, unreadable, nil
}

// careful bounds every answer, minds what it says about the next request, and follows one redirect, of the kind that a
// standby answers with: 307 to the same path on the active node. Any other goes to somebody who is not Vault, and our token
// with it.
type careful struct {
	next http.RoundTripper
	gate *gate
}

// RoundTrip serves http.Client.
func (c *careful) RoundTrip(request *http.Request) (*http.Response, error) {
	var body []byte
	if request.Body != nil {
		read, err := io.ReadAll(request.Body)
		request.Body.Close()
		if err != nil {
			return nil, err
		}
		body = read
	}
	response, err := c.send(request, request.URL, body)
	if err != nil || response.StatusCode < 300 || response.StatusCode > 399 {
		return response, err
	}
	response.Body.Close()
	target, err := response.Location()
	if err != nil {
		return nil, &redirectError{}
	}
	if !standbys(response, target, request.URL) {
		return nil, &redirectError{to: origin(target)}
	}
	response, err = c.send(request, target, body)
	if err != nil {
		return nil, &sentOnError{to: origin(target), cause: err}
	}
	if response.StatusCode < 300 || response.StatusCode > 399 {
		return response, err
	}
	response.Body.Close()
	// Its sender took it for the active node: it was, a moment ago, or will be.
	further, err := response.Location()
	return nil, &redirectError{to: origin(target), again: err == nil && standbys(response, further, target)}
}

// standbys reports whether a redirect is of the kind that a standby answers with.
func standbys(response *http.Response, target, asked *url.URL) bool {
	return response.StatusCode == http.StatusTemporaryRedirect &&
		target.EscapedPath() == asked.EscapedPath() && target.RawQuery == asked.RawQuery && target.User == nil &&
		(target.Scheme == "https" || target.Scheme == "http" && asked.Scheme == "http")
}

func origin(u *url.URL) string { return u.Scheme + "://" + u.Host }

func (c *careful) send(request *http.Request, target *url.URL, body []byte) (*http.Response, error) {
	copied := request.Clone(request.Context())
	copied.URL, copied.Host = target, target.Host
	copied.GetBody = nil
	if body != nil {
		copied.Body = io.NopCloser(bytes.NewReader(body))
		copied.ContentLength = int64(len(body))
	}
	response, err := c.next.RoundTrip(copied)
	if err != nil {
		if !errors.Is(context.Cause(request.Context()), context.Canceled) { // else it was us who gave up
			c.gate.failed(time.Now())
		}
		return nil, err
	}
	c.gate.note(response, time.Now())
	if response.StatusCode == http.StatusSwitchingProtocols {
		return response, nil // not a body but the connection, which is bounded by whoever asked for it
	}
	response.Body = &bounded{ReadCloser: response.Body, left: maxAnswer}
	if response.StatusCode < 400 {
		return response, nil
	}
	return vaultsOwn(response)
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
	if err != nil && !errors.Is(err, errTooLarge) {
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

// redirectError is an answer that sends us to where we do not go.
type redirectError struct {
	to    string
	again bool // it was followed once, and sends us on as a standby does
}

func (e *redirectError) Error() string { return "redirects to " + e.to }

// sentOnError is why there was no answer from where a standby redirects to: a node that was the active one may be gone,
// and a standby that is left alone goes on naming it.
type sentOnError struct {
	to    string
	cause error
}

func (e *sentOnError) Error() string { return "redirected to " + e.to + ": " + e.cause.Error() }
func (e *sentOnError) Unwrap() error { return e.cause }

// bounded fails, rather than ending early, when a body is larger than allowed.
type bounded struct {
	io.ReadCloser
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}
