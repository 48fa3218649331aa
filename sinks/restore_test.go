package sinks_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sinks"
)

const document = `<?xml version='1.0'?>
<!-- <ims authIMSTAClientId="in a comment"/> -->
<serverconf>
  <shared>
    <dataStore><dbcnx login="neolane" password="@ciphertext"/></dataStore>
    <ims authIMSClientId='people' authIMSTAClientId="right" authIMSTAClientSecret='@right' authIMSTAId="account"/>
  </shared>
</serverconf>
`

var right = credential.Attributes{
	{Name: "authIMSTAClientId", Value: "right"},
	{Name: "authIMSTAClientSecret", Value: "@right"},
	{Name: "authIMSTAId", Value: "account"},
	{Name: "authIMSTAPrivateKey", Absent: true},
}

func newInstance(t *testing.T, content string) (*sinks.Instance, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config-prod.xml")
	if err := os.WriteFile(file, []byte(content), 0o640); err != nil {
		t.Fatal(err)
	}
	in := sinks.New(sinks.Config{Name: "prod", File: file, StateDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(func() { in.Wait(context.Background()) })
	return in, file
}

func read(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func wantAlone(t *testing.T, in *sinks.Instance, file string) {
	t.Helper()
	in.Wait(context.Background())
	entries, err := os.ReadDir(filepath.Dir(file))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != filepath.Base(file) {
			t.Errorf("stray file %s", e.Name())
		}
	}
}

var drifted = strings.NewReplacer(`"right"`, `"mallory"`, `'@right'`, `''`).Replace(document)

func TestRestorePutsBackAndKeepsTheRest(t *testing.T) {
	in, file := newInstance(t, drifted)
	found, err := in.Restore(t.Context(), right)
	if err != nil || len(credential.Drift(right, found)) == 0 {
		t.Fatal(found, err)
	}
	if got := read(t, file); got != document {
		t.Errorf("restored to:\n%s", got)
	}
	wantAlone(t, in, file)
	seen, err := in.Look(t.Context())
	if err != nil || len(credential.Drift(right, seen)) != 0 {
		t.Errorf("looks like %v, %v", seen, err)
	}
}

func TestRestoreRefusesWhatItMustNotTouch(t *testing.T) {
	for _, c := range []struct {
		name    string
		content string
		want    error
	}{
		{"empty", "", credential.ErrDamaged},
		{"cut off", drifted[:len(drifted)-20], credential.ErrDamaged},
		{"no shared", `<serverconf/>`, credential.ErrCannotSplice},
		{"another document", `<other><shared><ims/></shared></other>`, credential.ErrCannotSplice},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, file := newInstance(t, c.content)
			if _, err := in.Restore(t.Context(), right); !errors.Is(err, c.want) {
				t.Errorf("error is %v, want %v", err, c.want)
			}
			if got := read(t, file); got != c.content {
				t.Errorf("changed to %q", got)
			}
			wantAlone(t, in, file)
		})
	}
	t.Run("missing", func(t *testing.T) {
		in, file := newInstance(t, document)
		os.Remove(file)
		if _, err := in.Restore(t.Context(), right); !errors.Is(err, credential.ErrMissing) {
			t.Errorf("error is %v", err)
		}
		if _, err := os.Stat(file); err == nil {
			t.Error("the file was created")
		}
	})
}
