package faults_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/skip"
	"campaign-credsync/test/vaulttest"
	"campaign-credsync/test/world"
)

const year = 365 * 24 * time.Hour

// Somebody sets the clock of the machine, by a second or by a year: nothing waits longer for that, nothing is done twice.
func TestClockIsSet(t *testing.T) {
	t.Parallel()
	daemon := settableDaemon(t)
	type clockTest struct {
		name string
		test func(*testing.T, *wallClock)
	}
	tests := []clockTest{
		{"rotations and drift", clockRotations},
		{"the token", clockToken},
		{"the periodic check", clockVerify},
		{"the brake", clockBrake},
		{"the refused secret-id", clockRefusal},
		{"held activation", clockHeld},
		{"held activation over a restart", clockHeldOverRestart},
		{"daylight saving", clockDaylightSaving},
		{"a pause", clockPause},
	}
	if *full {
		tests = append(tests, clockTest{"nothing else wakes the daemon", clockRest})
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, newWallClock(t, daemon))
		})
	}
}

// clockRotations has rotations and drift between jumps of all kinds.
func clockRotations(t *testing.T, clock *wallClock) {
	w, _ := world.Started(t, container.Options{Programs: clock.programs()})
	reloads := 1
	for i, offset := range []time.Duration{
		year, 0, -year, year, 0,
		time.Second, -time.Second, time.Second, -2 * time.Second, 31 * time.Second, -31 * time.Second, time.Hour, -time.Hour, 0,
	} {
		clock.move(offset)
		version, secret := w.NewSecret("prod")
		w.InSync(version)
		w.Holds("prod", secret)
		reloads++
		w.Pass()
		w.Blank("prod")
		w.AwaitStatus("the revert", func(s container.Status) bool {
			return s.Applied(version) && world.One(s, "prod").RevertedTotal == i+1
		})
		w.Holds("prod", secret)
		if off := lastCheck(w, "prod").Sub(clock.now()).Abs(); off > time.Minute {
			t.Fatalf("the daemon's clock was not set: it is off by %v", off)
		}
	}
	w.Pass()
	w.Ran(15, "end", "set")
	w.Ran(reloads, "end", "reload")
	for _, level := range []string{"level=WARN", "level=ERROR"} {
		if strings.Contains(strings.ReplaceAll(w.Log(), `level=WARN msg="drift reverted"`, ""), level) {
			t.Errorf("a jump of the clock is worth a line of %s\n%s", level, w.Log())
		}
	}
}

// clockToken: a token lives as long as Vault says, whatever the clock shows.
func clockToken(t *testing.T, clock *wallClock) {
	w, _ := world.Started(t, container.Options{Programs: clock.programs()})
	for _, offset := range []time.Duration{year, -year, 0} {
		clock.move(offset)
		w.Pass()
		w.Idle(w.SecretPath("prod")) // no login
	}
	clock.move(-year)
	w.Succeeds("its tokens are revoked", func() error { return w.Vault.RevokeRoleTokens(w.Ctx, w.RoleID) })
	w.Must(w.Proxy.Await(w.Ctx, 1, vaulttest.Request.Login))
	version, secret := w.NewSecret("prod")
	w.InSync(version)
	w.Holds("prod", secret)
}

// clockVerify: the periodic check does not wait for a year to pass once more.
func clockVerify(t *testing.T, clock *wallClock) {
	for _, schedule := range []string{"@every 1s", "* * * * *"} {
		t.Run(schedule, func(t *testing.T) {
			w, _ := world.Started(t, container.Options{Programs: clock.programs(), Settings: `schedule: {verify: "` + schedule + `"}`})
			for _, offset := range []time.Duration{year, 0, -year, 0} {
				// Just before a minute is over, as schedules of cron know only minutes.
				clock.set(time.Now().Add(offset).Truncate(time.Minute).Add(58 * time.Second))
				var first time.Time
				w.Eventually("the file is looked at", func() bool {
					first = lastCheck(w, "prod")
					return first.Sub(clock.now()).Abs() < time.Minute
				})
				w.Eventually("the file is looked at again", func() bool { return lastCheck(w, "prod").After(first) })
			}
		})
	}
}

// clockBrake: an hour of the brake is an hour in a running daemon; after a restart, when only the clock on the wall is
// left to go by, it is never a year.
func clockBrake(t *testing.T, clock *wallClock) {
	w, secrets := world.Started(t, container.Options{Programs: clock.programs(), Settings: "drift: {max_reverts: 2}"})
	brake := func() {
		t.Helper()
		before := world.One(w.Pass(), "prod").RevertedTotal
		for i := range 2 {
			w.Blank("prod")
			w.AwaitStatus("the revert", func(s container.Status) bool {
				return world.One(s, "prod").RevertedTotal == before+i+1 && s.Is("in_sync")
			})
		}
		w.Blank("prod")
		w.Is("prod", "drift", "drift.max_reverts")
	}
	restart := func(offset time.Duration) {
		w.Kill()
		clock.move(offset)
		w.StartDaemon()
	}
	brake()
	for _, offset := range []time.Duration{year, -year, 0} {
		clock.move(offset)
		w.Pass()
		w.Is("prod", "drift")
	}
	for _, offset := range []time.Duration{30 * time.Minute, -30 * time.Minute} {
		restart(offset)
		w.Is("prod", "drift", "drift.max_reverts")
	}
	for _, offset := range []time.Duration{-year, year} {
		restart(offset)
		w.OnDisk("prod", secrets["prod"])
		w.Is("prod", "in_sync")
		restart(0)
		w.Is("prod", "in_sync")
		brake()
	}
	restart(time.Hour + time.Minute)
	w.OnDisk("prod", secrets["prod"])
	w.Is("prod", "in_sync")
}

// clockRefusal: no jump of the clock has a refused secret-id tried so often that Vault locks the role, and none keeps a
// right one waiting.
func clockRefusal(t *testing.T, clock *wallClock) {
	w, _ := world.Started(t, container.Options{Programs: clock.programs()})
	w.Stop()
	good, err := w.Vault.SecretID(w.Ctx, w.RoleID)
	w.Must(err)
	wrong := "00000000-1111-2222-3333-444444444444"
	w.Secrets = append(w.Secrets, good, wrong)
	w.Must(os.WriteFile(w.SecretID, []byte(wrong+"\n"), 0o600))
	w.Proxy.Requests()
	w.StartDaemon()
	w.Is("prod", "degraded/login_refused", w.SecretID)
	for _, offset := range []time.Duration{-30 * time.Minute, 30 * time.Minute, 0, -year} {
		clock.move(offset)
		w.Stop()
		w.StartDaemon()
		w.Is("prod", "degraded", w.SecretID)
	}
	// The one at the start, and one for the year: nobody knows whether the refusal was noted by a wrong clock.
	if n := logins(w); n > 2 {
		t.Errorf("%d logins", n)
	}
	w.Must(w.Vault.Call(w.Ctx, http.MethodPost, "auth/"+w.Vault.AuthMount+"/login",
		map[string]string{"role_id": w.RoleID, "secret_id": good}, nil))
	version, secret := w.NewSecret("prod")
	w.Must(os.WriteFile(w.SecretID, []byte(good+"\n"), 0o600))
	w.InSync(version)
	w.Holds("prod", secret)
}

// clockHeld: activation that is held for its hour comes with the hour, also when the clock is set past it, or back by a year.
func clockHeld(t *testing.T, clock *wallClock) {
	night := time.Now().UTC().Truncate(24 * time.Hour).Add(24*time.Hour + 3*time.Hour + 30*time.Minute)
	clock.set(night.Add(-20 * time.Minute))
	w := world.New(t, container.Options{Programs: clock.programs(), Settings: `schedule: {activate: "30 3 * * *"}`})
	version, secret := w.NewSecret("prod")
	w.StartDaemon()
	reloads := 0
	for _, jump := range []struct {
		name string
		to   time.Time
	}{
		{"it passes", night.Add(-2 * time.Second)},
		{"the clock is set past it", night.Add(24*time.Hour + time.Minute)},
		{"the clock is set forward by a year", night.Add(year + 5*time.Hour)},
		{"the clock is set back by a year", night.Add(-2 * time.Second)},
		{"the clock is set back by two", night.Add(-year - 2*time.Second)},
	} {
		w.Is("prod", "activation_pending")
		w.Pass()
		w.Ran(reloads, "start", "reload")
		clock.set(jump.to)
		w.InSync(version)
		reloads++
		w.Holds("prod", secret)
		w.Ran(reloads, "end", "reload")
		version, secret = w.NewSecret("prod")
		w.OnDisk("prod", secret)
	}
	w.Is("prod", "activation_pending")
	w.Ran(reloads, "start", "reload")
}

// clockRest: a clock that is set past the hour is noticed within a minute or so when nothing else wakes the daemon.
func clockRest(t *testing.T, clock *wallClock) {
	night := time.Now().UTC().Truncate(24 * time.Hour).Add(24*time.Hour + 3*time.Hour + 30*time.Minute)
	clock.set(night.Add(-time.Hour))
	w := world.New(t, container.Options{
		Programs: clock.programs(), Settings: "watch: {poll: 1h}\n" + `schedule: {activate: "30 3 * * *", verify: "@every 24h"}`,
	})
	_, secret := w.NewSecret("prod")
	w.StartDaemon()
	w.Is("prod", "activation_pending")
	// Each change of the file is looked at once more some seconds later; after that nothing happens.
	applied := world.One(w.Pass(), "prod").AppliedAt
	w.Eventually("the late look", func() bool { return lastCheck(w, "prod").Sub(applied) > 3*time.Second })
	clock.set(night.Add(time.Minute))
	for began := time.Now(); time.Since(began) < 90*time.Second && w.CountRuns("end", "reload") == 0; {
		time.Sleep(time.Second)
	}
	w.InSync(1)
	w.Holds("prod", secret)
	w.Ran(1, "end", "reload")
}

// clockHeldOverRestart: the same when the daemon is restarted while the clock is set.
func clockHeldOverRestart(t *testing.T, clock *wallClock) {
	night := time.Now().UTC().Truncate(24 * time.Hour).Add(24*time.Hour + 3*time.Hour + 30*time.Minute)
	for i, to := range []time.Time{night.Add(year), night.Add(-year - 3*time.Second)} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			clock.set(night.Add(-20 * time.Minute))
			w := world.New(t, container.Options{Programs: clock.programs(), Settings: `schedule: {activate: "30 3 * * *"}`})
			_, secret := w.NewSecret("prod")
			w.StartDaemon()
			w.Is("prod", "activation_pending")
			w.Stop()
			clock.set(to)
			w.StartDaemon()
			w.InSync(1)
			w.Holds("prod", secret)
			w.Ran(1, "end", "set")
			w.Ran(1, "end", "reload")
		})
	}
}

// clockDaylightSaving lets both nights pass in which the clock of Paris changes.
func clockDaylightSaving(t *testing.T, clock *wallClock) {
	paris, err := time.LoadLocation("Europe/Paris")
	if err != nil {
		skip.Unable(t, "no time zones on this machine: "+err.Error())
	}
	w := world.New(t, container.Options{
		Programs: clock.programs(), Settings: `schedule: {activate: "30 2 * * *", timezone: Europe/Paris}`,
	})
	spring := time.Date(2027, time.March, 28, 1, 0, 0, 0, time.UTC)    // 02:00 becomes 03:00, there is no 02:30
	autumn := time.Date(2027, time.October, 31, 0, 30, 0, 0, time.UTC) // the first 02:30 of two
	if _, zone := spring.In(paris).Zone(); zone != 2*60*60 || autumn.Add(time.Hour).In(paris).Hour() != 2 {
		t.Fatal("this is not the time zone of Paris")
	}
	clock.set(spring.Add(-time.Hour))
	version, _ := w.NewSecret("prod")
	w.StartDaemon()
	for i, night := range []struct{ apply, due time.Time }{
		{spring.Add(-10 * time.Minute), spring.Add(23*time.Hour + 30*time.Minute)}, // of the day after
		{autumn.Add(-10 * time.Minute), autumn},
		{autumn.Add(10 * time.Minute), autumn.Add(time.Hour)},
	} {
		if i > 0 {
			clock.set(night.apply)
			version, _ = w.NewSecret("prod")
		}
		w.AwaitStatus("it is held", func(s container.Status) bool {
			return s.Is("activation_pending") && world.One(s, "prod").AppliedVersion == version
		})
		clock.set(night.due.Add(-time.Minute))
		w.Pass()
		w.Ran(i, "start", "reload")
		clock.set(night.due.Add(-3 * time.Second))
		w.InSync(version)
		w.Ran(i+1, "end", "reload")
		if at := world.One(w.Pass(), "prod").ActivatedAt; at.Before(night.due) || at.After(night.due.Add(time.Hour)) {
			t.Errorf("activated at %v, due at %v", at.In(paris), night.due.In(paris))
		}
	}
	clock.set(autumn.Add(24 * time.Hour))
	w.Pass()
	w.InSync(version)
	w.Ran(3, "end", "reload")
}
