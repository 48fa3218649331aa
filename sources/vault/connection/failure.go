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

// ErrUnexpected is in the error of an answer that says yes and is not what Vault answers: nothing follows from it.
var ErrUnexpected = errors.New("the answer is not Vault's; check vault.address and what stands before it")

// Failure is an error answer of Vault, or the lack of one, in words for the person who has to mend it.
type Failure struct {
	Status int    // of Vault's own answer; 0 where there was none
	Said   string // Vault's own words, cleaned; may be empty
	Denied bool   // it is a policy that forbids what was asked; the token itself is good
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
		f.Denied = denies(answer)
		f.Said = credential.Clean(vaultSaid(answer), hide...)
		what = statusMeans(status)
		if leaderless(f.Said) {
			what = fmt.Sprintf("answers %d: %s", status, noLeader)
		}
		if f.Said != "" {
			what += fmt.Sprintf(" (vault says: %s)", f.Said)
		}
	case errors.As(err, &foreign):
		status = foreign.status
		what = foreignMeans(status) + " (what answers is not Vault"
		if said := credential.Clean(foreign.said, hide...); said != "" {
			what += ", and says: " + said
		}
		what += ")"
	case ctx.Err() != nil:
		f.cause = ctx.Err()
		if what = "given up, as the work was cancelled"; errors.Is(f.cause, context.DeadlineExceeded) {
			what = noAnswer
		}
	default:
		if what, lasts = networkMeans(err, hide...); errors.Is(err, ErrTooLarge) {
			f.cause = ErrTooLarge
		} else if errors.Is(err, ErrUnexpected) {
			f.cause = ErrUnexpected
		}
		if at := askedAt(err); at != "" && at != c.address {
			if _, redirected := errors.AsType[*redirectError](err); !redirected {
				what = "a standby redirects to " + credential.Clean(at) + " as the active node, and there " + what
			}
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
	sent, ok := errors.AsType[*url.Error](err)
	if !ok {
		return ""
	}
	at, err := url.Parse(sent.URL)
	if err != nil {
		return ""
	}
	return origin(at)
}

// denies reports whether a 403 is about what was asked rather than about the token. Of a token that has ended Vault says "invalid
// token" as a second error; OpenBao, and older Vaults, say "permission denied" without counting.
func denies(answer *api.ResponseError) bool {
	return answer.StatusCode == http.StatusForbidden && len(answer.Errors) == 1 && strings.HasPrefix(answer.Errors[0], "1 error occurred:")
}

// vaultSaid joins Vault's own error strings.
func vaultSaid(answer *api.ResponseError) string {
	// Vault's own lists look like "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n".
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
	switch status {
	case http.StatusBadRequest:
		return "answers 400: it does not accept the request; check vault.address (https or http?) and the mount"
	case http.StatusForbidden:
		return "permission denied"
	case http.StatusNotFound:
		return "answers 404: check vault.address, vault.namespace and the mount"
	case http.StatusPreconditionFailed, 472, 473, 474:
		return fmt.Sprintf("answers %d: a standby that cannot answer; if it stays so, point vault.address to the active node", status)
	case http.StatusTooManyRequests:
		return "answers 429: too many requests, a rate limit quota or a standby; asked again later"
	case http.StatusNotImplemented:
		return "answers 501: it is not initialised"
	case http.StatusServiceUnavailable:
		return "answers 503: it is sealed or in maintenance; unseal it"
	}
	if status >= 500 {
		return fmt.Sprintf("answers %d: an error on its side; see the log of Vault, or of the load balancer before it", status)
	}
	return fmt.Sprintf("answers %d", status)
}

// foreignMeans is statusMeans for an answer of what stands before Vault, or in its place. A 403 is no word about our policy.
func foreignMeans(status int) string {
	if status == http.StatusForbidden {
		return "answers 403; check vault.address, and what stands before Vault"
	}
	return statusMeans(status)
}

// leaderless reports whether a standby's own words tell that it knows no active node. Vault has two ways to say it, one
// with status 500 and one with 503.
func leaderless(said string) bool {
	return strings.Contains(said, "active cluster node not found") || strings.Contains(said, "no active Vault instance found")
}

const noLeader = "a standby that finds no active node: they are electing one; if it stays so, most nodes must run, be unsealed and reach each other"

const noAnswer = "no answer in time; is it overloaded, or cut off by a firewall?"

// networkMeans tells why there was no answer, and whether that lasts until a person changes something here or there.
func networkMeans(err error, hide ...credential.Secret) (what string, lasts bool) {
	var (
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		alert    *net.OpError
		header   tls.RecordHeaderError
		redirect *redirectError
		dns      *net.DNSError
		timeout  net.Error
	)
	switch {
	case errors.As(err, &unknown):
		return distrusted(err, unknown), true
	case errors.As(err, &hostname):
		return misnamed(hostname), true
	case errors.As(err, &invalid):
		return "its certificate is not valid (" + credential.Clean(invalid.Error()) + "); renew it, or check the clock of this machine", true
	case errors.As(err, &alert) && alert.Op == "remote error": // as crypto/tls calls it
		return "refuses the TLS handshake (" + credential.Clean(alert.Err.Error()) + "); check vault.client_cert and vault.client_key, and that " +
			"Vault speaks TLS 1.2 or later", true
	case errors.As(err, &header), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return "does not speak TLS on this port; check vault.address (https or http?)", true
	case errors.As(err, &redirect) && redirect.again:
		return "a standby redirects to " + credential.Clean(redirect.to) + ", which redirects as well: the active node is changing; if it stays so, " +
			"set api_addr of each node to its own address", false
	case errors.As(err, &redirect):
		return "redirects to " + credential.Clean(redirect.to) + ", which is not followed; set vault.address to Vault itself", true
	case errors.Is(err, ErrTooLarge):
		return ErrTooLarge.Error() + "; keep fewer versions of the secret (max_versions)", true
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the connection is refused; is Vault running, and is vault.address right?", false
	case errors.As(err, &dns):
		return "its name cannot be resolved; check vault.address and the name service of this machine", false
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return noAnswer, false
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return "the connection was closed without an answer", false
	case strings.Contains(err.Error(), "malformed"): // nor has net/http for this
		return "the answer is not HTTP; check vault.address and what stands before it", false
	case errors.Is(err, ErrUnexpected):
		return ErrUnexpected.Error(), false
	}
	if asked, ok := errors.AsType[*url.Error](err); ok {
		err = asked.Err // the address is named already
	}
	return credential.Clean(err.Error(), hide...), false
}
