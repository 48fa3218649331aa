package connection

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/regularfile"
)

// maxPEM is above any bundle of authorities. In bytes.
const maxPEM = 16 << 20

// authorities reads a file of certificates in PEM form. crypto/x509 passes over what it cannot read; unreadable names the first such
// certificate, and is empty where there is none.
func authorities(file string) (pool *x509.CertPool, unreadable string, err error) {
	content, err := regularfile.Read(file, maxPEM)
	if err != nil {
		return nil, "", err
	}
	const begin = "-----BEGIN CERTIFICATE-----"
	for n, text := range strings.Split(string(content), begin) {
		if n > 0 && unreadable == "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(begin+text)) {
			unreadable = fmt.Sprintf("certificate %d in %s cannot be read; replace it", n, file)
		}
	}
	pool = x509.NewCertPool()
	switch {
	case pool.AppendCertsFromPEM(content):
		return pool, unreadable, nil
	case unreadable != "":
		return nil, "", errors.New(unreadable)
	}
	return nil, "", fmt.Errorf("%s holds no certificate in PEM form; put the authority's there", file)
}

// distrusted says whose signature of the server's certificate is not trusted, and what to do.
func distrusted(err error, unknown x509.UnknownAuthorityError) string {
	last, alone := unknown.Cert, false
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok && len(e.UnverifiedCertificates) > 0 {
		last = e.UnverifiedCertificates[len(e.UnverifiedCertificates)-1]
		alone = len(e.UnverifiedCertificates) == 1 && string(last.RawIssuer) != string(last.RawSubject)
	}
	what := "its certificate is signed by an authority that is not trusted here"
	if last != nil {
		what += " (" + credential.Clean(last.Issuer.String()) + ")"
	}
	what += "; set vault.ca_cert to that authority's certificate"
	if alone {
		what += ", or, if that is an intermediate authority, append its certificate to Vault's tls_cert_file, which holds no other than Vault's own"
	}
	return what
}

// misnamed says which names the server's certificate has instead, and what to do.
func misnamed(e x509.HostnameError) string {
	names := e.Certificate.DNSNames
	for _, ip := range e.Certificate.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		kind := "DNS:"
		if net.ParseIP(e.Host) != nil {
			kind = "IP:"
		}
		return "its certificate has no subject alternative name, and its common name does not count; have it issued again with " +
			kind + credential.Clean(e.Host) + " as one"
	}
	return "its certificate is for another name (" + credential.Clean(strings.Join(names, ", ")) + "); correct vault.address, or set " +
		"vault.tls_server_name to the certificate's name"
}
