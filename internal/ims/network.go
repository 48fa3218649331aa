package ims

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"

	"campaign-credsync/internal/credential"
)

// networkMeans tells why there was no answer. What it quotes is cleaned.
func networkMeans(ctx context.Context, err error, sent credential.Secret) string {
	var (
		untrusted *tls.CertificateVerificationError
		alert     *net.OpError
		header    tls.RecordHeaderError
		name      *net.DNSError
		timeout   net.Error
	)
	switch {
	case ctx.Err() != nil:
		return "given up: " + ctx.Err().Error()
	case errors.As(err, &untrusted):
		return "its certificate is not trusted (" + credential.Clean(untrusted.Err.Error()) + "); check the system's certificates, the clock, and " +
			"what stands in between"
	case errors.As(err, &alert) && alert.Op == "remote error": // as crypto/tls calls it
		return "refuses the TLS handshake (" + credential.Clean(alert.Err.Error()) + ")"
	case errors.As(err, &header), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return "does not speak TLS; check ims.endpoint and HTTPS_PROXY"
	case strings.Contains(err.Error(), "invalid proxy address"): // which may hold a password
		return "HTTPS_PROXY or HTTP_PROXY is not a URL"
	case errors.As(err, &name):
		return "its name cannot be resolved; check DNS and HTTPS_PROXY"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the connection is refused; check ims.endpoint, HTTPS_PROXY and the firewall"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time; check HTTPS_PROXY and the firewall"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return "the connection was closed without a whole answer"
	}
	if asked, ok := errors.AsType[*url.Error](err); ok {
		err = asked.Err // the address is named already
	}
	return credential.Clean(err.Error(), sent)
}
