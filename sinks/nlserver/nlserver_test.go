package nlserver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"campaign-credsync/internal/credential"
)

// An old-style secret: it has no shape that gives it away, so it is gone from an output only when it was known.
const nlTestSecret = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"

var nlTestCredential = credential.Credential{
	OrgID:              "0123456789ABCDEF01234567@AdobeOrg",
	ClientID:           "00112233445566778899aabbccddeeff",
	TechnicalAccountID: "ABCDEF@techacct.adobe.com",
	ClientSecret:       credential.NewSecret(nlTestSecret),
}

// fakeHome is a directory with a shell script as bin/nlserver, which logs its runs and then does what it is told.
type fakeHome struct {
	t    *testing.T
	path string
}

func newFakeHome(t *testing.T, script string) *fakeHome {
	t.Helper()
	current := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, current) })
	h := &fakeHome{t: t, path: t.TempDir()}
	h.install(script)
	return h
}

// install puts another executable in place, as an update does: by a rename.
func (h *fakeHome) install(script string) {
	h.t.Helper()
	script = "#!/bin/sh\nH='" + h.path + "'\nfor a; do printf '%s\\n' \"$a\" >>$H/args; done; echo \"$1 $2\" >>$H/runs\n" + script
	h.write("bin/nlserver.new", script, 0o755)
	if err := os.Rename(h.file("bin/nlserver.new"), h.file("bin/nlserver")); err != nil {
		h.t.Fatal(err)
	}
}

func (h *fakeHome) file(name string) string { return filepath.Join(h.path, name) }

func (h *fakeHome) write(name, text string, mode os.FileMode) {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Dir(h.file(name)), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(h.file(name), []byte(text), mode); err != nil {
		h.t.Fatal(err)
	}
}

func (h *fakeHome) read(name string) string {
	h.t.Helper()
	text, err := os.ReadFile(h.file(name))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(text)
}

// fifo makes a named pipe and returns what waits until a script has written a line to it.
func (h *fakeHome) fifo(name string) (written func()) {
	h.t.Helper()
	if err := syscall.Mkfifo(h.file(name), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return func() {
		h.t.Helper()
		file, err := os.OpenFile(h.file(name), os.O_RDWR, 0) // to read only would wait for a writer, without an end
		if err != nil {
			h.t.Error(err)
			return
		}
		defer file.Close()
		_ = file.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := bufio.NewReader(file).ReadString('\n'); err != nil {
			h.t.Errorf("nothing was written to %s: %v", name, err)
		}
	}
}

// server has no question to ask nlserver, unless the test wants it.
func (h *fakeHome) server(change ...func(*Config)) *Binary {
	config := Config{
		Home: h.path, Executable: "bin/nlserver", Command: CommandOAuth, Timeout: time.Minute, Logger: slog.New(slog.DiscardHandler),
		StateDir: h.path,
	}
	for _, c := range change {
		c(&config)
	}
	return New(config)
}

// set readies a run and does it.
func (b *Binary) set(ctx context.Context, instance string, c credential.Credential, inherit *os.File) (said string, err error) {
	run, err := b.Prepare(ctx, instance, c)
	if err != nil {
		return "", err
	}
	said, _, err = run(ctx, inherit)
	return said, err
}

func auto(c *Config)    { c.Command = "auto" }
func withEnv(c *Config) { c.EnvScript = "env.sh" }

func mustSay(t *testing.T, err error, wanted ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one that says %q", wanted)
	}
	for _, w := range wanted {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
	mustHide(t, err.Error())
}

// mustHide fails when any eight characters in a row of the secret are in text.
func mustHide(t *testing.T, text string) {
	t.Helper()
	for i := 0; i+8 <= len(nlTestSecret); i++ {
		if strings.Contains(text, nlTestSecret[i:i+8]) {
			t.Fatalf("part %q of the secret is in %.2000q", nlTestSecret[i:i+8], text)
		}
	}
}

func TestSetHandsOverTheCredential(t *testing.T) {
	h := newFakeHome(t, `echo done`)
	said, err := h.server().set(t.Context(), "prod", nlTestCredential, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := "config\n-instance:prod\n-setimsoauth:0123456789ABCDEF01234567@AdobeOrg/00112233445566778899aabbccddeeff/" +
		"ABCDEF@techacct.adobe.com/" + nlTestSecret + "\n"
	if got := h.read("args"); got != want {
		t.Errorf("nlserver was run with\n%s\nwant\n%s", got, want)
	}
	if said != "done" {
		t.Errorf("it said %q", said)
	}
}

func TestSetHandsOverPrivateKeys(t *testing.T) {
	const pem = "-----BEGIN PRIVATE KEY-----\nAAAABBBBCCCC\n-----END PRIVATE KEY-----"
	const asBase64 = "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCkFBQUFCQkJCQ0NDQwotLS0tLUVORCBQUklWQVRFIEtFWS0tLS0t"
	for _, test := range []struct{ name, command, key, wantKey, wantErr string }{
		{"none", commandJWT, "", "", ""},
		{"PEM", commandJWT, pem, "/" + asBase64, ""},
		{"PEM with a newline behind it", commandJWT, pem + "\n", "/" + asBase64, ""},
		{"base64", commandJWT, asBase64, "/" + asBase64, ""},
		{"base64 on several lines", commandJWT, asBase64[:40] + "\n" + asBase64[40:] + "\n", "/" + asBase64, ""},
		{"neither", commandJWT, "not a key", "", "private_key is neither PEM nor base64"},
		{"an option that takes none", commandIMS, pem, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newFakeHome(t, `echo "$3"; sed 's/^/17:11:03 > /' $H/key; exit 1`)
			h.write("key", test.key, 0o600)
			c := nlTestCredential
			c.PrivateKey = credential.NewSecret(test.key)
			var log bytes.Buffer
			n := h.server(func(config *Config) {
				config.Command = test.command
				config.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			})
			said, err := n.set(t.Context(), "prod", c, nil)
			mustSay(t, err, test.wantErr)
			for _, said := range []string{err.Error(), said, log.String()} {
				if strings.Contains(said, "AAAABBBB") || strings.Contains(said, asBase64[:20]) {
					t.Errorf("the key is in %q", said)
				}
				mustHide(t, said)
			}
			if test.wantErr != "" {
				if _, err := os.Stat(h.file("args")); err == nil {
					t.Error("nlserver was run")
				}
				return
			}
			if got, want := strings.Contains(log.String(), "WARN"), test.key != "" && test.wantKey == ""; got != want {
				t.Errorf("warns: %t, want %t: %s", got, want, log.String())
			}
			if _, got, _ := strings.Cut(strings.TrimSpace(h.read("args")), nlTestSecret); got != test.wantKey {
				t.Errorf("behind the secret: %q, want %q", got, test.wantKey)
			}
		})
	}
}

func TestSetRefusesWhatNLServerWouldMisunderstand(t *testing.T) {
	h := newFakeHome(t, "")
	c := nlTestCredential
	c.ClientSecret = credential.NewSecret(nlTestSecret + "\n")
	_, err := h.server().set(t.Context(), "prod", c, nil)
	mustSay(t, err, "instance prod", "client_secret ends in a newline")
	if _, err := os.Stat(h.file("runs")); err == nil {
		t.Error("nlserver was run")
	}
}

func TestSetReportsFailures(t *testing.T) {
	for _, test := range []struct {
		name, script string
		want         []string
	}{
		{"exit status and last lines", `echo one; echo two >&2; echo three; echo four; exit 7`,
			[]string{"nlserver config -setimsoauth for instance prod: exit status 7: two | three | four"}},
		{"lines with a code", `echo 'x (iRc=16384)'; for i in 1 2 3 4 5 6; do echo $i; done; exit 1`,
			[]string{"exit status 1: x (iRc=16384)"}},
		{"control characters", `printf 'a \033 b\n'; exit 1`, []string{`a \x1b b`}},
		{"nothing said", `exit 3`, []string{"prod: exit status 3"}},
		{"a signal", `kill -SEGV $$`, []string{"signal: segmentation fault"}},
		{"the secret", `echo "bad argument $3 (iRc=1)"; echo "$3" >&2; exit 1`, []string{"bad argument [redacted] (iRc=1)"}},
		{"the argument cut short", `printf '%.115s\n' "$3"; exit 1`, []string{"exit status 1: [redacted]"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newFakeHome(t, test.script)
			said, err := h.server().set(t.Context(), "prod", nlTestCredential, nil)
			mustSay(t, err, test.want...)
			mustHide(t, said)
			if n := len([]rune(err.Error())); n > maxSaid+150 {
				t.Errorf("the error has %d characters", n)
			}
		})
	}
}

// A secret of the usual shape shows itself also where the program cut it short.
func TestSetHidesAPieceOfAUsualSecret(t *testing.T) {
	secret := "p8e-" + strings.Repeat("Ab1_", 8)
	h := newFakeHome(t, `echo "bad: `+secret[:20]+`..."; exit 1`)
	c := nlTestCredential
	c.ClientSecret = credential.NewSecret(secret)
	_, err := h.server().set(t.Context(), "prod", c, nil)
	mustSay(t, err, "bad: [redacted]")
}

func TestExecutableThatCannotBeRun(t *testing.T) {
	for _, test := range []struct {
		name    string
		prepare func(h *fakeHome) error
		want    []string
	}{
		{"missing", func(h *fakeHome) error { return os.Remove(h.file("bin/nlserver")) },
			[]string{"bin/nlserver: no such file", "campaign.home"}},
		{"not executable", func(h *fakeHome) error { return os.Chmod(h.file("bin/nlserver"), 0o644) },
			[]string{"bin/nlserver: permission denied", "campaign.nlserver"}},
		{"directory", func(h *fakeHome) error {
			return errors.Join(os.Remove(h.file("bin/nlserver")), os.Mkdir(h.file("bin/nlserver"), 0o755))
		}, []string{"bin/nlserver: permission denied", "campaign.nlserver"}},
		{"not a program", func(h *fakeHome) error { return os.WriteFile(h.file("bin/nlserver"), []byte("text"), 0o755) },
			[]string{"exec format error", "bin/nlserver"}},
		{"interpreter missing", func(h *fakeHome) error {
			return os.WriteFile(h.file("bin/nlserver"), []byte("#!/no/such/sh\n"), 0o755)
		}, []string{"bin/nlserver: no such file"}},
		{"being written", func(h *fakeHome) error {
			file, err := os.OpenFile(h.file("bin/nlserver"), os.O_WRONLY, 0)
			h.t.Cleanup(func() { file.Close() })
			return err
		}, []string{"text file busy"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newFakeHome(t, "")
			if err := test.prepare(h); err != nil {
				t.Fatal(err)
			}
			_, err := h.server().set(t.Context(), "prod", nlTestCredential, nil)
			mustSay(t, err, test.want...)
			mustSay(t, h.server().activate(t.Context(), stepOf("reload"), time.Time{}), test.want...)
		})
	}
}
