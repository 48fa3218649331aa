package sources

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/regularfile"
)

// Auth says how to log in.
type Auth struct {
	Method       string // approle (also when empty), token_file, cert, kubernetes or jwt
	Mount        string // empty: the method's name
	Namespace    string // where the login happens; empty: VaultConfig.Namespace
	RoleID       string // approle: this or RoleIDFile
	RoleIDFile   string
	SecretIDFile string // approle: read anew at each login; one newline at its end is dropped. Empty: the role binds none
	// SecretIDWrapped says that SecretIDFile holds a response-wrapping token, which is exchanged for the secret-id once.
	SecretIDWrapped bool
	SecretIDWarn    time.Duration // approle: before the secret-id's end it is warned of; 0: never
	TokenFile       string        // token_file: read anew at each poll; one newline at its end is dropped
	Role            string        // kubernetes, jwt: required; cert: empty for any role that fits
	JWTFile         string        // kubernetes, jwt: read anew at each login; one newline at its end is dropped
}

const (
	methodAppRole    = "approle"
	methodTokenFile  = "token_file"
	methodCert       = "cert"
	methodKubernetes = "kubernetes"
	methodJWT        = "jwt"
)

// loginMethod is a way to a token that costs a login. A token file is none: see session.fromFile.
type loginMethod interface {
	// prepare reads what the login needs from its files, anew each time, and is not called concurrently. It asks nobody on
	// the network, but for a secret-id that has to be unwrapped.
	prepare(ctx context.Context) (*attempt, error)
}

// attempt is one login about to be made.
type attempt struct {
	step     string // for errors: "login at auth/approle"
	mount    string
	request  loginRequest
	identity []string          // what makes two attempts the same; for a digest only
	secret   credential.Secret // what no error may show
	remedies map[int]string    // status of the answer → what to do
	// refusal says that Vault refused this very attempt, in its own words for that, and what to do; empty where the same
	// attempt may succeed later.
	refusal string
	// enough says the same of one that was refused so often in a row that not even a person's word tries it again for now.
	enough string
	// accepted and rejected, where not nil, hear of a token and of a refusal. rejected reports whether prepare has
	// something else to try now.
	accepted func()
	rejected func(refusal error) bool
}

// loginRequest is what Vault is told to log in, as documented in the API of the method.
type loginRequest map[string]string

// grant is what Vault answers. vault/api leaves some of it out.
type grant struct {
	Token    string            `json:"client_token"`
	Lease    int               `json:"lease_duration"` // in seconds; 0: it never ends
	Metadata map[string]string `json:"metadata"`
	Uses     int64             `json:"num_uses"` // 0: any number
	Type     string            `json:"token_type"`
}

// post sends the request to the login's mount.
func (r loginRequest) post(ctx context.Context, client *api.Client, mount string) (*grant, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	response, err := client.Logical().WriteRawWithContext(ctx, "auth/"+mount+"/login", body)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Auth grant `json:"auth"`
	}
	return &answer.Auth, json.Unmarshal(content, &answer)
}

// refusedBy tells whether err is Vault's refusal of this very attempt.
func (a *attempt) refusedBy(err error) bool {
	return a.refusal != "" && wrongLogin.MatchString(saidBy(err))
}

// wrongLogin are the words of every Vault since 0.6, and of OpenBao, for a role-id or a secret-id that it does not know, or not
// any more. Other refusals, as for the address that a login comes from, may be over at the next try.
var wrongLogin = regexp.MustCompile(`(?i)^(?:failed to validate (?:SecretID|credentials): )?(?:` +
	`invalid role or secret id\b|invalid (?:role|secret)[ _]id\b|invalid credentials\b|` +
	`failed to find secondary index for role_id\b|failed to validate role_id\b|` +
	`role .* referred by the (?:SecretID|role_id)\b.* does not exist)|` +
	`^failed to validate credentials; could not find role\b`)

// maxLine is far above any token or secret-id; Vault's longest tokens have some hundreds of bytes. In bytes.
const maxLine = 64 << 10

// readLine reads a file of one line, whose line end is dropped: editors and echo put one there. key names the file's
// place in the configuration.
func readLine(file, key string) (string, error) {
	content, err := regularfile.Read(file, maxLine)
	if err != nil {
		return "", fmt.Errorf("%s: %w", key, err)
	}
	line := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	form := formOf(line)
	switch {
	case line == "":
		return "", fmt.Errorf("%s: %s is empty; write it again", key, file)
	case form != "":
		return "", fmt.Errorf("%s: %s holds %s; it must hold the bare value", key, file, form)
	case strings.ContainsFunc(line, notInLine):
		return "", fmt.Errorf("%s: %s holds a space, a second line or another character that does not belong there; "+
			"it must hold the bare value", key, file)
	}
	return line, nil
}

// formOf names what a value was written in, if it was: another program reads it out of that, we do not.
func formOf(line string) string {
	switch {
	case strings.HasPrefix(line, "{"), strings.HasPrefix(line, "["):
		return "JSON"
	case strings.ContainsAny(line[:min(1, len(line))], "\"'`"):
		return "quotes"
	case assignment.MatchString(line):
		return "a name before the value (NAME=…)"
	}
	return ""
}

// assignment takes no base64, whose padding is at its end.
var assignment = regexp.MustCompile(`^(?:export\s+)?[A-Za-z_][A-Za-z0-9_]*\s*(?:=\s*[^=\s]|:\s)`)

func notInLine(r rune) bool { return r <= ' ' || r > '~' }

// checkPath refuses what would name another place in Vault once the path is joined.
func checkPath(path string) error {
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("%q must be names separated by single slashes", credential.Escape(path))
		}
	}
	return nil
}
