package sync_test

import (
	"context"
	"errors"
	"slices"
	stdsync "sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
)

// hosts are many daemons that have the same secret, started at the same moment.
type hosts struct {
	t      *testing.T
	worlds []*world
	source *source

	mu    stdsync.Mutex
	polls []time.Time
}

// heard is the source as a host has it: the others hear nothing of its polls, the test does.
type heard struct{ hosts *hosts }

func (h *heard) Poll(ctx context.Context, need func(credential.Version) bool) (credential.Reading, error) {
	h.hosts.mu.Lock()
	h.hosts.polls = append(h.hosts.polls, time.Now())
	h.hosts.mu.Unlock()
	return h.hosts.source.Poll(ctx, need)
}

const howMany = 100

// together runs f beside many hosts whose first check is over.
func together(t *testing.T, poll time.Duration, verify string, f func(h *hosts)) {
	t.Helper()
	schedule, err := cron.ParseStandard(verify)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		h := &hosts{t: t, source: &source{}}
		h.source.rotate("one")
		for range howMany {
			w := newWorld(t, "prod")
			w.config.Poll, w.config.Verify = poll, schedule
			w.config.Instances[0].Source = &heard{h}
			w.launch()
			defer w.stop()
			h.worlds = append(h.worlds, w)
		}
		synctest.Wait()
		f(h)
	})
}

// rest lets time pass and returns what was polled in it.
func (h *hosts) rest(d time.Duration) []time.Time {
	h.mu.Lock()
	h.polls = nil
	h.mu.Unlock()
	time.Sleep(d)
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.polls
}

// peak is the largest number of times within d.
func peak(times []time.Time, d time.Duration) (most int) {
	slices.SortFunc(times, time.Time.Compare)
	first := 0
	for i := range times {
		for times[i].Sub(times[first]) > d {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// spread demands that what is polled in the next time is at no moment above three times the steady rate. The moment is
// a tenth of a poll's interval: 10 polls on average, and 30 by chance once in millions.
func (h *hosts) spread(after string, poll, during time.Duration) {
	h.t.Helper()
	polls := h.rest(during)
	if most, bound := peak(polls, poll/10), 3*howMany/10; most > bound {
		h.t.Errorf("%s, %d of %d hosts ask within %v, want at most %d", after, most, howMany, poll/10, bound)
	}
	if len(polls) == 0 {
		h.t.Errorf("%s, nobody asks", after)
	}
}

// Daemons that do something at the same moment do not do it together from then on.
func TestHostsSpread(t *testing.T) {
	const poll = 30 * time.Second
	together(t, poll, "@every 10m", func(h *hosts) {
		step := func() { time.Sleep(time.Nanosecond) } // past the burst itself
		step()
		h.spread("started together", poll, 5*time.Minute)
		time.Sleep(5*time.Minute - time.Second)
		h.spread("at a tick of verify", poll, 2*time.Minute)
		for _, w := range h.worlds {
			w.daemon.CheckSoon()
		}
		synctest.Wait()
		step()
		h.spread("asked by SIGUSR1", poll, 5*time.Minute)
		for _, w := range h.worlds {
			w.daemon.Announced(0)
		}
		synctest.Wait()
		step()
		h.spread("told of a new version", poll, 5*time.Minute)
		h.source.change(func(s *source) { s.err = errors.New("sealed") })
		h.rest(5 * time.Minute) // at its beginning each asks more often than usual
		h.source.change(func(s *source) { s.err = nil })
		h.spread("back from an outage", poll, time.Minute)
		for _, w := range h.worlds {
			w.wantState("prod", credsync.StateInSync)
		}
		h.spread("a while after the outage", poll, 5*time.Minute)
	})
}

// A schedule that asks more often than the polls do brings them forward, to somewhere in the next minute.
func TestTickBringsPollsForward(t *testing.T) {
	const poll = time.Hour
	together(t, poll, "0 * * * *", func(h *hosts) {
		for range 3 {
			time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour)))
			polls := h.rest(time.Minute)
			// One whose own poll was just then is not asked twice.
			if n := len(polls); n < howMany || n > howMany+howMany/10 {
				t.Errorf("%d polls of %d hosts in the minute after a tick", n, howMany)
			}
			if most := peak(polls, 3*time.Second); most > 25 { // 5 on average
				t.Errorf("%d of %d hosts ask within 3 s of a tick", most, howMany)
			}
		}
	})
}

// However often a source was out of reach, the waits are full jitter: anything up to a minute, and never more.
func TestWaitsSurviveTheirCap(t *testing.T) {
	one(t, nil, func(t *testing.T, w *world) {
		h := &hosts{t: t, source: w.source}
		w.source.change(func(s *source) { s.err = errors.New("sealed") })
		w.stop()
		w.config.Instances[0].Source = &heard{h}
		w.start()
		const failures = 1000
		polls := h.rest(failures * 30 * time.Second)
		var sum, least, most time.Duration = 0, time.Hour, 0
		for i := 1; i < len(polls); i++ {
			wait := polls[i].Sub(polls[i-1])
			sum, least, most = sum+wait, min(least, wait), max(most, wait)
		}
		waits := len(polls) - 1
		if waits < failures*8/10 || most > time.Minute+time.Millisecond || most < 58*time.Second || least <= 0 || least > 2*time.Second {
			t.Errorf("%d waits from %v to %v", waits, least, most)
		}
		if mean := sum / time.Duration(waits); mean < 27*time.Second || mean > 33*time.Second { // 5 standard deviations
			t.Errorf("%v on average", mean)
		}
	})
}
