package nlserver

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/test/skip"
)

// environmentOf returns what a run of nlserver sees.
func environmentOf(t *testing.T, h *fakeHome, n *Binary) map[string]string {
	t.Helper()
	if err := n.activate(t.Context(), stepOf("reload"), time.Time{}); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	for entry := range strings.SplitSeq(h.read("environ"), "\x00") {
		name, value, _ := strings.Cut(entry, "=")
		env[name] = value
	}
	return env
}

func newEnvHome(t *testing.T) *fakeHome {
	return newFakeHome(t, `/bin/cat /proc/$$/environ >$H/environ; pwd >$H/cwd`)
}

func TestEnvironmentIsMinimal(t *testing.T) {
	for name, value := range map[string]string{
		"VAULT_TOKEN": "t", "CREDENTIALS_DIRECTORY": "/c", "NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "1",
		"LD_LIBRARY_PATH": "/l", "TZ": "Europe/Paris", "LANG": "C", "HOME": "/home/neolane", "USER": "neolane", "LOGNAME": "neolane",
	} {
		t.Setenv(name, value)
	}
	for _, script := range []string{"", "env.sh"} {
		h := newEnvHome(t)
		h.write("env.sh", "ADDED=1; export ADDED\n", 0o644)
		env := environmentOf(t, h, h.server(func(c *Config) { c.EnvScript = script }))
		for _, name := range []string{"VAULT_TOKEN", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC", "LD_LIBRARY_PATH"} {
			if value, ok := env[name]; ok {
				t.Errorf("env_script %q: %s=%s got through", script, name, value)
			}
		}
		if env["TZ"] != "Europe/Paris" || env["LANG"] != "C" || env["HOME"] != "/home/neolane" ||
			env["USER"] != "neolane" || env["LOGNAME"] != "neolane" || env["PATH"] == "" {
			t.Errorf("env_script %q: %q", script, env)
		}
		if _, added := env["ADDED"]; added != (script != "") {
			t.Errorf("env_script %q: ADDED is %q", script, env["ADDED"])
		}
		if got := strings.TrimSpace(h.read("cwd")); got != h.path {
			t.Errorf("nlserver ran in %s, want %s", got, h.path)
		}
	}
}

func TestEnvScript(t *testing.T) {
	for _, test := range []struct {
		name, script, value string // value of X
		wantErr             string
	}{
		{"exports", "X=1; export X", "1", ""},
		{"prints to stdout", "echo hello; X=1; export X; echo Y=2", "1", ""},
		{"value of several lines", "X='a\nY=b\n'; export X", "a\nY=b\n", ""},
		{"reads another", ". ./customer.sh", "from customer.sh", ""},
		{"ends in a test that is false", "X=1; export X; [ -f missing ] && . ./missing", "1", ""},
		{"stdout sent elsewhere", "exec >/dev/null; X=1; export X", "1", ""},
		{"PATH without env", "X=1; PATH=/nowhere; export X PATH", "1", ""},
		{"functions and arguments", "env() { :; }; X=$#$0; export X", "0sh", ""},
		{"set -e", "set -e; X=1; export X", "1", ""},
		{"set -a", "set -a; X=1", "1", ""},
		{"secret on stderr", "echo " + nlTestSecret[:4] + " >&2; X=1; export X", "1", ""},
		{"set -e and a failure", "set -e; echo 'went wrong' >&2; false; X=1", "", "env.sh: exit status 1: went wrong"},
		{"exit 1", "echo one >&2; echo two >&2; exit 1", "", "env.sh: exit status 1: one | two"},
		{"exit 0", "exit 0", "", "ended the shell before"},
		{"unset variable", "set -u; X=$NOWHERE; export X", "", "NOWHERE"},
		{"syntax", "if then", "", "yntax error"},
		{"reads one that is missing", ". ./missing", "", "missing"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newEnvHome(t)
			h.write("env.sh", test.script+"\n", 0o644)
			h.write("customer.sh", "X='from customer.sh'; export X\n", 0o644)
			n := h.server(withEnv)
			if test.wantErr != "" {
				_, err := n.set(t.Context(), "prod", nlTestCredential, nil)
				mustSay(t, err, "env_script", h.file("env.sh"), test.wantErr)
				if _, err := os.Stat(h.file("runs")); err == nil {
					t.Error("nlserver was run")
				}
				return
			}
			if got := environmentOf(t, h, n)["X"]; got != test.value {
				t.Errorf("X is %q, want %q", got, test.value)
			}
		})
	}
}

func TestEnvScriptIsReadForEachRun(t *testing.T) {
	h := newEnvHome(t)
	n := h.server(withEnv)
	for _, value := range []string{"1", "2"} {
		h.write("env.sh", "export X="+value+"\n", 0o644)
		if got := environmentOf(t, h, n)["X"]; got != value {
			t.Errorf("X is %q, want %q", got, value)
		}
	}
}

func TestEnvScriptThatIsNotThere(t *testing.T) {
	h := newEnvHome(t)
	mustSay(t, h.server(withEnv).activate(t.Context(), stepOf("reload"), time.Time{}), "no such file", h.file("env.sh"), "campaign.env_script")
	if err := os.Mkdir(h.file("env.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	mustSay(t, h.server(withEnv).activate(t.Context(), stepOf("reload"), time.Time{}), "is not a regular file", h.file("env.sh"))
}

func TestEnvScriptThatHangs(t *testing.T) {
	h := newEnvHome(t)
	h.write("env.sh", "echo 'waiting for godot' >&2; sleep 600\n", 0o644)
	n := h.server(withEnv, func(c *Config) { c.Timeout = 3 * time.Second })
	mustSay(t, n.activate(t.Context(), stepOf("reload"), time.Time{}), "env_script", "stopped after 3s", "campaign.timeout", "godot")
}

// The secret is not known to the script, but a set that fails in it knows it.
func TestEnvScriptCannotShowTheSecret(t *testing.T) {
	h := newEnvHome(t)
	h.write("env.sh", "echo 'found "+nlTestSecret+"' >&2; exit 1\n", 0o644)
	_, err := h.server(withEnv).set(t.Context(), "prod", nlTestCredential, nil)
	mustSay(t, err, "found [redacted]")
}

// The shell is the one that the script names in its first line, where it can source a script.
func TestEnvScriptForAnotherShell(t *testing.T) {
	const bashOnly = "a=(1 2); [[ ${#a[@]} == 2 ]] && export X=bash\n"
	for name, c := range map[string]struct{ script, value, wantErr string }{
		"bash":                  {"#!/bin/bash\n" + bashOnly, "bash", ""},
		"bash, by env":          {"#! /usr/bin/env -S bash -e\n" + bashOnly, "bash", ""},
		"not for a shell":       {"#!/usr/bin/perl\nexport X=1\n", "1", ""},
		"none":                  {"export X=1\n", "1", ""},
		"sh, though for bash":   {bashOnly, "", "yntax error"},
		"hint":                  {bashOnly, "", "(/bin/sh ran it; name another shell in its first line, as in #!/bin/bash, if it needs one)"},
		"goes on, as bash does": {"#!/bin/bash\n. ./missing 2>/dev/null\nreadonly A=1\nA=2\nfunction a-b() { X=1; }\na-b; export X\n", "1", ""},
		"one that is missing":   {"#!/no/such/bash\n" + bashOnly, "", "/no/such/bash"},
	} {
		t.Run(name, func(t *testing.T) {
			if sh, _ := filepath.EvalSymlinks("/bin/sh"); c.script == bashOnly && filepath.Base(sh) == "bash" {
				skip.Unable(t, "sh is bash here, and the test needs another")
			}
			h := newEnvHome(t)
			h.write("env.sh", c.script, 0o644)
			n := h.server(withEnv)
			if c.wantErr != "" {
				mustSay(t, n.activate(t.Context(), stepOf("reload"), time.Time{}), h.file("env.sh"), c.wantErr)
				return
			}
			if got := environmentOf(t, h, n)["X"]; got != c.value {
				t.Errorf("X is %q, want %q", got, c.value)
			}
		})
	}
}

// The text of an error is logged once.
func TestEnvScriptThatComplains(t *testing.T) {
	h := newEnvHome(t)
	var log bytes.Buffer
	n := h.server(withEnv, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	for _, text := range []string{"one", "one", "two", "one"} {
		h.write("env.sh", "echo "+text+" >&2\n", 0o644)
		environmentOf(t, h, n)
	}
	if got := strings.Count(log.String(), "level=WARN msg=\"env_script printed an error and ended well"); got != 3 {
		t.Errorf("%d warnings, want 3:\n%s", got, log.String())
	}
}

// What a script prints that knows a secret is not quoted in any form, also in a step that does not know it.
func TestEnvScriptThatPrintsSecrets(t *testing.T) {
	const secret = "p8e-Ab1_cD2eF3gH4iJ5kL6mN7oP8qR9sT0u"
	inHex := fmt.Sprintf("%x", secret)
	percent := regexp.MustCompile("..").ReplaceAllString(inHex, "%$0")
	basic := base64.StdEncoding.EncodeToString([]byte("id:" + secret))
	for name, line := range map[string]string{
		"plain": secret, "a half": secret[18:], "base64": basic, "Basic": "Authorization: Basic " + basic, "hexadecimal": inHex,
		"percent-encoded": percent, "spaced": strings.Join(strings.Split(secret, ""), " "), "in hexadecimal, spaced": fmt.Sprintf("% x", secret),
	} {
		for _, end := range []string{"exit 1", ""} {
			h := newEnvHome(t)
			h.write("env.sh", "echo 'got "+line+" here' >&2\n"+end+"\n", 0o644)
			var log bytes.Buffer
			n := h.server(withEnv, func(c *Config) {
				c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			})
			said := fmt.Sprint(n.activate(t.Context(), stepOf("reload"), time.Time{})) + log.String()
			c := nlTestCredential
			c.ClientSecret = credential.NewSecret(secret)
			_, err := n.set(t.Context(), "prod", c, nil)
			said += fmt.Sprint(err) + log.String()
			form := strings.TrimPrefix(line, "Authorization: Basic ")
			for i := range len(form) - 8 {
				if piece := form[i : i+8]; strings.Contains(said, piece) {
					t.Fatalf("%s: %q is in %s", name, piece, said)
				}
			}
			if !strings.Contains(said, "[redacted]") {
				t.Errorf("%s: nothing of it is told: %s", name, said)
			}
		}
	}
}
