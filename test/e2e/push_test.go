package e2e_test

import (
	"strings"
	"testing"

	"campaign-credsync/test/container"
	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/world"
)

// hourly has no poll come but those of the start, and those that an event or a person brings forward.
const hourly = "watch: {poll: 1h}"

func subscribes(r vaulttest.Request) bool {
	return strings.HasPrefix(r.Path, "/v1/sys/events/subscribe/")
}

func subscribed(w *world.World) {
	w.T.Helper()
	w.Eventually("the daemon is subscribed", func() bool { return strings.Contains(w.Log(), "subscribed to vault events") })
}

// Vault's push has a rotation applied at once, of the one instance that it is about.
func TestPushedRotationIsApplied(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{Push: true, Settings: hourly, Instances: []string{"prod", "other"}})
	subscribed(w)
	for version := 2; version < 5; version++ {
		w.NewSecret("prod")
		w.OneInSync("prod", version)
	}
	w.OneInSync("other", 1)
	w.NewSecret("other")
	w.OneInSync("other", 2)
}

// A subscription costs nothing while nothing happens: polls are what they are without it.
func TestIdleIsQuietWithPush(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{Push: true, Settings: "log: {level: info, format: text}"})
	w.Settled(w.SecretPath("prod"))
	log := w.Log()
	w.Idle(w.SecretPath("prod"))
	if now := w.Log(); now != log {
		t.Errorf("the log goes on: %s", now[len(log):])
	}
}

// A rotation that nobody could tell of is found when the connection is there again, and a reload has one of its own.
func TestPushComesBack(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{Push: true})
	subscribed(w)
	w.Proxy.Down()
	w.NewSecret("prod")
	w.Must(w.Proxy.Up())
	w.InSync(2)
	w.Must(w.Proxy.Await(w.Ctx, 2, subscribes))

	w.Reconfigured(func(o *container.Options) { o.Settings = strings.Replace(o.Settings, "poll: 1s", "poll: 1h", 1) })
	w.HangUp()
	w.Must(w.Proxy.Await(w.Ctx, 3, subscribes))
	w.NewSecret("prod")
	w.InSync(3)
}

// With events off there is no subscription.
func TestPushIsOff(t *testing.T) {
	t.Parallel()
	w, _ := world.Started(t, container.Options{Push: true, Settings: "watch: {poll: 1s, events: off}"})
	w.NewSecret("prod")
	w.InSync(2)
	for _, r := range w.Proxy.Requests() {
		if subscribes(r) {
			t.Errorf("events are off, and yet %s", r.Path)
		}
	}
}
