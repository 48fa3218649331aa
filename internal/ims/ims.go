// Package ims asks Adobe whether it accepts a secret: it fetches an access token with it, as Campaign would, and drops the token.
//
// What IMS answers is in Adobe's documentation of the OAuth Server-to-Server credential (Developer Console). Whatever is not such an
// answer, word for word, says nothing about the secret.
package ims

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"campaign-credsync/internal/credential"
)

const (
	tokenPath = "/ims/token/v3"
	// maxAnswer bounds an answer's body in bytes. A token takes about 2 KiB.
	maxAnswer = 64 << 10
	// timeout bounds one request, from the look-up of the name to the last byte.
	timeout = 10 * time.Second
	// longestWait is the longest Retry-After that is believed.
	longestWait = 24 * time.Hour
)

// Client asks one IMS. Its methods may be called concurrently.
type Client struct {
	url    string
	scopes string
	http   *http.Client
}

// New makes a Client of the IMS at endpoint, such as https://ims-na1.adobelogin.com, without a slash at its end. HTTPS_PROXY and
// NO_PROXY are honoured. Nothing is asked yet.
func New(endpoint string, scopes []string) *Client {
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: timeout}).DialContext,
		TLSHandshakeTimeout: timeout,
		DisableKeepAlives:   true, // there is one request in days
		DisableCompression:  true, // so that what is read is bounded, too
		Protocols:           new(http.Protocols),
	}
	transport.Protocols.SetHTTP1(true)
	return &Client{
		url: endpoint + tokenPath, scopes: strings.Join(scopes, ","),
		http: &http.Client{
			Transport: transport, Timeout: timeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the secret goes nowhere else
		},
	}
}

// Probe asks once. It returns nil if Adobe accepts the credential, and a *credential.Refusal without a version if Adobe refuses it. Every
// other error says nothing about the credential; one that knows when to ask again has a method RetryAt(). No error shows the secret.
func (c *Client) Probe(ctx context.Context, asked credential.Credential) error {
	err := c.probe(ctx, asked)
	if err == nil || errors.As(err, new(*credential.Refusal)) {
		return err
	}
	return fmt.Errorf("ims at %s: %w", c.url, err)
}

// Reach asks whether anybody answers there, over TLS, and sends no credential. Any answer will do.
func (c *Client) Reach(ctx context.Context) error {
	address := strings.TrimSuffix(c.url, tokenPath)
	request, err := http.NewRequestWithContext(ctx, http.MethodHead, address+"/", nil)
	if err != nil {
		return errors.New("the address is of no use") // which the configuration does not let through
	}
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("ims at %s: %s", address, networkMeans(ctx, err, credential.Secret{}))
	}
	return response.Body.Close()
}

func (c *Client) probe(ctx context.Context, asked credential.Credential) error {
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {asked.ClientID}, "client_secret": {asked.ClientSecret.Reveal()}, "scope": {c.scopes},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, strings.NewReader(form.Encode()))
	if err != nil {
		return errors.New("the address is of no use") // which the configuration does not let through
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Accept", "application/json")
	response, err := c.http.Do(request)
	if err != nil {
		return errors.New(networkMeans(ctx, err, asked.ClientSecret))
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	defer clear(body) // it may hold a token
	switch {
	case err != nil:
		return errors.New(networkMeans(ctx, err, asked.ClientSecret))
	case len(body) > maxAnswer:
		return fmt.Errorf("the answer (%d) is larger than %d KiB, so it is not that of IMS", response.StatusCode, maxAnswer>>10)
	}
	return judge(response, body, asked.ClientSecret)
}

// judge reads an answer. Only IMS's own words decide, in the answer that goes with them.
func judge(response *http.Response, body []byte, sent credential.Secret) error {
	var said struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	status := response.StatusCode
	isJSON := json.Unmarshal(body, &said) == nil
	token := credential.NewSecret(said.AccessToken)
	said.AccessToken = ""
	what := clean(said.Error, sent, token)
	if said.Description != "" {
		what += " (" + clean(said.Description, sent, token) + ")"
	}
	isRefusal := said.Error == "invalid_client" || said.Error == "unauthorized_client"
	switch {
	case isJSON && status == http.StatusOK && !token.IsZero() && strings.EqualFold(said.TokenType, "bearer") && said.Error == "":
		return nil
	case isJSON && isRefusal && (status == http.StatusBadRequest || status == http.StatusUnauthorized):
		return &credential.Refusal{Code: credential.ReasonIMSRefused, Reason: "Adobe refuses the credential: " + what + "; " + remedies[said.Error]}
	case isJSON && said.Error != "":
		return inconclusive(response, fmt.Sprintf("answers %d, %s", status, what))
	case status >= 300 && status < 400:
		return inconclusive(response, fmt.Sprintf("answers %d, a redirect, which is not followed; check ims.endpoint and what stands before it", status))
	}
	return inconclusive(response, fmt.Sprintf("answers %d, and not as IMS does; check ims.endpoint, HTTPS_PROXY and what stands in between", status))
}

var remedies = map[string]string{
	"invalid_client": "see in Adobe Developer Console whether the secret was deleted, or belongs to another client id; write a valid one as a " +
		"new version, or have Adobe asked again with: campaign-credsync sync",
	"unauthorized_client": "see in Adobe Developer Console that it is an OAuth Server-to-Server credential of a product; then have Adobe asked " +
		"again with: campaign-credsync sync",
}

// laterError is an answer that says nothing about the credential, and when to come back.
type laterError struct {
	error
	at time.Time
}

func (e *laterError) Unwrap() error { return e.error }

// RetryAt is when IMS asks to come back, with a jitter: it has told many hosts the same.
func (e *laterError) RetryAt() time.Time { return e.at }

// inconclusive makes the error of an answer, with its Retry-After, which is a number of seconds or a date.
func inconclusive(response *http.Response, text string) error {
	after, now := response.Header.Get("Retry-After"), time.Now()
	var wait time.Duration
	if seconds, err := strconv.Atoi(after); err == nil || errors.Is(err, strconv.ErrRange) { // then it is the largest number
		wait = min(time.Duration(max(0, seconds)), longestWait/time.Second) * time.Second
	} else if at, err := http.ParseTime(after); err == nil {
		wait = min(at.Sub(now), longestWait)
	}
	if wait <= 0 {
		return errors.New(text)
	}
	return &laterError{errors.New(text), now.Add(wait + rand.N(wait/5+time.Second))}
}
