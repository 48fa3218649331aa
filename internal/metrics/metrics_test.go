package metrics_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/sys/unix"

	"campaign-credsync/internal/control"
	"campaign-credsync/internal/metrics"
	"campaign-credsync/sync"
	"campaign-credsync/test/skip"
)

// status is that of so many instances, in which every time is known.
func status(instances int) control.Status {
	now := sync.Moment{Time: time.Unix(1_800_000_000, 0)}
	s := control.Status{Vault: control.Vault{Used: true, LastPoll: now, TokenExpires: now, SecretIDExpires: now}}
	s.Daemon.ConfigLoadedAt = now
	for i := range instances {
		s.Instances = append(s.Instances, sync.InstanceStatus{
			Name: fmt.Sprintf("instance-%04d", i), State: sync.StateInSync, AppliedVersion: 7, WantedVersion: 7, ActivatedVersion: 7,
			AppliedAt: now, ActivatedAt: now, LastCheck: now, PausedUntil: now,
		})
	}
	return s
}

func counted() *metrics.Metrics {
	m := metrics.New("1.0", "abc", "go1")
	m.Ran("prod", "set", "ok")
	m.Restarted("prod", "web")
	m.Requested("read", 200)
	m.Reverted(time.Millisecond)
	return m
}

func scrape(m *metrics.Metrics, s control.Status, accept string) (text, kind string) {
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	m.Handler(func() control.Status { return s }).ServeHTTP(w, r)
	return w.Body.String(), w.Header().Get("Content-Type")
}

// Names, HELP and types are as Prometheus wants them. Whoever asks for protobuf gets text.
func TestPromtoolHasNoComplaint(t *testing.T) {
	text, kind := scrape(counted(), status(3), "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	if !strings.HasPrefix(kind, "text/plain; version=0.0.4") {
		t.Errorf("the type is %q", kind)
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		skip.Unable(t, "promtool is not installed (Debian: prometheus)")
	}
	check := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	check.Stdin = strings.NewReader(text)
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestOpenMetricsOnRequest(t *testing.T) {
	text, kind := scrape(counted(), status(3), "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
	if !strings.HasPrefix(kind, "application/openmetrics-text; version=1.0.0") {
		t.Errorf("the type is %q", kind)
	}
	if !strings.HasSuffix(text, "\n# EOF\n") {
		t.Errorf("it has no end: %q", text[max(0, len(text)-80):])
	}
	if !strings.Contains(text, "# TYPE campaign_credsync_nlserver_runs counter\n") {
		t.Errorf("a counter has not the name that OpenMetrics wants\n%s", text)
	}
}

// The text format of Prometheus is what everybody gets who does not prefer OpenMetrics 1.0.0.
func TestFormatThatIsAskedFor(t *testing.T) {
	for accept, want := range map[string]string{
		"":                             "text/plain",
		"*/*":                          "text/plain",
		"application/openmetrics-text": "application/openmetrics-text",
		"application/openmetrics-text;version=0.0.1,text/plain;q=0.5":         "text/plain",
		"application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.6":   "text/plain",
		"text/plain;version=0.0.4;q=0.3,application/openmetrics-text;q=0.4":   "application/openmetrics-text",
		"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0": "text/plain",
		";;,application/openmetrics-text;q=1;,":                               "application/openmetrics-text",
	} {
		if _, kind := scrape(counted(), status(1), accept); !strings.HasPrefix(kind, want+";") {
			t.Errorf("%q is answered with %q", accept, kind)
		}
	}
}

// A duration counts in the first bucket that it does not exceed, and in all above.
func TestBuckets(t *testing.T) {
	m := metrics.New("1.0", "abc", "go1")
	for _, took := range []time.Duration{100 * time.Millisecond, 100*time.Millisecond + 1, 5 * time.Minute} {
		m.Applied(took)
	}
	text, _ := scrape(m, status(1), "")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	all, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	got := all["campaign_credsync_apply_duration_seconds"].GetMetric()[0].GetHistogram()
	if got.GetSampleCount() != 3 || got.GetSampleSum() < 300.2 || got.GetSampleSum() > 300.3 {
		t.Errorf("it counts %v, %v s", got.GetSampleCount(), got.GetSampleSum())
	}
	for _, b := range got.GetBucket() {
		want := uint64(2)
		switch {
		case b.GetUpperBound() == 0.1:
			want = 1
		case b.GetUpperBound() > 1000:
			want = 3
		}
		if b.GetCumulativeCount() != want {
			t.Errorf("up to %v s it counts %d, want %d", b.GetUpperBound(), b.GetCumulativeCount(), want)
		}
	}
}

// What is not known is absent, and what was never counted but is expected is 0.
func TestUnknownIsAbsentAndExpectedIsZero(t *testing.T) {
	s := control.Status{Instances: []sync.InstanceStatus{{Name: "prod", State: sync.StateHeld, Reason: "first_apply"}}}
	s.Daemon.ReloadError = "bad"
	m := metrics.New("1.0", "abc", "go1")
	m.Expect("prod", "restart", "web")
	text, _ := scrape(m, s, "")
	for _, want := range []string{
		`campaign_credsync_instance_state{instance="prod",state="held"} 1`,
		`campaign_credsync_instance_state{instance="prod",state="in_sync"} 0`,
		`campaign_credsync_instance_info{instance="prod",reason="first_apply"} 1`,
		`campaign_credsync_module_restarts_total{instance="prod",module="web"} 0`,
		`campaign_credsync_nlserver_runs_total{command="restart",instance="prod",result="timeout"} 0`,
		`campaign_credsync_config_last_reload_successful 0`,
		`campaign_credsync_warning{code="secret_id_ends"} 0`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("lacks %s\n%s", want, text)
		}
	}
	for _, name := range []string{"applied_timestamp_seconds", "paused_until", "vault_poll", "vault_token", "last_reload_success_timestamp"} {
		if strings.Contains(text, name) {
			t.Errorf("%s is there, and nobody knows it\n%s", name, text)
		}
	}
}

// config refuses such names. Should one come here all the same, it stays one value of one label.
func TestHostileLabel(t *testing.T) {
	const hostile = "a\"} 1\ncampaign_credsync_build_info{x=\"\\"
	s := status(1)
	s.Instances[0].Name = hostile
	text, _ := scrape(counted(), s, "")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	all, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if got := all["campaign_credsync_applied_version"].GetMetric()[0].GetLabel()[0].GetValue(); got != hostile {
		t.Errorf("the label is %q", got)
	}
	if n := len(all["campaign_credsync_build_info"].GetMetric()); n != 1 {
		t.Errorf("%d series of build_info", n)
	}
}

// sink takes an answer as a socket does.
type sink struct{ size int }

func (*sink) Header() http.Header { return http.Header{} }
func (*sink) WriteHeader(int)     {}
func (s *sink) Write(p []byte) (int, error) {
	s.size += len(p)
	return len(p), nil
}

// cpu is what this process has used of processors, also for garbage: on a busy machine that says more than the time.
func cpu(b *testing.B) time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// At most 20 ms for a thousand instances.
func BenchmarkScrape(b *testing.B) {
	s := status(1000)
	handler := counted().Handler(func() control.Status { return s })
	for _, format := range []struct{ name, accept string }{{"text", ""}, {"OpenMetrics", "application/openmetrics-text;version=1.0.0"}} {
		b.Run(format.name, func(b *testing.B) {
			r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
			r.Header.Set("Accept", format.accept)
			b.ReportAllocs()
			began := cpu(b)
			defer func() { b.ReportMetric(float64(cpu(b)-began)/float64(b.N)/1e6, "cpu-ms/op") }()
			for b.Loop() {
				w := sink{}
				handler.ServeHTTP(&w, r)
				if w.size < 1<<20 {
					b.Fatalf("%d bytes", w.size)
				}
			}
		})
	}
}
