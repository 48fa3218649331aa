// Package metrics tells Prometheus how the daemon and its instances are.
//
// What the status says is shown as it is at the time of the scrape; what is counted, and how long things take, is counted here as it
// happens. The names are public.
package metrics

import (
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"campaign-credsync/internal/control"
	"campaign-credsync/sync/state"
)

// Metrics counts. Its methods may be called concurrently.
type Metrics struct {
	build string // the labels of build_info

	mu                            sync.Mutex // guards what counts
	reverts, applies, activations durations
	runs, restarts                counts
	requests, probes              counts
	notifyFailures                float64

	encoding sync.Mutex
	buffers  sync.Pool // of *[]byte, for answers
}

// counts has a counter for each set of labels.
type counts map[string]float64

// durations counts durations by their length.
type durations struct {
	bounds []float64 // upper ones, in seconds
	counts []uint64  // those of each bound, and of what is above all
	sum    float64   // in seconds
}

// New makes the metrics of a daemon of that version.
func New(version, commit, goVersion string) *Metrics {
	m := &Metrics{
		build:       labels("commit", commit, "goversion", goVersion, "version", version),
		reverts:     newDurations(0.001, 12), // to 2 s
		applies:     newDurations(0.1, 11),   // to 102 s
		activations: newDurations(0.1, 11),
		runs:        counts{}, restarts: counts{}, requests: counts{}, probes: counts{},
	}
	for _, result := range []state.ProbeResult{state.ProbeAccepted, state.ProbeRefused, state.ProbeInconclusive} {
		m.count(m.probes, 0, labels("result", string(result)))
	}
	return m
}

// newDurations has so many bounds, each twice the one before.
func newDurations(first float64, n int) durations {
	d := durations{counts: make([]uint64, n+1)}
	for ; n > 0; n-- {
		d.bounds = append(d.bounds, first)
		first *= 2
	}
	return d
}

// add counts a duration.
func (m *Metrics) add(to *durations, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	seconds := took.Seconds()
	i, _ := slices.BinarySearch(to.bounds, seconds) // a bound is inclusive
	to.counts[i]++
	to.sum += seconds
}

// Reverted counts a revert of drift.
func (m *Metrics) Reverted(took time.Duration) {
	m.add(&m.reverts, took)
}

// Applied counts an apply.
func (m *Metrics) Applied(took time.Duration) {
	m.add(&m.applies, took)
}

// Activated counts a step of activation.
func (m *Metrics) Activated(took time.Duration) {
	m.add(&m.activations, took)
}

// Expect has the counters of a command of nlserver begin at 0, and that of the module that it restarts, so that the first time is an
// increase, too.
func (m *Metrics) Expect(instance, command, module string) {
	for _, result := range []string{"ok", "failed", "timeout"} {
		m.count(m.runs, 0, runLabels(instance, command, result))
	}
	if module != "" {
		m.count(m.restarts, 0, restartLabels(instance, module))
	}
}

// Ran counts a run of nlserver: "ok", "failed" or "timeout".
func (m *Metrics) Ran(instance, command, result string) {
	m.count(m.runs, 1, runLabels(instance, command, result))
}

// Restarted counts a restart of a module that was begun.
func (m *Metrics) Restarted(instance, module string) {
	m.count(m.restarts, 1, restartLabels(instance, module))
}

// Requested counts a request to Vault. A code of 0 stands for no answer.
func (m *Metrics) Requested(operation string, code int) {
	m.count(m.requests, 1, labels("code", strconv.Itoa(code), "operation", operation))
}

// Probed counts a question to Adobe that has ended.
func (m *Metrics) Probed(result state.ProbeResult) {
	m.count(m.probes, 1, labels("result", string(result)))
}

// NotifyFailed counts a run of the program that is told of events that failed.
func (m *Metrics) NotifyFailed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notifyFailures++
}

func runLabels(instance, command, result string) string {
	return labels("command", command, "instance", instance, "result", result)
}

func restartLabels(instance, module string) string {
	return labels("instance", instance, "module", module)
}

func (m *Metrics) count(c counts, n float64, labels string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c[labels] += n
}

// The formats of answers.
const (
	plain       = "text/plain; version=0.0.4; charset=utf-8"
	openMetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8"
)

// Handler answers scrapes, in OpenMetrics where that is preferred.
func (m *Metrics) Handler(status func() control.Status) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		format := plain
		if prefersOpenMetrics(r.Header.Values("Accept")) {
			format = openMetrics
		}
		w.Header().Set("Content-Type", format)
		buffer, _ := m.buffers.Get().(*[]byte)
		if buffer == nil {
			buffer = new([]byte)
		}
		*buffer = m.encode((*buffer)[:0], status, format == openMetrics)
		w.Write(*buffer)
		m.buffers.Put(buffer)
	})
}

// prefersOpenMetrics reports whether OpenMetrics 1.0.0 is accepted, and the text format of Prometheus is not rather.
func prefersOpenMetrics(accept []string) bool {
	var open, text float64
	for kind := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		name, parameters, err := mime.ParseMediaType(kind)
		if err != nil {
			continue
		}
		q, err := strconv.ParseFloat(parameters["q"], 64)
		if err != nil {
			q = 1
		}
		switch version := parameters["version"]; {
		case name == "application/openmetrics-text" && (version == "" || version == "1.0.0"):
			open = max(open, q)
		case name == "text/plain":
			text = max(text, q)
		}
	}
	return open > 0 && open >= text
}

// Text is what a scrape would be answered.
func (m *Metrics) Text(status control.Status) []byte {
	return m.encode(nil, func() control.Status { return status }, false)
}

// encode makes the answer to one scrape at a time, so that many of them take no more of the processor from the daemon than one does. It
// is whole before any of it is sent: a slow reader holds up no other. It is appended to text.
func (m *Metrics) encode(text []byte, status func() control.Status, isOpen bool) []byte {
	m.encoding.Lock()
	defer m.encoding.Unlock()
	e := &exposition{text: text, isOpen: isOpen}
	m.addCounts(e)
	e.addStatus(status())
	return e.end()
}

// addCounts adds what is counted here.
func (m *Metrics) addCounts(e *exposition) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e.begin(gauge, "build_info", "What runs. Always 1.")
	e.add(1, m.build)
	for _, f := range []struct {
		name, help string
		d          *durations
	}{
		{"revert_duration_seconds", "From the look that saw drift to the end of its revert.", &m.reverts},
		{"apply_duration_seconds", "How long nlserver took to write a credential, successfully.", &m.applies},
		{"activation_duration_seconds", "How long a step of activation took, successfully.", &m.activations},
	} {
		e.begin(histogram, f.name, f.help)
		e.addHistogram(f.d.bounds, f.d.counts, f.d.sum)
	}
	for _, f := range []struct {
		name, help string
		c          counts
	}{
		{"nlserver_runs_total", "Runs of nlserver that have ended.", m.runs},
		{"module_restarts_total", "Restarts of modules that were begun.", m.restarts},
		{"vault_requests_total", "Requests to Vault, by what they are for and the status of the answer (0: none).", m.requests},
		{"ims_probes_total", "Questions to Adobe whether it accepts a credential, by what the answer comes to.", m.probes},
	} {
		e.begin(counter, f.name, f.help)
		for _, labels := range slices.Sorted(maps.Keys(f.c)) {
			e.add(f.c[labels], labels)
		}
	}
	e.begin(counter, "notify_failures_total", "Runs of the program of notify.exec that failed.")
	e.add(m.notifyFailures)
}
