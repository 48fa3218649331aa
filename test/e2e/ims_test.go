package e2e_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

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
