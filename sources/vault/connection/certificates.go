package connection

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/regularfile"
)

// maxPEM is above any bundle of authorities. In bytes.
const maxPEM = 16 << 20

// readPEM reads the file that a setting names.
func readPEM(setting, file string) ([]byte, error) {
	content, err := regularfile.Read(file, maxPEM)
	if err != nil {
		return nil, &SettingError{setting, err}
	}
	return content, nil
}

// authorities reads the certificates to trust. nil are the system's.
func authorities(file string, logger *slog.Logger) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	content, err := readPEM("vault.ca_cert", file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return nil, &SettingError{"vault.ca_cert", fmt.Errorf("%s holds no certificate in PEM form; put the authority's there", file)}
	}
	const begin = "-----BEGIN CERTIFICATE-----"
	for n, text := range strings.Split(string(content), begin)[1:] { // what is unreadable is left out without a word
		if !x509.NewCertPool().AppendCertsFromPEM([]byte(begin + text)) {
			logger.Warn("a certificate of vault.ca_cert cannot be read and is not trusted; replace it", "file", file, "number", n+1)
		}
	}
	return pool, nil
}

// clientPair is our certificate and its key, read anew for each handshake, as both are renewed on disk. While what is
// there is broken, or half of it is renewed, the last good pair is shown. Safe for concurrent use.
type clientPair struct {
	certFile, keyFile string
	logger            *slog.Logger

	mu     sync.Mutex
	good   *tls.Certificate
	warned bool // that what is there now is broken
}

// newClientPair reads the pair that config names, which must be good at the start. It returns nil where none is named.
func newClientPair(config config.Vault, logger *slog.Logger) (*clientPair, error) {
	if config.ClientCert == "" {
		return nil, nil
	}
	p := &clientPair{certFile: config.ClientCert, keyFile: config.ClientKey, logger: logger}
	pair, err := p.read()
	p.good = pair
	return p, err
}

func (p *clientPair) read() (*tls.Certificate, error) {
	cert, err := readPEM("vault.client_cert", p.certFile)
	if err != nil {
		return nil, err
	}
	key, err := readPEM("vault.client_key", p.keyFile)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key) // its errors quote neither
	if err != nil {
		return nil, &SettingError{"vault.client_cert", fmt.Errorf("%s and %s are no pair: %w; put a certificate and its key there, in "+
			"PEM form", p.certFile, p.keyFile, err)}
	}
	return &pair, nil
}

// current returns the pair to show now.
func (p *clientPair) current() *tls.Certificate {
	p.mu.Lock()
	defer p.mu.Unlock()
	pair, err := p.read()
	switch {
	case err == nil:
		p.good, p.warned = pair, false
	case !p.warned:
		p.warned = true
		p.logger.Warn("client certificate unreadable, using the last good one", "file", p.certFile, "reason", err.Error())
	}
	return p.good
}
