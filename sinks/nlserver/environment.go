package nlserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"campaign-credsync/internal/regularfile"
)

// maxEnvironment is half of what Linux lets arguments and environment of a program have together by default.
const maxEnvironment = 1 << 20

// readEnvironment is what the shell runs. The script is sourced without arguments of ours and under the name sh, as in
// a login shell, because scripts look at both. Its last status does not count, as it does not when a person sources
// it: many end in a test that may be false (`[ -f customer.sh ] && . customer.sh`). `exit` and `set -e` do count: they end
// this shell. What it prints on stdout is not part of the environment. NUL keeps values with line ends whole.
const readEnvironment = `script=$1; shift; . "$script" >/dev/null; exec %s -0`

// environment returns the environment of nlserver: what env_script leaves of a minimal one. It is read for each run,
// which costs milliseconds, so that a changed customer.sh counts from then on.
func (n *Server) environment(ctx context.Context, redact func(string) string) ([]string, error) {
	base := minimalEnvironment()
	if n.cfg.EnvScript == "" {
		return base, nil
	}
	shell, err := shellOf(n.cfg.EnvScript)
	if err != nil {
		return nil, err
	}
	env := "/usr/bin/env"
	if _, err := os.Stat(env); err != nil {
		env = "/bin/env"
	}

	stdout, stderr := &capture{limit: maxEnvironment}, &capture{limit: captureLimit}
	end, err := (&child{
		path: shell, args: []string{"-c", fmt.Sprintf(readEnvironment, env), "sh", n.cfg.EnvScript},
		dir: n.cfg.Home, env: base, stdout: stdout, stderr: stderr,
	}).run(ctx, n.cfg.Timeout)
	said := func() string {
		text := strings.TrimSpace(stderr.text(end.complete, redact))
		if text == "" {
			return ""
		}
		return ": " + excerptOf(text[strings.LastIndexAny(text, "\r\n")+1:], summaryLength)
	}
	switch {
	case err != nil && !end.started:
		return nil, fmt.Errorf("env_script %s: run %s for it: %w", n.cfg.EnvScript, shell, err)
	case err != nil:
		return nil, fmt.Errorf("env_script %s: %w%s", n.cfg.EnvScript, err, said())
	case end.failure != "":
		return nil, fmt.Errorf("env_script %s: %s%s (%s ran it; name another shell in its first line, as in #!/bin/bash, if it needs one)",
			n.cfg.EnvScript, end.failure, said(), shell)
	}
	raw := stdout.kept
	switch {
	case !stdout.whole() || len(raw) > maxEnvironment:
		return nil, fmt.Errorf("env_script %s: the environment it leaves has more than %d bytes", n.cfg.EnvScript, maxEnvironment)
	case len(raw) == 0:
		return nil, fmt.Errorf("env_script %s: it ended the shell before its environment could be read "+
			"(an exit in it or in what it reads?)%s", n.cfg.EnvScript, said())
	}
	complaint := strings.TrimPrefix(said(), ": ")
	if old := n.complaint.Swap(&complaint); complaint != "" && (old == nil || *old != complaint) {
		n.cfg.Logger.Warn("env_script printed an error and ended well; what nlserver lacks may be due to that",
			"path", n.cfg.EnvScript, "shell", shell, "reason", complaint)
	}
	return parseEnvironment(raw), nil
}

// sourcing are the shells that can source a script for sh and run readEnvironment.
var sourcing = []string{"sh", "bash", "dash", "ash", "ksh", "ksh93", "mksh", "zsh"}

// shellOf returns the shell that a script names in its first line, else /bin/sh, which may not understand what others do.
func shellOf(script string) (string, error) {
	const remedy = `set campaign.env_script, "" means none`
	info, err := os.Stat(script)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("env_script is missing: no file %s (%s): %w", script, remedy, fs.ErrNotExist)
	case err != nil:
		return "", fmt.Errorf("look for env_script: %w (%s)", err, remedy)
	case info.IsDir():
		return "", fmt.Errorf("env_script %s is a directory (%s)", script, remedy)
	}
	f, _, err := regularfile.Open(script)
	if err != nil {
		return "", fmt.Errorf("env_script: %w", err)
	}
	defer f.Close()
	head := make([]byte, 256)
	n, _ := io.ReadFull(f, head) // a shorter file is no error, and another one the shell will tell
	line, _, _ := strings.Cut(string(head[:n]), "\n")
	words := strings.Fields(strings.TrimPrefix(line, "#!"))
	if !strings.HasPrefix(line, "#!") || len(words) == 0 {
		return "/bin/sh", nil
	}
	shell := words[0]
	if filepath.Base(shell) == "env" {
		i := slices.IndexFunc(words[1:], func(word string) bool { return slices.Contains(sourcing, word) })
		if i < 0 {
			return "/bin/sh", nil
		}
		if shell, err = exec.LookPath(words[1+i]); err != nil {
			return "", fmt.Errorf("env_script: the first line of %s names a shell that is not there: %w", script, err)
		}
	}
	if !filepath.IsAbs(shell) || !slices.Contains(sourcing, filepath.Base(shell)) {
		return "/bin/sh", nil
	}
	return shell, nil
}

// minimalEnvironment is all that env_script and nlserver get of ours. Tokens of Vault, the directory of systemd's
// credentials and its sockets are none of their business.
func minimalEnvironment() []string {
	path := os.Getenv("PATH")
	if path == "" {
		path = "/usr/local/bin:/usr/bin:/bin"
	}
	env := []string{"PATH=" + path}
	for _, name := range []string{"HOME", "USER", "LOGNAME", "LANG", "TZ"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

func parseEnvironment(raw []byte) []string {
	var env []string
	for entry := range bytes.SplitSeq(raw, []byte{0}) {
		if name, _, ok := strings.Cut(string(entry), "="); ok && name != "" {
			env = append(env, string(entry))
		}
	}
	return env
}
