package connection

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/hashicorp/vault/api"

	"campaign-credsync/internal/credential"
)

// Failure is an error answer of Vault, or the lack of one, in words for the person who has to mend it.
type Failure struct {
	Status int    // of Vault's own answer; 0 where there was none
	Said   string // Vault's own words, cleaned; may be empty
	Sent   bool   // the request may have left this host: a connection was there for it

	text  string
	cause error // the caller's context error, ErrTooLarge, ErrUnexpected or nil; other causes are in text only, redacted
}

// Error says who was asked for what, and what became of it.
func (f *Failure) Error() string { return f.text }

// Unwrap returns the cause, where a caller may have to know it.
func (f *Failure) Unwrap() error { return f.cause }

// Answer returns what err says of Vault's own answer; the zero Failure where there was none.
func Answer(err error) Failure {
	if f, ok := errors.AsType[*Failure](err); ok {
		return *f
	}
	return Failure{}
}

// foreignError is an error answer that Vault did not write: a proxy did, or another server at this address. Its status says
// nothing about the token, the policy or the secret, and its words are not repeated: they may hold what was sent.
type foreignError struct{ status int }

func (e *foreignError) Error() string { return fmt.Sprintf("another program answers %d", e.status) }

// Explain turns the error of one request into a [*Failure], or an error that wraps one. step says what was asked, hide is
// never shown.
func (c *Connection) Explain(ctx context.Context, step string, err error, hide ...credential.Secret) error {
	f := &Failure{}
	var answer *api.ResponseError
	var foreign *foreignError
	var what string
	var status int // of whoever answered
	var lasts bool
	switch {
	case errors.As(err, &answer):
		status, f.Status = answer.StatusCode, answer.StatusCode
		f.Said = credential.Clean(vaultSaid(answer), hide...)
		what = statusMeans(status)
		if strings.Contains(f.Said, "active cluster node not found") || strings.Contains(f.Said, "no active Vault instance found") {
			what = fmt.Sprintf("answers %d: a standby that finds no active node: they are electing one; if it stays so, most nodes must run, "+
				"be unsealed and reach each other", status)
		}
		if f.Said != "" {
			what += fmt.Sprintf(" (vault says: %s)", f.Said)
		}
	case errors.As(err, &foreign):
		status = foreign.status
		what = statusMeans(status) + " (what answers is not Vault; check vault.address and what stands before it)"
	case ctx.Err() != nil:
		f.cause = ctx.Err()
		what = "given up: " + f.cause.Error()
	default:
		what, lasts = networkMeans(err, hide...)
		for _, cause := range []error{ErrTooLarge, ErrUnexpected} {
			if errors.Is(err, cause) {
				f.cause = cause
			}
		}
		if at := askedAt(err); at != "" && at != c.address {
			what = "a standby redirects to " + credential.Clean(at) + " as the active node, and there " + what
		}
	}
	f.text = fmt.Sprintf("vault at %s: %s: %s", c.address, step, what)
	if throttled, ok := errors.AsType[*ThrottledError](c.Throttled()); ok && throttled.status == status {
		throttled.cause = f
		return throttled
	}
	if lasts {
		return credential.NeedsOperator(f)
	}
	return f
}

// askedAt is the server that a request without an answer was last sent to; empty: not known.
func askedAt(err error) string {
	if sent, ok := errors.AsType[*url.Error](err); ok {
		if at, err := url.Parse(sent.URL); err == nil {
			return origin(at)
		}
	}
	return ""
}

// vaultSaid joins Vault's own error strings, some of which are lists: "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n".
func vaultSaid(answer *api.ResponseError) string {
	var said []string
	for line := range strings.Lines(strings.Join(answer.Errors, "\n")) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "* ")
		if line != "" && !strings.HasSuffix(line, "occurred:") {
			said = append(said, line)
		}
	}
	return strings.Join(said, ", ")
}

func statusMeans(status int) string {
	what := ""
	switch status {
	case http.StatusBadRequest:
		what = ": it does not accept the request; check vault.address (https or http?) and the mount"
	case http.StatusForbidden:
		what = ": permission denied"
	case http.StatusNotFound:
		what = ": check vault.address, vault.namespace and the mount"
	case http.StatusPreconditionFailed, 472, 473, 474:
		what = ": a standby that cannot answer; if it stays so, point vault.address to the active node"
	case http.StatusTooManyRequests:
		what = ": too many requests, a rate limit quota or a standby; asked again later"
	case http.StatusNotImplemented:
		what = ": it is not initialised"
	case http.StatusServiceUnavailable:
		what = ": it is sealed or in maintenance; unseal it"
	default:
		if status >= 500 {
			what = ": an error on its side; see the log of Vault, or of the load balancer before it"
		}
	}
	return fmt.Sprintf("answers %d%s", status, what)
}

// networkMeans tells why there was no answer, and whether that lasts until a person changes something here or there.
func networkMeans(err error, hide ...credential.Secret) (what string, lasts bool) {
	var (
		untrusted *tls.CertificateVerificationError
		alert     *net.OpError
		header    tls.RecordHeaderError
		redirect  *redirectError
		timeout   net.Error
	)
	switch {
	case errors.As(err, &untrusted):
		return "its certificate is not trusted (" + credential.Clean(untrusted.Err.Error()) + "); " + certificateRemedy(untrusted), true
	case errors.As(err, &alert) && alert.Op == "remote error": // as crypto/tls calls it
		return "refuses the TLS handshake (" + credential.Clean(alert.Err.Error()) + "); check vault.client_cert and vault.client_key, and that " +
			"Vault speaks TLS 1.2 or later", true
	case errors.As(err, &header), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return "does not speak TLS on this port; check vault.address (https or http?)", true
	case errors.As(err, &redirect):
		return credential.Clean(redirect.Error()), !redirect.passing
	case errors.Is(err, ErrTooLarge):
		return ErrTooLarge.Error(), true
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the connection is refused; is Vault running, and is vault.address right?", false
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time; is it overloaded, or cut off by a firewall?", false
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return "the connection was closed without an answer", false
	case errors.Is(err, ErrUnexpected), strings.Contains(err.Error(), "malformed"): // which net/http has no type for
		return ErrUnexpected.Error(), false
	}
	if asked, ok := errors.AsType[*url.Error](err); ok {
		err = asked.Err // the address is named already
	}
	return credential.Clean(err.Error(), hide...), false
}

func certificateRemedy(untrusted *tls.CertificateVerificationError) string {
	if _, ok := errors.AsType[x509.HostnameError](untrusted.Err); ok {
		return "correct vault.address, set vault.tls_server_name to a name of the certificate, or have it issued again"
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](untrusted.Err); ok && len(untrusted.UnverifiedCertificates) > 0 {
		last := untrusted.UnverifiedCertificates[len(untrusted.UnverifiedCertificates)-1]
		return "set vault.ca_cert to the certificate of " + credential.Clean(last.Issuer.String()) +
			", or, if that is an intermediate authority, append its certificate to Vault's tls_cert_file"
	}
	return "renew it, or check the clock of this machine"
}
