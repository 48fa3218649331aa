package config

import (
	"errors"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"campaign-credsync/internal/credential"
)

// Schedules are the parsed expressions of a Schedule; one that is empty is nil.
type Schedules struct {
	Verify, Reapply, Activate cron.Schedule
}

func (r *reader) checkSchedule(s *Schedule) {
	zone, err := time.LoadLocation(s.Timezone)
	r.refuseIf(err != nil || s.Timezone == "", "schedule.timezone",
		"must be a time zone of this system, such as UTC or Europe/Paris (others than UTC need the package tzdata)")
	r.refuseIf(s.Verify == "", "schedule.verify", `must be a cron expression, such as "@every 10m"; it cannot be switched off`)
	for _, e := range []struct {
		key, text string
		into      *cron.Schedule
	}{
		{"schedule.verify", s.Verify, &s.Parsed.Verify},
		{"schedule.reapply", s.Reapply, &s.Parsed.Reapply},
		{"schedule.activate", s.Activate, &s.Parsed.Activate},
	} {
		if e.text == "" {
			continue
		}
		schedule, err := parseCron(e.text)
		if err != nil {
			r.refuse(e.key, `must be a cron expression of five fields, or such as "@daily" or "@every 10m": %s`,
				credential.Escape(err.Error()))
		}
		*e.into = zonedSchedule{schedule, zone}
	}
}

func parseCron(text string) (cron.Schedule, error) {
	if strings.Contains(text, "TZ=") {
		// The library takes a zone here, and panics on one without an expression behind it.
		return nil, errors.New("the time zone is set by schedule.timezone")
	}
	if every, ok := strings.CutPrefix(text, "@every "); ok {
		// The library would take anything shorter, also a negative one, for a second.
		if d, err := time.ParseDuration(every); err == nil && d < time.Second {
			return nil, errors.New("@every needs 1s or more")
		}
	}
	schedule, err := cron.ParseStandard(text)
	// From a fixed day on, so that the answer is the same each time. The library looks five years ahead.
	if err == nil && schedule.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, errors.New("that time never comes")
	}
	return schedule, err
}

// zonedSchedule is a schedule in its own time zone, whatever zone its caller's clock shows.
type zonedSchedule struct {
	cron.Schedule
	zone *time.Location
}

// Next is as of cron.Schedule, except that a time which the clock skips in spring comes when it skips: cron leaves it out, which for
// a Sunday night would be a week.
func (z zonedSchedule) Next(after time.Time) time.Time {
	after = after.In(z.zone)
	next := z.Schedule.Next(after)
	spec, ok := z.Schedule.(*cron.SpecSchedule)
	if !ok {
		return next
	}
	for at := after; ; {
		_, change := at.ZoneBounds()
		if change.IsZero() || !change.Before(next) {
			return next
		}
		_, before := change.Add(-time.Second).Zone()
		_, from := change.Zone()
		still := *spec // in a zone that does not skip
		still.Location = time.FixedZone("", before)
		if still.Next(change.Add(-time.Second)).Before(change.Add(time.Duration(from-before) * time.Second)) {
			return change
		}
		at = change
	}
}
