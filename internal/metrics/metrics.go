// Package metrics tells Prometheus how the daemon and its instances are.
//
// What the status says is shown as it is at the time of the scrape; what is counted, and how long things take, is counted here as it
// happens. The names are public.
package metrics

import (
	"bytes"
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"campaign-credsync/internal/control"
)

const namespace = "campaign_credsync"

// Metrics counts. Its methods may be called concurrently, and on nil, when they do nothing.
type Metrics struct {
	registry                      *prometheus.Registry
	reverts, applies, activations prometheus.Histogram
	runs, restarts, requests      *prometheus.CounterVec
	notifyFailures                prometheus.Counter
}

// New makes the metrics of a daemon of that version.
func New(version, commit, goVersion string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		reverts: duration("revert_duration_seconds", "From the look that saw drift to the end of its revert.",
			prometheus.ExponentialBuckets(0.001, 2, 12)), // to 2 s
		applies: duration("apply_duration_seconds", "How long nlserver took to write a credential, successfully.",
			prometheus.ExponentialBuckets(0.1, 2, 11)), // to 102 s
		activations: duration("activation_duration_seconds", "How long a step of activation took, successfully.",
			prometheus.ExponentialBuckets(0.1, 2, 11)),
		runs:           counter("nlserver_runs_total", "Runs of nlserver that have ended.", "instance", "command", "result"),
		restarts:       counter("module_restarts_total", "Restarts of modules that were begun.", "instance", "module"),
		requests:       counter("vault_requests_total", "Requests to Vault, by what they are for and the status of the answer (0: none).", "operation", "code"),
		notifyFailures: prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: "notify_failures_total", Help: "Runs of the program of notify.exec that failed."}),
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: "build_info", Help: "What runs. Always 1."},
		[]string{"version", "commit", "goversion"})
	build.WithLabelValues(version, commit, goVersion).Set(1)
	m.registry.MustRegister(build, m.reverts, m.applies, m.activations, m.runs, m.restarts, m.requests, m.notifyFailures)
	return m
}

func duration(name, help string, buckets []float64) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets})
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

// Reverted counts a revert of drift.
func (m *Metrics) Reverted(took time.Duration) {
	if m != nil {
		m.reverts.Observe(took.Seconds())
	}
}

// Applied counts an apply.
func (m *Metrics) Applied(took time.Duration) {
	if m != nil {
		m.applies.Observe(took.Seconds())
	}
}

// Activated counts a step of activation.
func (m *Metrics) Activated(took time.Duration) {
	if m != nil {
		m.activations.Observe(took.Seconds())
	}
}

// Ran counts a run of nlserver: "ok", "failed" or "timeout".
func (m *Metrics) Ran(instance, command, result string) {
	if m != nil {
		m.runs.WithLabelValues(instance, command, result).Inc()
	}
}

// Restarted counts a restart of a module that was begun.
func (m *Metrics) Restarted(instance, module string) {
	if m != nil {
		m.restarts.WithLabelValues(instance, module).Inc()
	}
}

// Requested counts a request to Vault. A code of 0 stands for no answer.
func (m *Metrics) Requested(operation string, code int) {
	if m != nil {
		m.requests.WithLabelValues(operation, strconv.Itoa(code)).Inc()
	}
}

// NotifyFailed counts a run of the program that is told of events that failed.
func (m *Metrics) NotifyFailed() {
	if m != nil {
		m.notifyFailures.Inc()
	}
}

// maxScrapes are answered at a time.
const maxScrapes = 3

// Handler answers scrapes, in OpenMetrics where that is asked for.
func (m *Metrics) Handler(status func() control.Status) http.Handler {
	gather := func() ([]*dto.MetricFamily, error) {
		counted, err := m.registry.Gather()
		all := append(counted, families(status())...)
		slices.SortFunc(all, func(a, b *dto.MetricFamily) int { return cmp.Compare(a.GetName(), b.GetName()) })
		return all, err
	}
	return promhttp.HandlerFor(prometheus.GathererFunc(gather), promhttp.HandlerOpts{
		DisableCompression: true, // it would take longer than the rest
		EnableOpenMetrics:  true, MaxRequestsInFlight: maxScrapes,
	})
}

// Text is what a scrape would be answered.
func (m *Metrics) Text(status control.Status) []byte {
	request, _ := http.NewRequest(http.MethodGet, "/metrics", nil) // of constants, which cannot be wrong
	var w answer
	m.Handler(func() control.Status { return status }).ServeHTTP(&w, request)
	return w.Bytes()
}

// answer is an http.ResponseWriter in memory.
type answer struct{ bytes.Buffer }

func (*answer) Header() http.Header { return http.Header{} }
func (*answer) WriteHeader(int)     {}
