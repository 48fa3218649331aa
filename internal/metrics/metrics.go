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
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"campaign-credsync/internal/control"
	"campaign-credsync/sync/state"
)

const namespace = "campaign_credsync"

// Metrics counts. Its methods may be called concurrently, and on nil, when they do nothing.
type Metrics struct {
	registry                      *prometheus.Registry
	reverts, applies, activations prometheus.Histogram
	runs, restarts, requests      *prometheus.CounterVec
	notifyFailures                prometheus.Counter
	probes                        *prometheus.CounterVec

	encoding sync.Mutex
	lastSize int // of an answer, in bytes
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
		probes:         counter("ims_probes_total", "Questions to Adobe whether it accepts a credential, by what the answer comes to.", "result"),
		notifyFailures: prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: "notify_failures_total", Help: "Runs of the program of notify.exec that failed."}),
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: "build_info", Help: "What runs. Always 1."},
		[]string{"version", "commit", "goversion"})
	build.WithLabelValues(version, commit, goVersion).Set(1)
	m.registry.MustRegister(build, m.reverts, m.applies, m.activations, m.runs, m.restarts, m.requests, m.notifyFailures, m.probes)
	for _, result := range []state.ProbeResult{state.ProbeAccepted, state.ProbeRefused, state.ProbeInconclusive} {
		m.probes.WithLabelValues(string(result))
	}
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

// Expect has the counters of a command of nlserver begin at 0, and that of the module that it restarts, so that the first time is an
// increase, too.
func (m *Metrics) Expect(instance, command, module string) {
	if m == nil {
		return
	}
	for _, result := range []string{"ok", "failed", "timeout"} {
		m.runs.WithLabelValues(instance, command, result)
	}
	if module != "" {
		m.restarts.WithLabelValues(instance, module)
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

// Probed counts a question to Adobe that has ended.
func (m *Metrics) Probed(result state.ProbeResult) {
	if m != nil {
		m.probes.WithLabelValues(string(result)).Inc()
	}
}

// NotifyFailed counts a run of the program that is told of events that failed.
func (m *Metrics) NotifyFailed() {
	if m != nil {
		m.notifyFailures.Inc()
	}
}

// Handler answers scrapes, in OpenMetrics where that is asked for.
func (m *Metrics) Handler(status func() control.Status) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		format := expfmt.FmtText
		if asked := expfmt.NegotiateAccept(r.Header, expfmt.DefaultOpenMetricsAcceptedFormats()...); asked.FormatType() == expfmt.TypeOpenMetrics {
			format = asked
		}
		text, err := m.encode(status, format)
		if err != nil {
			http.Error(w, "the metrics could not be made", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", string(format))
		w.Write(text)
	})
}

// Text is what a scrape would be answered.
func (m *Metrics) Text(status control.Status) ([]byte, error) {
	return m.encode(func() control.Status { return status }, expfmt.FmtText)
}

// encode makes the answer to one scrape at a time, so that many of them take no more of the processor from the daemon than one does. It
// is whole before any of it is sent: a slow reader holds up no other.
func (m *Metrics) encode(status func() control.Status, format expfmt.Format) ([]byte, error) {
	m.encoding.Lock()
	defer m.encoding.Unlock()
	all, err := m.registry.Gather()
	if err != nil {
		return nil, err
	}
	all = append(all, families(status())...)
	slices.SortFunc(all, func(a, b *dto.MetricFamily) int { return cmp.Compare(a.GetName(), b.GetName()) })
	text := bytes.NewBuffer(make([]byte, 0, m.lastSize+m.lastSize/8))
	isOpen := format.FormatType() == expfmt.TypeOpenMetrics
	for _, family := range all {
		if isOpen {
			_, err = expfmt.MetricFamilyToOpenMetrics(text, family)
		} else {
			_, err = expfmt.MetricFamilyToText(text, family)
		}
		if err != nil {
			return nil, err
		}
	}
	if isOpen {
		_, err = expfmt.FinalizeOpenMetrics(text)
	}
	m.lastSize = text.Len()
	return text.Bytes(), err
}
