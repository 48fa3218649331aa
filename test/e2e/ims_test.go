package e2e_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/ims"
	"campaign-credsync/test/world"
)

// probing sets up a world whose versions are probed, by settings of ims: in flow style besides. Nothing runs yet.
func probing(t *testing.T, settings string, options container.Options) (*world.World, *ims.Server) {
	t.Helper()
	adobe := ims.New()
	t.Cleanup(adobe.Close)
	if settings == "" {
		settings = "probe: before_apply"
	}
	options.Settings += fmt.Sprintf("\nims: {endpoint: %s, %s}", adobe.URL, settings)
	w := world.New(t, options)
	w.Secrets = append(w.Secrets, ims.Token)
	w.Last = append(w.Last, func() {
		for _, r := range adobe.Requests() {
			if r.SecretOutsideOfTheBody || r.Path != "/ims/token/v3" {
				w.T.Errorf("a request that is not as it should be: %+v", r)
			}
		}
	})
	return w, adobe
}

// probed is probing in sync with version 1, which was accepted.
func probed(t *testing.T, settings string, options container.Options) (*world.World, *ims.Server, string) {
	t.Helper()
	w, adobe := probing(t, settings, options)
	_, secret := w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	return w, adobe, secret
}

// asked demands how often Adobe was asked about a secret.
func asked(w *world.World, adobe *ims.Server, secret string, want int) {
	w.T.Helper()
	got := 0
	for _, r := range adobe.Requests() {
		if r.SecretSHA256 == ims.Digest(secret) {
			got++
		}
	}
	if got != want {
		w.T.Errorf("%d requests, want %d\n%s", got, want, w.Log())
	}
}

// counted demands what the metric of a result is.
func counted(w *world.World, result string, want int) {
	w.T.Helper()
	stdout, stderr, _ := w.RunCommand("status", "--prometheus")
	if line := fmt.Sprintf("campaign_credsync_ims_probes_total{result=%q} %d\n", result, want); !strings.Contains(stdout, line) {
		w.T.Errorf("the metrics lack %s%s%s", line, stdout, stderr)
	}
}

func proven(w *world.World, want bool) {
	w.T.Helper()
	s, err := w.Asker().Status(w.Ctx)
	w.Must(err)
	if in := world.One(s, "prod"); in.Proven != want {
		w.T.Errorf("proven is %v: %+v\n%s", in.Proven, in, w.Log())
	}
}

// What Adobe accepts is applied, and asked about once, whatever is restarted.
func TestProbeAccepts(t *testing.T) {
	t.Parallel()
	w, adobe, first := probed(t, "", container.Options{Programs: world.Plain()})
	proven(w, true)
	counted(w, "accepted", 1)
	version, secret := w.NewSecret("prod")
	w.InSync(version)
	w.Holds("prod", secret)
	proven(w, true)
	w.Stop()
	w.StartDaemon()
	w.InSync(version)
	w.Kill()
	w.StartDaemon()
	w.InSync(version)
	w.HangUp()
	w.Exits(0, "in_sync", "sync")
	proven(w, true)
	same := w.WriteSecret("prod", container.Credential(secret))
	w.InSync(same)
	proven(w, true)
	asked(w, adobe, first, 1)
	asked(w, adobe, secret, 1)
}

// What Adobe refuses is not applied: the file stays as it is, byte for byte, over restarts, and Adobe is asked once, until an operator says
// so. The secret is read once, too.
func TestProbeRefuses(t *testing.T) {
	t.Parallel()
	for answer, says := range map[ims.Answer]string{
		ims.WrongSecret: "invalid_client (invalid client_secret parameter)", ims.WrongSecret401: "invalid_client (invalid client_secret parameter)",
		ims.WrongClient: "invalid_client (invalid client_id parameter)", ims.GrantNotEnabled: "unauthorized_client",
		ims.Echo: "invalid client_secret [redacted] parameter",
	} {
		t.Run(string(answer), func(t *testing.T) {
			t.Parallel()
			w, adobe, first := probed(t, "", container.Options{Programs: world.Plain()})
			before, demand := w.Read("prod"), unrun(w)
			adobe.Answers(answer)
			version, secret := w.NewSecret("prod")
			refused := func(after string) {
				t.Helper()
				w.Is("prod", "blocked/ims_refused", says, fmt.Sprintf("version %d", version), "Adobe Developer Console")
				demand()
				if !bytes.Equal(w.Read("prod"), before) {
					t.Errorf("the file was changed after %s", after)
				}
				proven(w, true) // of what is applied
			}
			refused("the answer")
			counted(w, "refused", 1)
			w.Logged("level=ERROR", "secret refused, keeping the applied credential", says)
			if e := w.Happened("blocked"); e.Reason != "ims_refused" || e.Version != version || !strings.Contains(e.Text, says) {
				t.Errorf("event %+v", e)
			}
			w.Stop()
			w.StartDaemon()
			refused("a restart")
			w.Kill()
			w.StartDaemon()
			refused("kill -9")
			w.Idle(w.SecretPath("prod"))
			asked(w, adobe, secret, 1)
			w.Exits(3, "ims_refused", "status")
			w.Exits(1, says, "sync")
			refused("sync")
			asked(w, adobe, secret, 2)
			adobe.Answers(ims.Accepts)
			w.Exits(0, "in_sync", "sync")
			w.Holds("prod", secret)
			proven(w, true)
			asked(w, adobe, secret, 3)
			asked(w, adobe, first, 1)
			if got := kindsTold(w, "blocked", "unblocked", "unproven"); !slices.Equal(got, []string{"blocked", "blocked", "blocked", "unblocked"}) {
				t.Errorf("history: %v", got) // one for each start
			}
		})
	}
}

// An answer that says nothing about the secret holds the apply up for ims.patience, and no longer. The file is guarded meanwhile.
func TestProbeIsInconclusive(t *testing.T) {
	t.Parallel()
	for _, answer := range append(slices.Clone(ims.Inconclusive), ims.Hangs) {
		t.Run(string(answer), func(t *testing.T) {
			t.Parallel()
			w, adobe, first := probed(t, "probe: before_apply, patience: 10s", container.Options{Programs: world.Plain()})
			adobe.Answers(answer)
			version, secret := w.NewSecret("prod")
			w.Is("prod", "pending/probe_waits")
			w.Blank("prod")
			w.OnDisk("prod", first)
			w.InSync(version)
			w.Holds("prod", secret)
			proven(w, false)
			line := w.Logged("level=WARN", "the new version is applied without being proven", fmt.Sprintf("version=%d", version))
			if n := strings.Count(w.Log(), "applied without being proven"); n != 1 {
				t.Errorf("said %d times: %s", n, line)
			}
			if got := kindsTold(w, "blocked", "unproven", "applied"); !slices.Equal(got, []string{"applied", "unproven", "applied"}) {
				t.Errorf("history: %v", got)
			}
			counted(w, "refused", 0)
			counted(w, "accepted", 1)
			if first := w.Logged("level=WARN", "Adobe does not say whether it accepts the new version"); !strings.Contains(first, adobe.URL) {
				t.Errorf("%s", first)
			}
			asked(w, adobe, first, 1)
			// Once Adobe answers, an operator's word has it proven.
			adobe.Answers(ims.Accepts)
			w.Exits(0, "in_sync", "sync")
			proven(w, true)
		})
	}
}

// Nobody who is not trusted is told the secret, and what he would say counts for nothing.
func TestProbeOverABadConnection(t *testing.T) {
	t.Parallel()
	tls := ims.NewTLS()
	t.Cleanup(tls.Close)
	w := world.New(t, container.Options{Settings: fmt.Sprintf("ims: {probe: before_apply, patience: 15s, endpoint: %s}", tls.URL)})
	_, secret := w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	w.Holds("prod", secret)
	proven(w, false)
	w.Logged("level=WARN", "certificate is not trusted")
	if n := len(tls.Requests()); n > 0 {
		t.Errorf("%d requests", n)
	}
}

// Retry-After is obeyed.
func TestProbeIsThrottled(t *testing.T) {
	t.Parallel()
	w, adobe, _ := probed(t, "", container.Options{})
	const wait = 4 * time.Second
	adobe.RetryAfter(wait)
	adobe.Answers(ims.Throttles)
	version, secret := w.NewSecret("prod")
	w.Is("prod", "pending/probe_waits", "answers 429")
	adobe.Answers(ims.Accepts)
	w.InSync(version)
	proven(w, true)
	asked(w, adobe, secret, 2)
	all := adobe.Requests()
	if took := all[len(all)-1].Time.Sub(all[len(all)-2].Time); took < wait {
		t.Errorf("asked again after %v", took)
	}
}

// The daemon is killed while, or right after, Adobe is asked: the version is applied by the next one, and Adobe was asked once, or twice
// where the answer was not on record.
func TestProbeAndKill(t *testing.T) {
	t.Parallel()
	for _, answer := range []ims.Answer{ims.Accepts, ims.Slow, ims.WrongSecret} {
		t.Run(string(answer), func(t *testing.T) {
			t.Parallel()
			w, adobe, _ := probed(t, "", container.Options{Programs: world.Plain()})
			for range 5 {
				adobe.Answers(answer)
				before := len(adobe.Requests())
				version, secret := w.NewSecret("prod")
				w.Eventually("Adobe is asked", func() bool { return len(adobe.Requests()) > before })
				w.Kill()
				w.StartDaemon()
				if answer == ims.WrongSecret {
					w.Is("prod", "blocked/ims_refused", fmt.Sprintf("version %d", version))
				} else {
					w.InSync(version)
					w.Holds("prod", secret)
					proven(w, true)
				}
				if n := len(adobe.Requests()) - before; n > 2 {
					t.Errorf("asked %d times\n%s", n, w.Log())
				}
			}
		})
	}
}

// While the first apply is held nobody is asked; after the word that it waits for, once.
func TestProbeOfAFirstApply(t *testing.T) {
	t.Parallel()
	w, adobe := probing(t, "", container.Options{})
	_, secret := w.NewSecret("prod")
	w.SetByHand(handSecret)
	demand := unrun(w)
	w.StartDaemon()
	w.Is("prod", "held")
	versionRead(w)
	checked(w)
	w.Stop()
	w.StartDaemon()
	w.Is("prod", "held")
	versionRead(w)
	asked(w, adobe, secret, 0)
	adobe.Refuses(secret)
	w.Exits(1, "invalid_client", "sync")
	asked(w, adobe, secret, 1)
	w.Is("prod", "blocked/ims_refused")
	w.Holds("prod", handSecret)
	demand()
	adobe.Restores(secret)
	w.Exits(1, "Adobe refuses the credential", "sync", "--dry-run") // as far as is known
	w.Exits(0, "in_sync", "sync")
	w.Holds("prod", secret)
	asked(w, adobe, secret, 2)
	proven(w, true)
}

// While paused nobody is asked; adopting asks nobody, and proves nothing.
func TestProbeAndPause(t *testing.T) {
	t.Parallel()
	w, adobe, first := probed(t, "", container.Options{})
	w.Exits(0, "", "pause", "--for", "1h")
	version, secret := w.NewSecret("prod")
	w.AwaitStatus("it is seen", func(s container.Status) bool { return world.One(s, "prod").WantedVersion == version })
	w.Signal(hurry)
	checked(w)
	asked(w, adobe, secret, 0)
	w.Exits(0, "", "resume")
	w.InSync(version)
	asked(w, adobe, secret, 1)
	w.Exits(0, "", "pause", "--for", "1h")
	version, secret = w.NewSecret("prod")
	w.AwaitStatus("it is seen", func(s container.Status) bool { return world.One(s, "prod").WantedVersion == version })
	w.Exits(0, "", "adopt")
	w.Exits(0, "", "resume")
	w.InSync(version)
	proven(w, false)
	asked(w, adobe, secret, 0)
	asked(w, adobe, first, 1)
}

// What is applied again is not asked about again. Instances that share a secret share its answer.
func TestProbeIsNotRepeated(t *testing.T) {
	t.Parallel()
	w, adobe := probing(t, "", container.Options{Instances: []string{"prod", "mid", "rt"}, Settings: "schedule: {reapply: '@every 1s'}"})
	shared := fmt.Sprintf("mount: %s, path: %s", w.Vault.Mount, w.SecretPath("prod"))
	w.Reconfigured(func(o *container.Options) { o.Secrets = map[string]string{"mid": shared, "rt": shared} })
	_, secret := w.NewSecret("prod")
	w.StartDaemon()
	w.Eventually("it is applied again", func() bool { return w.CountRuns("end", "set") > 9 })
	for _, name := range w.Instances {
		w.OnDisk(name, secret) // an nlserver may be writing
	}
	asked(w, adobe, secret, 1)
}

// A JWT credential is not asked about: its private key tells.
func TestProbeOfAJWTCredential(t *testing.T) {
	t.Parallel()
	w, adobe := probing(t, "", container.Options{})
	c := container.Credential("p8e-JwtJwtJwtJwtJwtJwtJwtJwtJwtJwt12")
	c["private_key"] = "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0t"
	w.WriteSecret("prod", c)
	w.StartDaemon()
	w.InSync(1)
	proven(w, false)
	w.Logged("level=WARN", "applied without being proven", "not for JWT credentials")
	if n := len(adobe.Requests()); n > 0 {
		t.Errorf("%d requests", n)
	}
}

// A pass without a daemon waits for Adobe, too, and not longer than patience.
func TestProbeWithoutADaemon(t *testing.T) {
	t.Parallel()
	w, adobe := probing(t, "probe: before_apply, patience: 15s", container.Options{})
	_, secret := w.NewSecret("prod")
	w.Exits(3, "ask Adobe about version 1", "sync", "--dry-run")
	asked(w, adobe, secret, 0)
	adobe.Refuses(secret)
	w.Exits(1, "invalid_client", "sync")
	adobe.Answers(ims.Internal)
	w.Exits(0, "in_sync", "sync")
	w.Holds("prod", secret)
}

// A secret that Adobe does not accept any more is an alarm, and changes nothing else, until it is accepted again.
func TestAppliedSecretIsRechecked(t *testing.T) {
	t.Parallel()
	w, adobe, secret := probed(t, "probe: before_apply, recheck: 1m", container.Options{})
	before, demand := w.Read("prod"), unrun(w)
	adobe.Refuses(secret)
	w.Is("prod", "blocked/ims_refused", "version 1", "invalid_client")
	w.Logged("level=ERROR", "Adobe does not accept the applied credential any more")
	if e := w.Happened("blocked"); e.Reason != "ims_refused" || e.Version != 1 {
		t.Errorf("event %+v", e)
	}
	proven(w, false)
	counted(w, "refused", 1)
	w.Kill()
	w.StartDaemon()
	w.Is("prod", "blocked/ims_refused")
	demand()
	w.Blank("prod")
	w.OnDisk("prod", secret)
	w.Pass()
	w.Ran(1, "end", "set")
	demand = unrun(w) // the drift may have been activated, where the machine is busy
	if now := w.Read("prod"); !bytes.Equal(now, before) {
		t.Errorf("the file was changed: %s", world.FirstDifference(before, now))
	}
	adobe.Restores(secret)
	w.Exits(0, "in_sync", "sync")
	proven(w, true)
	if e := w.Happened("unblocked"); e.State != "in_sync" {
		t.Errorf("event %+v", e)
	}
	adobe.Answers(ims.Portal)
	w.Logged("level=WARN", "Adobe does not say whether it still accepts the applied credential")
	w.InSync(1)
	proven(w, true)
	demand()
}
