package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"text/tabwriter"
	"time"
)

// figure is a line of the result. An empty bound is none.
type figure struct {
	what, measured, bound string
	broken                bool
}

// figures works out what was measured.
func (b *bench) figures() (all []figure) {
	say := func(what, format string, values ...any) {
		all = append(all, figure{what: what, measured: fmt.Sprintf(format, values...)})
	}
	bound := func(holds bool, format string, values ...any) {
		f := &all[len(all)-1]
		f.bound, f.broken = fmt.Sprintf(format, values...), !holds
	}

	from, to := b.bounds(phaseStart)
	some := b.recorder.between(from, to)
	say(fmt.Sprintf("start-up: all %d daemons, started at once, in sync", b.daemons), "%s", seconds(to.Sub(from)))
	say("start-up: requests, and of them in the busiest second", "%d, %d", len(some), peak(some, from, time.Second))

	from, to = b.bounds(phaseSteady)
	some = b.recorder.between(from, to)
	per := func(n int) float64 { return float64(n) / to.Sub(from).Seconds() }
	mean, n := b.crowd.betweenLogins(to)
	logins := b.loginRate()
	polls := per(count(some, of(kindMetadata)))
	steady := b.steadyRate()
	say("steady: light reads a second", "%.1f", polls)
	bound(polls <= 1.02*float64(b.daemons)/b.poll.Seconds(), "%d daemons / %v = %.1f", b.daemons, b.poll, float64(b.daemons)/b.poll.Seconds())
	say("steady: reads of the secret, and other requests", "%d, %d", count(some, of(kindData)), count(some, of(kindOther)))
	bound(count(some, of(kindData))+count(some, of(kindOther)) == 0, "0")
	say(fmt.Sprintf("steady: logins a second, with tokens of %v", b.ttl), "%.1f (%v between two of a daemon, mean of %d)", logins, mean.Round(time.Second), n)
	if settled := 2*b.poll + b.steady; settled > b.ttl*3/4+b.poll*5/4 { // each had to log in again by then
		bound(n > 0, "seen")
	}
	say("steady: requests a second", "%.1f", steady)
	say("steady: in the busiest second, and in the busiest 5 s a second", "%d, %.1f", peak(some, from, time.Second), float64(peak(some, from, 5*time.Second))/5)

	from, to = b.bounds(phaseSealed)
	some = b.recorder.between(from, to)
	say(fmt.Sprintf("sealed for %v: requests a second, answered 503", b.sealed), "%.1f", per(count(some, sealed)))
	say("sealed: in the busiest second", "%d", peak(some, from, time.Second))

	from, to = b.unsealed, b.unsealed.Add(b.back)
	some = b.recorder.between(from, to)
	most := peak(some, from, time.Second)
	say("back: requests in the busiest second", "%d, which is %.2f x steady", most, float64(most)/steady)
	bound(float64(most) <= 3*steady, "3 x steady = %.0f", 3*steady)
	five := float64(peak(some, from, 5*time.Second)) / 5
	say("back: in the busiest 5 s, a second", "%.1f, which is %.2f x steady", five, five/steady)
	bound(five <= 3*steady, "3 x steady = %.0f", 3*steady)
	back := b.crowd.backBetween(from, b.rotated)
	say("back: logins", "%d", count(some, of(kindLogin)))
	say("back: 50, 99, 100 % of those that had noticed are in sync after", "%s", quantiles(back))
	bound(len(back) > 0 && back[len(back)-1] <= 62*time.Second, "100 %% within a minute and two seconds")

	applied := b.crowd.appliedAfter(2, b.rotated)
	say("rotation of the one secret of all: 50, 99, 100 % have applied it after", "%s", quantiles(applied))
	interval := b.poll + b.poll/10 + 2*time.Second
	bound(applied[len(applied)-1] <= interval, "100 %% within an interval, its jitter and two seconds: %v", interval)

	from, _ = b.bounds(phaseStart)
	some = b.recorder.between(from, time.Now())
	say("whole run: answers of 4xx and 5xx other than 503", "%d", count(some, refused))
	bound(count(some, refused) == 0, "0")
	say(fmt.Sprintf("whole run: connections for %d requests", len(some)), "%d", b.recorder.connections())
	bound(b.recorder.connections() <= b.daemons, "1 for each daemon")

	if n > 0 {
		say(fmt.Sprintf("logins an hour, with tokens of %v", b.ttl), "%.0f", logins*time.Hour.Seconds())
		late := mean - b.ttl*2/3 // until the next poll; that is the same for every lifetime
		say("logins an hour, with tokens of 1h (worked out: two thirds of it, and as late as measured)", "%.0f",
			float64(b.daemons)*time.Hour.Seconds()/(time.Hour*2/3+late).Seconds())
	}
	return all
}

// loginRate is how many logins a second there would be in the steady state, had the daemons not all been started, and so
// logged in, at the same moment.
func (b *bench) loginRate() float64 {
	_, to := b.bounds(phaseSteady)
	mean, n := b.crowd.betweenLogins(to)
	if n == 0 {
		return 0
	}
	return float64(b.daemons) / mean.Seconds()
}

// steadyRate is what the bounds of the peaks are multiples of, in requests a second.
func (b *bench) steadyRate() float64 {
	from, to := b.bounds(phaseSteady)
	reads := count(b.recorder.between(from, to), of(kindMetadata))
	return float64(reads)/to.Sub(from).Seconds() + b.loginRate()
}

func quantiles(sorted []time.Duration) string {
	if len(sorted) == 0 {
		return "none"
	}
	at := func(q float64) string { return seconds(sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]) }
	return fmt.Sprintf("%s, %s, %s", at(0.5), at(0.99), at(1))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// report prints the figures. Its error says that bounds do not hold.
func report(to io.Writer, figures []figure) error {
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FIGURE\tMEASURED\tBOUND")
	var broken []error
	for _, f := range figures {
		verdict := f.bound
		if f.broken {
			verdict += "  BROKEN"
			broken = append(broken, fmt.Errorf("%s: %s, and not %s", f.what, f.measured, f.bound))
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", f.what, f.measured, verdict)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return errors.Join(broken...)
}

// writeSeries writes what came in each second: requests by kind, those that a sealed Vault answered apart, and how many
// daemons were in sync again after the outage, and had the rotation applied. The steady rate is the same in all lines.
func (b *bench) writeSeries(path string) error {
	from, to := b.began[0].at, b.began[len(b.began)-1].at
	rows := make([]map[string]int, int(to.Sub(from)/time.Second)+1)
	for i := range rows {
		rows[i] = map[string]int{}
	}
	add := func(at time.Time, what string) {
		if i := int(at.Sub(from) / time.Second); at.After(from) && i < len(rows) {
			rows[i][what]++
		}
	}
	for _, q := range b.recorder.between(from, to) {
		if sealed(q) {
			add(q.at, "sealed")
		} else {
			add(q.at, q.kind)
		}
	}
	for _, after := range b.crowd.backBetween(b.unsealed, b.rotated) {
		add(b.unsealed.Add(after), "back")
	}
	for _, after := range b.crowd.appliedAfter(2, b.rotated) {
		add(b.rotated.Add(after), "applied")
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	columns := []string{kindMetadata, kindLogin, kindData, kindOther, "sealed", "back", "applied"}
	out := csv.NewWriter(file)
	out.Write(append([]string{"second", "phase", "steady"}, columns...))
	steady := strconv.FormatFloat(b.steadyRate(), 'f', 2, 64)
	for i, row := range rows {
		phase := ""
		for _, m := range b.began {
			if !m.at.After(from.Add(time.Duration(i) * time.Second)) {
				phase = m.phase
			}
		}
		line := []string{strconv.Itoa(i), phase, steady}
		for _, column := range columns {
			line = append(line, strconv.Itoa(row[column]))
		}
		out.Write(line)
	}
	out.Flush()
	if err := out.Error(); err != nil {
		return err
	}
	return file.Close()
}
