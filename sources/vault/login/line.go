package login

import (
	"fmt"
	"strings"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/lazyregexp"
	"campaign-credsync/internal/regularfile"
)

// maxLine is far above any token or secret-id; Vault's longest tokens have some hundreds of bytes. In bytes.
const maxLine = 64 << 10

// readLine reads a file of one line, whose line end is dropped: editors and echo put one there. key names the file's place
// in the configuration. A line in another form is refused, as a wrong secret-id counts.
func readLine(file, key string) (line string, err error) {
	content, err := regularfile.Read(file, maxLine)
	if err != nil {
		return "", credential.NeedsOperator(fmt.Errorf("vault login: %s: %w", key, err))
	}
	line = strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	problem := "holds JSON, quotes, a name before the value (NAME=…), a space, a second line or another character that does not belong " +
		"there; it must hold the bare value"
	switch {
	case line == "":
		problem = "is empty; write it again"
	case !otherForm().MatchString(line) && !strings.ContainsFunc(line, func(r rune) bool { return r <= ' ' || r > '~' }):
		return line, nil
	}
	return "", credential.NeedsOperator(fmt.Errorf("vault login: %s: %s %s", key, file, problem))
}

// otherForm is JSON, quotes or an assignment. It takes no base64, whose padding is at its end.
var otherForm = lazyregexp.New("^[{\\[\"'`]|" + `^(?:export\s+)?[A-Za-z_][A-Za-z0-9_]*\s*(?:=\s*[^=\s]|:\s)`)
