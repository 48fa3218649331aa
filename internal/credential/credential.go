// Package credential holds the words that the rooms of campaign-credsync share: the OAuth Server-to-Server credential
// of one Adobe technical account, the version of the secret it came from, and the attributes it becomes in an
// instance's configuration file.
//
// The client secret and the private key are of type [Secret], which cannot print. Everything else here is plain data
// and may be copied and shared between goroutines. The package imports no room.
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

// maxFieldLength is far above what Adobe issues (a client secret is 36 characters) and far below what would not fit
// into a command line.
const maxFieldLength = 256

// maxPrivateKeyLength bounds a PEM key in bytes; a 4096 bit RSA key has about 3,300.
const maxPrivateKeyLength = 16 << 10

// Check tells why the credential must not be handed to nlserver, or nil. It refuses and never trims: a secret with a
// newline behind it is a mistake to be mended where it was made. The error names the field and never its value.
func (c Credential) Check() error {
	for _, f := range []struct{ name, value string }{
		{FieldOrgID, c.OrgID},
		{FieldClientID, c.ClientID},
		{FieldTechnicalAccountID, c.TechnicalAccountID},
		{FieldClientSecret, c.ClientSecret.Reveal()},
	} {
		if err := checkField(f.value); err != nil {
			return fmt.Errorf("field %s %w", f.name, err)
		}
	}
	if key := c.PrivateKey.Reveal(); key != "" {
		if isPlaceholder(key) {
			return fmt.Errorf("field %s %w", FieldPrivateKey, errPlaceholder)
		}
		if len(key) > maxPrivateKeyLength {
			return fmt.Errorf("field %s is longer than %d bytes", FieldPrivateKey, maxPrivateKeyLength)
		}
		for _, r := range key {
			if r > '~' || r < ' ' && r != '\n' && r != '\r' {
				return fmt.Errorf("field %s holds a character that neither PEM nor base64 has", FieldPrivateKey)
			}
		}
	}
	return nil
}

func checkField(value string) error {
	if value == "" {
		return fmt.Errorf("is empty")
	}
	if isPlaceholder(value) {
		return errPlaceholder
	}
	if len(value) > maxFieldLength {
		return fmt.Errorf("is longer than %d characters", maxFieldLength)
	}
	for i, r := range value {
		last := i == len(value)-1
		switch {
		case r == '\n' && last:
			return fmt.Errorf("ends in a newline (write it with printf or echo -n)")
		case r == '/':
			return fmt.Errorf(`holds a "/", which nlserver takes as the end of the field`)
		case r == ' ':
			return fmt.Errorf("holds a space")
		case r < ' ' || r == 0x7f:
			return fmt.Errorf("holds a control character")
		case r > '~':
			return fmt.Errorf("holds a character outside ASCII")
		}
	}
	return nil
}

// Placeholders that no credential can be taken for. No value of Adobe's holds brackets, braces or "$", and in a random one such
// a word does not stand by itself.
var (
	placeholderStart = regexp.MustCompile(`^(?i:ENC\[|\$\{|\{\{)`)
	placeholderPart  = regexp.MustCompile(`\$\{[A-Za-z_][A-Za-z0-9_.-]*\}|\{\{[^{}]+\}\}`)
	placeholderWord  = regexp.MustCompile(`(?i)(^|[^a-z0-9])(redacted|change[-_]?me)($|[^a-z])`)

	errPlaceholder = errors.New("is a placeholder that was never filled in (such as ENC[…], ${NAME}, {{name}}, REDACTED or changeme)")
)

func isPlaceholder(value string) bool {
	return placeholderStart.MatchString(value) || placeholderPart.MatchString(value) || placeholderWord.MatchString(value)
}

// The usual shapes, from Adobe's documentation and from credentials seen. Older ones differ, so an odd shape is
// worth a warning and nothing more.
var (
	usualOrgID     = regexp.MustCompile(`^[0-9A-F]{24}@AdobeOrg$`)
	usualClientID  = regexp.MustCompile(`^[0-9a-f]{32}$`)
	usualTechAcct  = regexp.MustCompile(`^[^@]+@techacct\.adobe\.com$`)
	usualSecret    = regexp.MustCompile(`^p8e-[A-Za-z0-9_-]{32}$`)
	usualOldSecret = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
)

// Oddities names the fields whose shape is unusual, without their values.
func (c Credential) Oddities() []string {
	var odd []string
	if !usualOrgID.MatchString(c.OrgID) {
		odd = append(odd, FieldOrgID)
	}
	if !usualClientID.MatchString(c.ClientID) {
		odd = append(odd, FieldClientID)
	}
	if !usualTechAcct.MatchString(c.TechnicalAccountID) {
		odd = append(odd, FieldTechnicalAccountID)
	}
	if s := c.ClientSecret.Reveal(); !usualSecret.MatchString(s) && !usualOldSecret.MatchString(s) {
		odd = append(odd, FieldClientSecret)
	}
	return odd
}

// Digest identifies the credential to whoever holds the key, and tells nothing to anybody else.
func (c Credential) Digest(key []byte) string {
	return digest(key, c.OrgID, c.ClientID, c.TechnicalAccountID, c.ClientSecret.Reveal(), c.PrivateKey.Reveal())
}

// SecretDigest is the same of the client secret alone.
func (c Credential) SecretDigest(key []byte) string { return digest(key, c.ClientSecret.Reveal()) }

func digest(key []byte, fields ...string) string {
	mac := hmac.New(sha256.New, key)
	for _, field := range fields {
		// The length in front keeps "ab"+"c" apart from "a"+"bc".
		mac.Write(binary.BigEndian.AppendUint32(nil, uint32(len(field))))
		mac.Write([]byte(field))
	}
	return hex.EncodeToString(mac.Sum(nil))
}

// Redact replaces the secrets of c, in every form they are likely to take, in text from outside.
func (c Credential) Redact(text string) string {
	return Redact(text, c.ClientSecret, c.PrivateKey)
}

// String names the credential without its secrets.
func (c Credential) String() string {
	return strings.Join([]string{c.OrgID, c.ClientID, c.TechnicalAccountID, redacted}, "/")
}
