package sinks

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sinks/imsxml"
	"campaign-credsync/sinks/nlserver"
	"campaign-credsync/test/standin"
)

// campaign is an instance with the stand-in of nlserver behind it.
type campaign struct {
	*Instance
	t                 *testing.T
	home              *standin.Home
	path, file, state string
}

func newCampaign(t *testing.T) *campaign {
	t.Helper()
	home := standin.New(t)
	c := &campaign{t: t, home: home, path: home.Path, file: filepath.Join(home.Path, "conf", "config-prod.xml"), state: t.TempDir()}
	c.Instance = New(Config{Name: "prod", File: c.file, StateDir: c.state, NLServer: c.server(), Logger: slog.New(slog.DiscardHandler)})
	return c
}

func (c *campaign) server(change ...func(*nlserver.Config)) *nlserver.Binary {
	config := nlserver.Config{
		Home: c.path, Executable: "bin/nlserver", EnvScript: "env.sh", Command: "auto", Timeout: time.Minute, Logger: slog.New(slog.DiscardHandler),
	}
	for _, change := range change {
		change(&config)
	}
	return nlserver.New(config)
}

func (c *campaign) faults(switches string) { c.home.Faults(switches) }

func (c *campaign) read(name string) string { return c.home.Read(name) }

func (c *campaign) content() string { return c.read("conf/config-prod.xml") }

// wantClean checks that nothing of a run is left behind.
func (c *campaign) wantClean() {
	c.t.Helper()
	c.Wait(c.t.Context())
	for _, dir := range []string{filepath.Dir(c.file), c.state} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			c.t.Fatal(err)
		}
		for _, e := range entries {
			if name := e.Name(); strings.HasPrefix(name, ".") || name == "prod.before.path" || slices.Contains([]string{".before", ".survey", ".partial"}, filepath.Ext(name)) {
				c.t.Errorf("left behind: %s", filepath.Join(dir, name))
			}
		}
	}
}

func newTestCredential(secret string) credential.Credential {
	return credential.Credential{
		OrgID: "0123456789ABCDEF01234567@AdobeOrg", ClientID: "0123456789abcdef0123456789abcdef",
		TechnicalAccountID: "acct@techacct.adobe.com", ClientSecret: credential.NewSecret(secret),
	}
}

const firstSecret, secondSecret = "p8e-firstCANARYfirstCANARYfirst0001", "p8e-secondCANARYsecondCANARYsec002"

func TestApplyIsProved(t *testing.T) {
	c := newCampaign(t)
	written, took, err := c.Apply(t.Context(), newTestCredential(firstSecret), nil)
	if err != nil {
		t.Fatal(err)
	}
	if took <= 0 {
		t.Error("no time was taken")
	}
	for name, absent := range map[string]bool{attrClientID: false, attrClientSecret: false, attrAccountID: false, attrPrivateKey: true} {
		if got := written.Get(name); got.Absent != absent {
			t.Errorf("%s: absent is %v, want %v", name, got.Absent, absent)
		}
	}
	seen, err := c.Look(t.Context())
	if err != nil || len(credential.Drift(written, seen)) != 0 {
		t.Errorf("looks like %v, %v", seen, err)
	}
	c.wantClean()
}

// Where the org id is written is not public: it is learned from what a run wrote. What belongs to the login of people is
// not, even where it holds the same value.
func TestApplyLearnsWhereTheOrgIDIs(t *testing.T) {
	c := newCampaign(t)
	c.faults(`{"org_attribute": "authIMSOrgId"}`)
	content := strings.Replace(c.content(), "<ims", `<ims authIMSClientId="0123456789abcdef0123456789abcdef"`, 1)
	if strings.Count(content, "authIMSClientId=") > 1 { // the layout has one already
		content = c.content()
	}
	if err := os.WriteFile(c.file, []byte(content), 0o640); err != nil {
		t.Fatal(err)
	}
	written, _, err := c.Apply(t.Context(), newTestCredential(firstSecret), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := written.Get("authIMSOrgId"); got.Absent || got.Value != "0123456789ABCDEF01234567@AdobeOrg" {
		t.Errorf("org id is not managed: %+v", written)
	}
	if got := written.Get("authIMSClientId"); !got.Absent {
		t.Errorf("the login of people is managed: %+v", got)
	}
}

// Who has the secret in clear in an attribute of their own keeps it there, and no apply fails for it.
func TestApplyBesideASecretInClear(t *testing.T) {
	c := newCampaign(t)
	content := strings.Replace(c.content(), "<ims authIMSClientId", `<ims note="`+firstSecret+`" authIMSClientId`, 1)
	if err := os.WriteFile(c.file, []byte(content), 0o640); err != nil {
		t.Fatal(err)
	}
	written, _, err := c.Apply(t.Context(), newTestCredential(firstSecret), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := written.Get("note"); !got.Absent {
		t.Errorf("it is recorded: %s", got.Name)
	}
	if got, err := c.Look(t.Context()); err != nil || got.Get("note").Value != firstSecret {
		t.Errorf("it is not as it was: %v", err)
	}
}

// Whatever nlserver does, a file that was whole before is whole afterwards, with the credential that worked or the new
// one, and nothing claims that the new one is there when it is not.
func TestApplyNeverLeavesItWorse(t *testing.T) {
	for _, x := range []struct {
		name, faults string
		applied      bool
		wants        string // in the error
	}{
		{"fails before it writes", `{"fail": "before"}`, false, "status 1"},
		{"fails after it wrote", `{"fail": "after"}`, true, ""},
		{"writes nothing and is content", `{"no_write": true}`, false, "nothing was written"},
		{"writes half", `{"write_half": true}`, false, "was restored"},
		{"dies in the middle", `{"write_half": true, "die": true}`, false, "was restored"},
		{"leaves it empty", `{"write_empty": true}`, false, "was restored"},
		{"writes rubbish", `{"garbage": true}`, false, "was restored"},
		{"prints the secret and fails", `{"print_secret": true, "fail": "before"}`, false, "status 1"},
		{"knows no option", `{"options": []}`, false, "setimsoauth"},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := newCampaign(t)
			first, _, err := c.Apply(t.Context(), newTestCredential(firstSecret), nil)
			if err != nil {
				t.Fatal(err)
			}
			before := c.content()
			c.faults(x.faults)
			written, _, err := c.Apply(t.Context(), newTestCredential(secondSecret), nil)
			if x.applied {
				if err != nil || written.Get(attrClientSecret).Same(first.Get(attrClientSecret)) {
					t.Fatalf("not applied: %v, %v", written, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), x.wants) {
				t.Fatalf("error is %v, want one with %q", err, x.wants)
			}
			if strings.Contains(err.Error(), "CANARY") {
				t.Errorf("the error shows the secret: %v", err)
			}
			if got := c.content(); got != before {
				t.Errorf("the file is not as it was; it has %d bytes, had %d", len(got), len(before))
			}
			c.wantClean()
		})
	}
}

// While nlserver ran, another program wrote the credential that was applied before: that is no proof, and it works, so it stays.
func TestApplyOverWhichTheEarlierOneIsWritten(t *testing.T) {
	c := newCampaign(t)
	first, _, err := c.Apply(t.Context(), newTestCredential(firstSecret), nil)
	if err != nil {
		t.Fatal(err)
	}
	works := c.content()
	blank := strings.Replace(works, first.Get(attrClientSecret).Value, "", 1)
	program := "#!/bin/sh\ncat >'" + c.file + "' <<'END'\n" + works + "END\n"
	if err := errors.Join(os.WriteFile(filepath.Join(c.path, "bin/other"), []byte(program), 0o755), os.WriteFile(c.file, []byte(blank), 0o640)); err != nil {
		t.Fatal(err)
	}
	c.cfg.NLServer = c.server(func(n *nlserver.Config) { n.Executable, n.Command = "bin/other", "setimsoauth" })
	if _, _, err := c.Apply(t.Context(), newTestCredential(secondSecret), first); err == nil || !strings.Contains(err.Error(), "applied before") {
		t.Errorf("error is %v", err)
	}
	if got := c.content(); got != works {
		t.Errorf("the file is not what was written last; it has %d bytes, had %d", len(got), len(works))
	}
	c.wantClean()
}

func TestApplyTouchesNoFileThatIsOutOfOrder(t *testing.T) {
	c := newCampaign(t)
	if err := os.WriteFile(c.file, []byte("<serverconf><shared>"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Apply(t.Context(), newTestCredential(firstSecret), nil); !errors.Is(err, credential.ErrDamaged) {
		t.Errorf("error is %v", err)
	}
	os.Remove(c.file)
	if _, _, err := c.Apply(t.Context(), newTestCredential(firstSecret), nil); !errors.Is(err, credential.ErrMissing) {
		t.Errorf("error is %v", err)
	}
	if log := c.read("var/standin/runs.jsonl"); strings.Contains(log, `"set"`) {
		t.Error("nlserver was run")
	}
}

// A process that nlserver left behind may damage the file long after an apply that proved nothing: what was there before stays saved until
// that process has ended. A credential that an operator set meanwhile stays.
func TestApplyKeepsThePreImageWhileAChildLives(t *testing.T) {
	for _, order := range []string{"damage", "end"} {
		t.Run(order, func(t *testing.T) {
			c := newCampaign(t)
			if _, _, err := c.Apply(t.Context(), newTestCredential(firstSecret), nil); err != nil {
				t.Fatal(err)
			}
			want := c.content()
			begun, goOn := filepath.Join(c.path, "begun"), filepath.Join(c.path, "goon")
			program := "#!/bin/sh\nsetsid sh -c 'echo >begun; read order <goon; [ $order = end ] || echo \"<serverconf>\" >conf/config-prod.xml' </dev/null >/dev/null 2>&1 &\n"
			err := errors.Join(os.WriteFile(filepath.Join(c.path, "bin/other"), []byte(program), 0o755), unix.Mkfifo(begun, 0o600), unix.Mkfifo(goOn, 0o600))
			if err != nil {
				t.Fatal(err)
			}
			c.cfg.NLServer = c.server(func(n *nlserver.Config) { n.Executable, n.Command = "bin/other", "setimsoauth" })
			ctx, stop := context.WithCancel(t.Context())
			go func() {
				os.ReadFile(begun) // blocks until it is written
				stop()
			}()
			if _, _, err := c.Apply(ctx, newTestCredential(secondSecret), nil); err == nil || !strings.Contains(err.Error(), "nothing was written") {
				t.Fatalf("error is %v, want one of a run that wrote nothing", err)
			}
			if err := c.Recover(t.Context()); !errors.Is(err, credential.ErrStillRunning) {
				t.Fatalf("recovery while the child lives: %v", err)
			}
			if order == "end" {
				want = strings.ReplaceAll(want, newTestCredential(firstSecret).ClientID, "an-operators-id")
				err = os.WriteFile(c.file, []byte(want), 0o640)
			}
			if err := errors.Join(err, os.WriteFile(goOn, []byte(order+"\n"), 0)); err != nil {
				t.Fatal(err)
			}
			lock, err := c.awaitRun(t.Context(), nil, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			lock.Close()
			if err := c.Recover(t.Context()); err != nil {
				t.Errorf("recovery when the child has ended: %v", err)
			}
			if got := c.content(); got != want {
				t.Errorf("the file has %d bytes, want %d", len(got), len(want))
			}
			c.wantClean()
		})
	}
}

// The daemon was killed, its nlserver lives on: it holds the lock that came with it, and nobody joins it.
func TestRecoverWaitsForAnEarlierRun(t *testing.T) {
	c := newCampaign(t)
	lock, err := c.lockRun()
	if err != nil {
		t.Fatal(err)
	}
	survivor := exec.Command("cat")
	in, err := survivor.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	survivor.ExtraFiles = []*os.File{lock}
	if err := survivor.Start(); err != nil {
		t.Fatal(err)
	}
	lock.Close()
	if err := c.Recover(t.Context()); !errors.Is(err, credential.ErrStillRunning) {
		t.Errorf("recovery: %v", err)
	}
	if _, _, err := c.Apply(t.Context(), newTestCredential(firstSecret), nil); !errors.Is(err, credential.ErrStillRunning) {
		t.Errorf("apply: %v", err)
	}
	in.Close()
	survivor.Wait()
	if err := c.Recover(t.Context()); err != nil {
		t.Errorf("recovery afterwards: %v", err)
	}
}

// The daemon and its nlserver were killed in the middle of a write: the next start puts back what was there.
func TestRecoverPutsBackWhatARunDamaged(t *testing.T) {
	c := newCampaign(t)
	whole := c.content()
	if err := os.WriteFile(c.saved, []byte(whole), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.file, []byte(whole[:len(whole)/2]), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := c.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := c.content(); got != whole {
		t.Errorf("%d bytes, want %d", len(got), len(whole))
	}
	c.wantClean()
}

// The file is put aside while a run damages it: it is repaired when it comes back.
func TestRecoverKeepsThePreImageWhileTheFileIsAway(t *testing.T) {
	c := newCampaign(t)
	whole := c.content()
	away := filepath.Join(t.TempDir(), "away.xml")
	err := errors.Join(os.WriteFile(c.saved, []byte(whole), 0o600), os.WriteFile(c.file, []byte(whole[:len(whole)/2]), 0o640), os.Rename(c.file, away))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Recover(t.Context()); !errors.Is(err, credential.ErrMissing) {
		t.Errorf("recovery while it is away: %v", err)
	}
	if err := errors.Join(os.Rename(away, c.file), c.Recover(t.Context())); err != nil {
		t.Fatal(err)
	}
	if got := c.content(); got != whole {
		t.Errorf("%d bytes, want %d", len(got), len(whole))
	}
	c.wantClean()
}

// A run that this daemon knows to have failed is undone, also where it left a credential that looks complete.
func TestRecoverUndoesAnUnprovedRun(t *testing.T) {
	c := newCampaign(t)
	if _, _, err := c.Apply(t.Context(), newTestCredential(firstSecret), nil); err != nil {
		t.Fatal(err)
	}
	whole := c.content()
	id := newTestCredential(firstSecret).ClientID
	mixed := strings.ReplaceAll(whole, id, "somebody-elses-id")
	for _, known := range []bool{true, false} {
		if err := errors.Join(os.WriteFile(c.saved, []byte(whole), 0o600), os.WriteFile(c.file, []byte(mixed), 0o640)); err != nil {
			t.Fatal(err)
		}
		c.unproved = known // not so after a crash: then it may be the newer credential
		if err := c.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		seen, err := c.Look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := seen.Get(attrClientID).Value; (got == id) != known {
			t.Errorf("known to have failed %v: the client id is %q", known, got)
		}
		c.wantClean()
	}
}

// An editor that has read the damage writes it once more when it was put back already.
func TestDamageThatComesBackIsPutBackAgain(t *testing.T) {
	c := newCampaign(t)
	whole := c.content()
	half := []byte(whole[:len(whole)/2])
	for took := damageWatch; took > damageWatch/2; { // else the editor was not in time, on a busy machine
		if err := errors.Join(os.WriteFile(c.saved, []byte(whole), 0o600), os.WriteFile(c.file, half, 0o640)); err != nil {
			t.Fatal(err)
		}
		again := make(chan error, 1)
		go func() {
			damaged, looks := time.Now(), time.Now()
			for ; c.content() != whole; looks = time.Now() {
				damaged = looks
				time.Sleep(time.Millisecond)
			}
			time.Sleep(damageWatch / 5) // after more than one look
			err := os.WriteFile(c.file, half, 0o640)
			took = time.Since(damaged)
			again <- err
		}()
		if err := errors.Join(c.Recover(t.Context()), <-again); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.content(); got != whole {
		t.Errorf("%d bytes, want %d", len(got), len(whole))
	}
	c.wantClean()
}

// A file that is damaged and was not touched by a run of ours is somebody else's business.
func TestRecoverLeavesDamageOfOthers(t *testing.T) {
	c := newCampaign(t)
	if err := os.WriteFile(c.file, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := c.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := c.content(); got != "" {
		t.Errorf("written: %q", got)
	}
}

// What may be whole is nobody's damage, even after a run of ours that nobody saw end: somebody saved it in a form that is not read here.
func TestRecoverLeavesAFileThatItCannotRead(t *testing.T) {
	c := newCampaign(t)
	whole := c.content()
	doctype := "<!DOCTYPE serverconf SYSTEM 'serverconf.dtd'>" + whole[strings.Index(whole, "<serverconf"):]
	if err := errors.Join(os.WriteFile(c.saved, []byte(whole), 0o600), os.WriteFile(c.file, []byte(doctype), 0o640)); err != nil {
		t.Fatal(err)
	}
	if err := c.Recover(t.Context()); !errors.Is(err, imsxml.ErrUnsupported) {
		t.Errorf("error is %v", err)
	}
	if got := c.content(); got != doctype {
		t.Errorf("written: %.50q", got)
	}
	if err := errors.Join(os.WriteFile(c.file, []byte(whole), 0o640), c.Recover(t.Context())); err != nil {
		t.Error(err)
	}
	c.wantClean()
}
