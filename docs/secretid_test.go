package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"campaign-credsync/test/pages"
)

// Every command that puts a secret-id in place leaves the one that is there where Vault gives none, and then restarts nothing.
func TestSecretIDStaysWhereVaultGivesNone(t *testing.T) {
	tried := 0
	for _, page := range pages.Operators {
		blocks, err := pages.Read(".", page)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks {
			for _, command := range b.Commands() {
				if !strings.HasPrefix(command, "vault write -f -field=secret_id ") {
					continue
				}
				tried++
				dir, programs := t.TempDir(), t.TempDir()
				for name, text := range map[string]string{
					"vault": `[ -z "$ID" ] && exit 2; echo "$ID"`, "sudo": `exec "$@"`, "chgrp": "", "systemctl": "echo restarted",
				} {
					if err := os.WriteFile(filepath.Join(programs, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
						t.Fatal(err)
					}
				}
				home := filepath.Join(dir, "login")
				if err := os.Mkdir(home, 0o755); err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(command, "/login") {
					home = dir
				}
				file := filepath.Join(home, "secret_id")
				for _, c := range []struct{ id, want string }{{"first", "first\n"}, {"", "first\n"}, {"second", "second\n"}} {
					shell := exec.Command("bash", "-c", strings.ReplaceAll(command, "/etc/campaign-credsync", dir))
					shell.Env = []string{"PATH=" + programs + ":" + os.Getenv("PATH"), "ID=" + c.id}
					out, _ := shell.CombinedOutput()
					got, err := os.ReadFile(file)
					if err != nil || string(got) != c.want {
						t.Errorf("%v: Vault gives %q: the file has %q, want %q: %v\n%s", b, c.id, got, c.want, err, out)
					}
					if c.id == "" && strings.Contains(string(out), "restarted") {
						t.Errorf("%v: the daemon is restarted without a new secret-id", b)
					}
					if info, err := os.Stat(file); err == nil && info.Mode()&0o007 != 0 {
						t.Errorf("%v: everybody may read it: %v", b, info.Mode())
					}
				}
			}
		}
	}
	if tried < 4 {
		t.Errorf("%d commands were tried", tried)
	}
}
