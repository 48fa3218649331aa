// Package connection is the way to one Vault server (or OpenBao). It makes every request: bounded in time and size, one at a
// time over one connection that is kept, and none while Vault wants to be left alone. Its errors are in words for an
// operator and show no secret.
//
// It has no token of its own, never retries, and follows one kind of redirect only: that of a standby to the active node. It
// is the only package that imports vault/api.
package connection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/credential"
)

// Connection is the way to one Vault server. Its methods may be called concurrently.
type Connection struct {
	meter     Meter // nil: nobody counts
	address   string
	client    *api.Client // without token and namespace; its copies carry them
	transport *http.Transport
	pair      *clientPair // nil: none
	throttle  throttle

	turn       chan struct{} // holds one entry while a request is under way; owns what follows
	unanswered time.Time     // when the last request ended that was not answered in time
}

// SettingError is what is wrong with one setting, found when it was to be used.
type SettingError struct {
	Key string // of the configuration, such as vault.ca_cert
	Err error
}

// Error names the setting first.
func (e *SettingError) Error() string { return e.Key + ": " + e.Err.Error() }

// New reads the certificates. It talks to nobody. The environment is not consulted, apart from the proxy variables.
//
// meter, which may be nil, counts requests.
func New(config config.Vault, logger *slog.Logger, meter Meter) (*Connection, error) {
	c := &Connection{address: config.Address, turn: make(chan struct{}, 1), meter: meter}
	var err error
	if c.pair, err = newClientPair(config, logger); err != nil {
		return nil, err
	}
	if c.transport, err = newTransport(config, c.pair, logger); err != nil {
		return nil, err
	}
	c.client, err = newClient(config.Address, c.bounded(c.transport))
	return c, err
}

// WebSocketClient returns a client for connections that are taken over.
func (c *Connection) WebSocketClient() *http.Client {
	transport := c.transport.Clone()
	transport.DisableKeepAlives = true // none is left to keep
	return c.bounded(transport)
}

// Address is the scheme, host and port of Vault.
func (c *Connection) Address() string { return c.address }

// CloseIdle closes the connection that is kept: the next request makes another one.
func (c *Connection) CloseIdle() { c.transport.CloseIdleConnections() }

// ClientCertificate returns the files of the client certificate and its key; nil where none is configured.
func (c *Connection) ClientCertificate() (files []string) {
	if c.pair == nil {
		return nil
	}
	return []string{c.pair.certFile, c.pair.keyFile}
}

// Request is one request to Vault's API.
type Request struct {
	Step      string // for errors: "read secret/data/prod"
	Path      string // below /v1/
	Query     url.Values
	Body      any // as JSON; nil reads
	Namespace string
	Token     credential.Secret
	Hide      []credential.Secret // what no error may show beside Token
	// Grace is how long the answer is waited for after the context has ended, where it comes only once.
	Grace time.Duration
	// Urgent requests are made also while Vault wants to be left alone.
	Urgent bool
}

// requestTimeout bounds one request, its answer's body included. A node that is stopped or cut off never answers, while the next
// connection may lead to one that can.
const requestTimeout = 20 * time.Second

// Do makes one request and decodes the answer into into, where that is not nil; also that of a 404, which tells of a deleted
// version. now is the time by Vault's clock. It waits while another request is under way, for as long as those are answered, and gives
// up with one that is not.
//
// The error is a [*Failure] or wraps one; a [*ThrottledError] where Vault wants to be left alone.
func (c *Connection) Do(ctx context.Context, r Request, into any) (now time.Time, err error) {
	began := time.Now()
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return now, c.Explain(ctx, r.Step, ctx.Err())
	}
	if c.unanswered.After(began) {
		return now, c.Explain(ctx, r.Step, context.DeadlineExceeded)
	}
	if err := c.Throttled(); err != nil && !r.Urgent { // maybe since the request before this one
		return now, err
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(r.Grace, cancel) })()
	var sent atomic.Bool
	bounded = httptrace.WithClientTrace(bounded, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent.Store(true) }})
	now, err = c.ask(bounded, r, into)
	if errors.Is(bounded.Err(), context.DeadlineExceeded) {
		c.unanswered = time.Now()
	}
	if err != nil {
		err = c.Explain(ctx, r.Step, err, append(r.Hide, r.Token)...)
	}
	if f, ok := errors.AsType[*Failure](err); ok {
		f.Sent = sent.Load()
	}
	return now, err
}

func (c *Connection) ask(ctx context.Context, r Request, into any) (now time.Time, err error) {
	client := c.client.WithNamespace(r.Namespace) // vault/api keeps namespace and token in the client
	client.SetToken(r.Token.Reveal())
	var response *api.Response
	if r.Body == nil {
		response, err = client.Logical().ReadRawWithDataWithContext(ctx, r.Path, r.Query)
	} else {
		var body []byte
		if body, err = json.Marshal(r.Body); err == nil {
			response, err = client.Logical().WriteRawWithContext(ctx, r.Path, body)
		}
	}
	c.count(r.Path, response)
	if response == nil {
		return now, err
	}
	defer response.Body.Close()
	content, readErr := io.ReadAll(response.Body)
	_, isAnswer := errors.AsType[*api.ResponseError](err)
	_, isTooLarge := errors.AsType[*http.MaxBytesError](readErr)
	switch {
	case isAnswer && !isVaults(content):
		return now, &foreignError{status: response.StatusCode}
	case isAnswer && response.StatusCode == http.StatusNotFound && into != nil:
		json.Unmarshal(content, into)
		return clock(response), err
	case err != nil:
		return now, err
	case response.StatusCode >= 300: // one that names no place, or is none that a client follows
		return now, &redirectError{to: response.Header.Get("Location")}
	case isTooLarge:
		return now, ErrTooLarge
	case readErr != nil:
		return now, readErr
	case into == nil, response.StatusCode == http.StatusNoContent:
		return clock(response), nil
	case json.Unmarshal(content, into) != nil: // its error may quote the answer
		return now, ErrUnexpected
	}
	return clock(response), nil
}

// Meter counts requests by what they are for and the status of the answer; 0 stands for none. It may be called concurrently, and does not
// block.
type Meter interface {
	Requested(operation string, status int)
}

func (c *Connection) count(path string, response *api.Response) {
	if c.meter == nil {
		return
	}
	status := 0
	if response != nil {
		status = response.StatusCode
	}
	c.meter.Requested(operationOf(path), status)
}

// operationOf tells what a request is for, without the names in its path.
func operationOf(path string) string {
	parts := strings.Split(path, "/")
	switch last := parts[len(parts)-1]; {
	case parts[0] == "auth" && parts[1] == "token", parts[0] == "sys":
		return last
	case parts[0] == "auth" && last == "lookup":
		return "secret_id_lookup"
	case parts[0] == "auth":
		return "login"
	case slices.Contains(parts, "metadata"):
		return "metadata"
	}
	return "read"
}

// isVaults reports whether an error answer has the form of Vault's: a list of errors, or, as a 404 may have, what a secret is
// in. vault/api takes any JSON object for one.
func isVaults(content []byte) bool {
	var form struct {
		Errors        []string `json:"errors"`
		LeaseDuration *int     `json:"lease_duration"`
	}
	return json.Unmarshal(content, &form) == nil && (form.Errors != nil || form.LeaseDuration != nil)
}

func clock(response *api.Response) time.Time {
	if now, err := http.ParseTime(response.Header.Get("Date")); err == nil {
		return now.Add(time.Second) // it is cut to the second, and a deletion just now is one
	}
	return time.Now()
}

// environment guards the moment in which newClient hides variables.
var environment sync.Mutex

// newClient makes a client of vault/api that no variable of the environment has a say in. api.NewClient reads all of
// VAULT_* whatever configuration it is given, and fails on a malformed one, so they are hidden while it runs.
func newClient(address string, client *http.Client) (*api.Client, error) {
	environment.Lock()
	defer environment.Unlock()
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "VAULT_") {
			os.Unsetenv(name)
			defer os.Setenv(name, value)
		}
	}
	made, err := api.NewClient(&api.Config{
		Address:          address,
		HttpClient:       client,
		CheckRetry:       func(context.Context, *http.Response, error) (bool, error) { return false, nil },
		DisableRedirects: true, // client follows them
	})
	if err != nil {
		return nil, errors.New("vault.address: must be an http or https URL of a host") // its error may quote a password
	}
	// The default consults VAULT_WRAP_TTL at every request.
	made.SetWrappingLookupFunc(func(string, string) string { return "" })
	return made, nil
}

// CheckPath refuses what would name another place in Vault once the path is joined.
func CheckPath(path string) error {
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("%q must be names separated by single slashes", credential.Escape(path))
		}
	}
	return nil
}
