// Package ims stands in for Adobe IMS in tests: it answers requests for tokens as Adobe's documentation says, and as what stands in
// between may answer. It shares no code with the daemon. What it does not know of the real IMS: the content types, the exact wording of
// descriptions other than those of invalid_client, and when it throttles.
package ims

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"
)

// Answer is what the server answers.
type Answer string

// The answers. The first two groups are IMS's own.
const (
	Accepts         Answer = "200"
	WrongSecret     Answer = "400 invalid_client, secret"
	WrongSecret401  Answer = "401 invalid_client, secret"
	WrongClient     Answer = "400 invalid_client, client id"
	GrantNotEnabled Answer = "400 unauthorized_client"
	Echo            Answer = "400 invalid_client, and what was sent"

	Throttles   Answer = "429, Retry-After in seconds"
	Unavailable Answer = "503, Retry-After as a date"
	Internal    Answer = "500 internal_error"
	WrongScope  Answer = "400 invalid_scope"

	Portal      Answer = "200, the page of a captive portal"
	Portal400   Answer = "400, a page"
	OtherJSON   Answer = "200, JSON of another program"
	OtherToken  Answer = "200, a token that is no bearer's"
	WrongStatus Answer = "500 invalid_client"
	Forbidden   Answer = "403, empty"
	Redirect    Answer = "307 to where it is accepted"
	Huge        Answer = "200, a token of 100 MiB"
	Half        Answer = "200, cut off"
	Hangs       Answer = "none"
	Slow        Answer = "200, after 2 s"
)

// Inconclusive are the answers that say nothing about the secret and come at once.
var Inconclusive = []Answer{Throttles, Unavailable, Internal, WrongScope, Portal, Portal400, OtherJSON, OtherToken, WrongStatus, Forbidden, Redirect, Huge, Half}

// Request is what is kept of a request. The secret is only known by its digest.
type Request struct {
	Time                   time.Time
	Method, Path           string
	ContentType            string
	GrantType, ClientID    string
	Scope                  string
	SecretSHA256           string
	SecretOutsideOfTheBody bool // in the address, or in a header
}

// Digest is that of a secret, as in Request.SecretSHA256.
func Digest(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// Server is an IMS. Its methods may be called concurrently.
type Server struct {
	URL string

	server *httptest.Server
	done   context.Context
	end    context.CancelFunc

	mu         sync.Mutex
	answer     Answer
	refuses    map[string]bool // digests of secrets
	retryAfter time.Duration
	requests   []Request
}

// New starts a server that accepts everything.
func New() *Server { return start(httptest.NewServer) }

// NewTLS is New with a certificate that nobody trusts unless told; see CertificatePEM. It is for example.com and 127.0.0.1.
func NewTLS() *Server { return start(httptest.NewTLSServer) }

func start(listen func(http.Handler) *httptest.Server) *Server {
	s := &Server{answer: Accepts, retryAfter: time.Second, refuses: map[string]bool{}}
	s.done, s.end = context.WithCancel(context.Background())
	s.server = listen(s)
	s.server.Config.ErrorLog = nil
	s.URL = s.server.URL
	return s
}

// Close ends the server, and requests that hang.
func (s *Server) Close() {
	s.end()
	s.server.CloseClientConnections()
	s.server.Close()
}

// CertificatePEM is the certificate of a server with TLS.
func (s *Server) CertificatePEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.server.Certificate().Raw})
}

// Answers sets what is answered from now on.
func (s *Server) Answers(a Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = a
}

// Refuses has these secrets answered as WrongSecret, while Accepts is set.
func (s *Server) Refuses(secrets ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, secret := range secrets {
		s.refuses[Digest(secret)] = true
	}
}

// Restores takes that back.
func (s *Server) Restores(secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.refuses, Digest(secret))
}

// RetryAfter sets what Throttles and Unavailable say; it is 1 s before.
func (s *Server) RetryAfter(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retryAfter = d
}

// Requests returns all that came.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...)
}

// ServeHTTP serves http.Server.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.ParseForm()
	secret := r.PostForm.Get("client_secret")
	outside := r.URL.String() + r.Header.Get("Authorization")
	for _, values := range r.Header {
		outside += strings.Join(values, " ")
	}
	kept := Request{
		Time: time.Now(), Method: r.Method, Path: r.URL.Path, ContentType: r.Header.Get("Content-Type"),
		GrantType: r.PostForm.Get("grant_type"), ClientID: r.PostForm.Get("client_id"), Scope: r.PostForm.Get("scope"),
		SecretSHA256: Digest(secret), SecretOutsideOfTheBody: secret != "" && strings.Contains(outside, secret),
	}
	s.mu.Lock()
	s.requests = append(s.requests, kept)
	answer, wait := s.answer, s.retryAfter
	if answer == Accepts && s.refuses[kept.SecretSHA256] {
		answer = WrongSecret
	}
	s.mu.Unlock()
	if kept.Path == elsewhere {
		answer = Accepts
	}
	s.say(w, r, answer, wait, secret)
}

const token = `{"access_token":"%s","token_type":"bearer","expires_in":86399}`

func (s *Server) say(w http.ResponseWriter, r *http.Request, a Answer, wait time.Duration, secret string) {
	asJSON := func(status int, format string, args ...any) {
		w.Header().Set("Content-Type", "application/json;charset=UTF-8")
		w.WriteHeader(status)
		fmt.Fprintf(w, format, args...)
	}
	invalidClient := func(status int, description string) {
		asJSON(status, `{"error":"invalid_client","error_description":"%s"}`, description)
	}
	page := func(status int) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(status)
		fmt.Fprint(w, `<html><body>Sign in to this network. {"error":"invalid_client"}</body></html>`)
	}
	switch a {
	case Accepts:
		asJSON(http.StatusOK, token, Token)
	case Slow:
		s.sleep(r, 2*time.Second)
		asJSON(http.StatusOK, token, Token)
	case WrongSecret:
		invalidClient(http.StatusBadRequest, "invalid client_secret parameter")
	case WrongSecret401:
		invalidClient(http.StatusUnauthorized, "invalid client_secret parameter")
	case WrongClient:
		invalidClient(http.StatusBadRequest, "invalid client_id parameter")
	case Echo:
		invalidClient(http.StatusBadRequest, "invalid client_secret "+secret+" parameter")
	case GrantNotEnabled:
		asJSON(http.StatusBadRequest, `{"error":"unauthorized_client","error_description":"the client is not authorized to use this grant"}`)
	case Throttles:
		w.Header().Set("Retry-After", fmt.Sprint(int(wait.Seconds())))
		asJSON(http.StatusTooManyRequests, `{"error":"too_many_requests"}`)
	case Unavailable:
		w.Header().Set("Retry-After", time.Now().Add(wait).UTC().Format(http.TimeFormat))
		asJSON(http.StatusServiceUnavailable, `{"error":"service_unavailable"}`)
	case Internal:
		asJSON(http.StatusInternalServerError, `{"error":"internal_error"}`)
	case WrongScope:
		asJSON(http.StatusBadRequest, `{"error":"invalid_scope"}`)
	case Portal:
		page(http.StatusOK)
	case Portal400:
		page(http.StatusBadRequest)
	case OtherJSON:
		asJSON(http.StatusOK, `{"status":"ok","error":null}`)
	case OtherToken:
		asJSON(http.StatusOK, `{"access_token":"%s","token_type":"mac"}`, Token)
	case WrongStatus:
		invalidClient(http.StatusInternalServerError, "invalid client_secret parameter")
	case Forbidden:
		w.WriteHeader(http.StatusForbidden)
	case Redirect:
		http.Redirect(w, r, elsewhere, http.StatusTemporaryRedirect)
	case Huge:
		asJSON(http.StatusOK, `{"token_type":"bearer","access_token":"`)
		for range 100 << 10 {
			if _, err := w.Write([]byte(strings.Repeat("x", 1<<10))); err != nil {
				return
			}
		}
		fmt.Fprint(w, `"}`)
	case Half:
		w.Header().Set("Content-Length", "1000")
		asJSON(http.StatusOK, `{"token_type":"bearer","access_token":"x`)
	case Hangs:
		s.sleep(r, time.Hour)
	}
}

// elsewhere is where Redirect leads.
const elsewhere = "/elsewhere"

// Token is the access token that is given.
const Token = "eyJhbGciOiJSUzI1NiJ9.aStandInTokenThatShowsNowhere.c2lnbmF0dXJl"

func (s *Server) sleep(r *http.Request, d time.Duration) {
	select {
	case <-time.After(d):
	case <-r.Context().Done():
	case <-s.done.Done():
	}
}
