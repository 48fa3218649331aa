// Package credential holds the words that the packages of campaign-credsync share: the OAuth Server-to-Server credential of one Adobe
// technical account, the version of the secret it came from, the attributes it becomes in an instance's configuration file, and the
// steps that make Campaign use it.
//
// The client secret and the private key are of type [Secret], which cannot print. Everything else is plain data and may be copied and
// shared between goroutines. The package knows neither Vault nor XML.
package credential

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"campaign-credsync/internal/lazyregexp"
)

// Credential is one OAuth Server-to-Server credential. All its fields come from one version of one secret.
type Credential struct {
	OrgID              string
	ClientID           string
	TechnicalAccountID string
	ClientSecret       Secret
	PrivateKey         Secret // PEM or base64; for JWT credentials only, else the zero Secret
}

// Names of the fields, as the configuration, refusals and logs call them.
const (
	FieldOrgID              = "ims_org_id"
	FieldClientID           = "client_id"
	FieldTechnicalAccountID = "technical_account_id"
	FieldClientSecret       = "client_secret"
	FieldPrivateKey         = "private_key"
)

const (
	// maxFieldLength is far above what Adobe issues (a client secret has 36 characters) and far below what does not fit into a
	// command line.
	maxFieldLength = 256
	// maxPrivateKeyLength bounds a PEM key in bytes; a 4096 bit RSA key has about 3,300.
	maxPrivateKeyLength = 16 << 10
)

// field is a field of a credential, and its usual shape: from Adobe's documentation and from credentials seen.
type field struct {
	name, value string
	usual       func() *regexp.Regexp
}

var (
	usualOrgID    = lazyregexp.New(`^[0-9A-F]{24}@AdobeOrg$`)
	usualClientID = lazyregexp.New(`^[0-9a-f]{32}$`)
	usualAccount  = lazyregexp.New(`^[^@]+@techacct\.adobe\.com$`)
	usualSecret   = lazyregexp.New(`^(p8e-[A-Za-z0-9_-]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$`)
)

// fields are the fields that every credential has.
func (c Credential) fields() []field {
	return []field{
		{FieldOrgID, c.OrgID, usualOrgID},
		{FieldClientID, c.ClientID, usualClientID},
		{FieldTechnicalAccountID, c.TechnicalAccountID, usualAccount},
		{FieldClientSecret, c.ClientSecret.Reveal(), usualSecret},
	}
}

// Check tells why the credential must not be handed to nlserver, or nil. It refuses and never trims: a secret with a newline behind it
// is a mistake to be mended where it was made. The error names the field and never its value.
func (c Credential) Check() error {
	for _, f := range c.fields() {
		if err := checkField(f.value); err != nil {
			return fmt.Errorf("field %s %w", f.name, err)
		}
	}
	if err := checkPrivateKey(c.PrivateKey.Reveal()); err != nil {
		return fmt.Errorf("field %s %w", FieldPrivateKey, err)
	}
	return nil
}

func checkField(value string) error {
	switch {
	case value == "":
		return errors.New("is empty")
	case len(value) > maxFieldLength: // before what takes time with the length
		return fmt.Errorf("is longer than %d characters", maxFieldLength)
	case placeholder().MatchString(value):
		return errPlaceholder
	case strings.Contains(value, "/"):
		return errors.New(`holds a "/", which nlserver takes as the end of the field`)
	case strings.ContainsFunc(strings.TrimSuffix(value, "\n"), func(r rune) bool { return r <= ' ' || r > '~' }):
		return errors.New("holds a space, a control character or a character outside ASCII")
	case strings.HasSuffix(value, "\n"):
		return errors.New("ends in a newline (write it with printf or echo -n)")
	}
	return nil
}

func checkPrivateKey(key string) error {
	switch {
	case len(key) > maxPrivateKeyLength:
		return fmt.Errorf("is longer than %d bytes", maxPrivateKeyLength)
	case placeholder().MatchString(key):
		return errPlaceholder
	case strings.ContainsFunc(key, func(r rune) bool { return r > '~' || r < ' ' && r != '\n' && r != '\r' }):
		return errors.New("holds a character that neither PEM nor base64 has")
	}
	return nil
}

// placeholder matches what no credential can be taken for: no value of Adobe's holds brackets, braces or "$", and in a random one such
// a word does not stand by itself.
var placeholder = lazyregexp.New(`^(?i:ENC\[|\$\{|\{\{)|\$\{[A-Za-z_][A-Za-z0-9_.-]*\}|\{\{[^{}]+\}\}` +
	`|(?i:(^|[^a-z0-9])(redacted|change[-_]?me)($|[^a-z]))`)

var errPlaceholder = errors.New("is a placeholder that was never filled in (such as ENC[…], ${NAME}, {{name}}, REDACTED or changeme)")

// Oddities names the fields whose shape is unusual, without their values. Older credentials have other shapes, so an odd one is worth a
// warning and nothing more.
func (c Credential) Oddities() (odd []string) {
	for _, f := range c.fields() {
		if !f.usual().MatchString(f.value) {
			odd = append(odd, f.name)
		}
	}
	return odd
}

// Digest identifies the credential to whoever holds the key, and tells nothing to anybody else.
func (c Credential) Digest(key []byte) string {
	return digest(key, c.OrgID, c.ClientID, c.TechnicalAccountID, c.ClientSecret.Reveal(), c.PrivateKey.Reveal())
}

// SecretDigest is the same of the client secret alone.
func (c Credential) SecretDigest(key []byte) string { return digest(key, c.ClientSecret.Reveal()) }

// KeyID tells one digest key from another.
func KeyID(key []byte) string { return digest(key, "which key this is")[:16] }

func digest(key []byte, fields ...string) string {
	mac := hmac.New(sha256.New, key)
	for _, field := range fields {
		// The length in front keeps "ab"+"c" apart from "a"+"bc".
		mac.Write(binary.BigEndian.AppendUint32(nil, uint32(len(field))))
		mac.Write([]byte(field))
	}
	return hex.EncodeToString(mac.Sum(nil))
}
