package nlserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"campaign-credsync/internal/lazyregexp"
	"campaign-credsync/internal/regularfile"
)

// readEnvironment is what the shell runs. The script is sourced without arguments of ours and under the name sh, as in
// a login shell, because scripts look at both. Its last status does not count, as it does not when a person sources
// it: many end in a test that may be false (`[ -f customer.sh ] && . customer.sh`). `exit` and `set -e` do count: they end
// this shell. What it prints on stdout is not part of the environment. NUL keeps values with line ends whole.
const readEnvironment = `script=$1; shift; . "$script" >/dev/null; exec /usr/bin/env -0`

// environment returns the environment of nlserver: what env_script leaves of a minimal one, in the shell that its first line names,
// else in sh. It is read for each run, which costs milliseconds, so that a changed customer.sh counts from then on.
func (b *Binary) environment(ctx context.Context) ([]string, error) {
	script := b.cfg.EnvScript
	if script == "" {
		return minimalEnvironment(), nil
	}
	f, _, err := regularfile.Open(script)
	if err != nil {
		return nil, fmt.Errorf(`campaign.env_script ("" means none): %w`, err)
	}
	defer f.Close()
	head := make([]byte, 256)
	n, _ := io.ReadFull(f, head) // what cannot be read the shell will tell
	shell := "/bin/sh"
	if named := shellLine().FindSubmatch(head[:n]); named != nil {
		shell = string(named[1])
	}
	var found bytes.Buffer
	printed, _, err := b.run(ctx, child{
		args: []string{shell, "-c", readEnvironment, "sh", script}, env: minimalEnvironment(), stdout: &found,
	})
	said := saying(redact(printed))
	if _, exited := errors.AsType[*exec.ExitError](err); exited {
		said += fmt.Sprintf(" (%s ran it; name another shell in its first line, as in #!/bin/bash, if it needs one)", shell)
	}
	if err == nil && found.Len() == 0 {
		err = errors.New("it ended the shell before its environment could be read (an exit in it or in what it reads?)")
	}
	if err != nil {
		return nil, fmt.Errorf("env_script %s: %w%s", script, err, said)
	}
	if old := b.complaint.Swap(&said); said != "" && (old == nil || *old != said) {
		b.cfg.Logger.Warn("env_script printed an error and ended well; what nlserver lacks may be due to that",
			"path", script, "shell", shell, "reason", strings.TrimPrefix(said, ": "), "remedy", "correct it, or name its shell in its first line: #!/bin/bash")
	}
	return strings.Split(strings.TrimSuffix(found.String(), "\x00"), "\x00"), nil
}

// shellLine is a first line that names a shell which can source a script for sh and run readEnvironment.
var shellLine = lazyregexp.New(`^#![ \t]*(?:/\S*/env[ \t](?:.*[ \t])?)?((?:/\S*/)?(?:sh|bash|dash|ash|ksh|ksh93|mksh|zsh))(?:\s|$)`)

// minimalEnvironment is all that env_script and nlserver get of ours. Tokens of Vault, the directory of systemd's
// credentials and its sockets are none of their business.
func minimalEnvironment() []string {
	env := []string{"PATH=/usr/local/bin:/usr/bin:/bin"}
	for _, name := range []string{"PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}
