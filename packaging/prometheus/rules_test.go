// Package prometheus_test checks the alert rules, the scrape example and the dashboard. It needs promtool.
package prometheus_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"campaign-credsync/internal/control"
	"campaign-credsync/internal/metrics"
	"campaign-credsync/sync"
	"campaign-credsync/test/skip"
)

const (
	rulesFile     = "campaign-credsync.rules.yml"
	casesFile     = "campaign-credsync.rules.test.yml"
	scrapeFile    = "scrape.example.yml"
	dashboardFile = "../grafana/campaign-credsync.json"
	alertsFile    = "../../docs/alerts.md"
)

// served are the metrics that the daemon serves, without the prefix, each with its own labels. Prometheus adds job and instance, and
// renames the daemon's label instance to exported_instance.
func served(t *testing.T) map[string][]string {
	t.Helper()
	m := metrics.New("", "", "")
	m.Ran("prod", "set", "ok")
	m.Restarted("prod", "web")
	m.Requested("read", 200)
	now := sync.Moment{Time: time.Now()}
	status := control.Status{
		Instances: []sync.InstanceStatus{{Name: "prod", AppliedAt: now, ActivatedAt: now, LastCheck: now, PausedUntil: now}},
		Vault:     control.Vault{Used: true, LastPoll: now, TokenExpires: now, SecretIDExpires: now},
		Daemon:    control.Process{ConfigLoadedAt: now},
	}
	text := m.Text(status)
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for name, family := range families {
		var labels []string
		for _, l := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		short, ours := strings.CutPrefix(name, "campaign_credsync_")
		if !ours {
			t.Errorf("the daemon serves %s", name)
		}
		if family.GetType() == dto.MetricType_HISTOGRAM {
			short, labels = short+"_bucket", append(labels, "le")
		}
		all[short] = labels
	}
	return all
}

// others are metrics of Prometheus and node_exporter.
var others = map[string][]string{
	"up":                          {},
	"node_textfile_mtime_seconds": {"file"},
}

// promtool runs promtool in dir, and fails the test with its output if it finds a fault.
func promtool(t *testing.T, dir string, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		skip.Unable(t, "promtool is not installed (Debian: prometheus)")
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestRules(t *testing.T) {
	promtool(t, ".", "check", "rules", rulesFile)
	promtool(t, ".", "test", "rules", casesFile)
}

// The scrape example is appended to a configuration, as its users do before Prometheus 2.43.
func TestScrapeExample(t *testing.T) {
	dir := t.TempDir()
	config := append([]byte("global: {scrape_interval: 30s}\nrule_files: ["+rulesFile+"]\n"), read(t, scrapeFile)...)
	write(t, filepath.Join(dir, "prometheus.yml"), config)
	write(t, filepath.Join(dir, rulesFile), read(t, rulesFile))
	promtool(t, dir, "check", "config", "prometheus.yml")
	if bytes.Contains(config, []byte("\n    honor_labels:")) {
		t.Error("the rules need honor_labels to be false, its default")
	}
}

// Each alert has a case that fires, one that stays silent, and a section in docs/alerts.md, in the order of the rules.
func TestEveryAlertIsTriedAndDocumented(t *testing.T) {
	fires, silent := map[string]bool{}, map[string]bool{}
	var cases struct {
		Tests []struct {
			Cases []struct {
				Name   string `yaml:"alertname"`
				Alerts []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		} `yaml:"tests"`
	}
	parse(t, casesFile, &cases)
	for _, group := range cases.Tests {
		for _, c := range group.Cases {
			if len(c.Alerts) > 0 {
				fires[c.Name] = true
			} else {
				silent[c.Name] = true
			}
		}
	}
	var sections []string
	for _, m := range regexp.MustCompile(`(?m)^## (\w+)$`).FindAllStringSubmatch(string(read(t, alertsFile)), -1) {
		sections = append(sections, m[1])
	}

	var alerts []string
	for _, r := range rules(t) {
		alerts = append(alerts, r.Alert)
		if !fires[r.Alert] || !silent[r.Alert] {
			t.Errorf("%s: a case that fires: %t, one that is silent: %t", r.Alert, fires[r.Alert], silent[r.Alert])
		}
		if want := "docs/alerts.md#" + strings.ToLower(r.Alert); r.Annotations["runbook_url"] != want {
			t.Errorf("%s: runbook_url is %q, not %q", r.Alert, r.Annotations["runbook_url"], want)
		}
		if s := r.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s: severity %q", r.Alert, s)
		}
		if r.For == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s: lacks for, summary or description", r.Alert)
		}
	}
	if !slices.Equal(alerts, sections) {
		t.Errorf("docs/alerts.md has the sections %v,\nthe rules, in this order, are %v", sections, alerts)
	}
	if n := len(strings.Fields(string(read(t, alertsFile)))); n > 900 {
		t.Errorf("docs/alerts.md has %d words, more than 900", n)
	}
}

func TestExpressionsUseKnownMetrics(t *testing.T) {
	known := served(t)
	for _, r := range rules(t) {
		checkNames(t, known, r.Alert, r.Expr)
		for _, text := range r.Annotations {
			checkNames(t, known, r.Alert, text)
		}
	}
	d := dashboard(t)
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			checkNames(t, known, p.Title, target.Expr)
		}
	}
	for _, v := range d.Templating.List {
		checkNames(t, known, "variable "+v.Name, v.Definition)
	}
}

var (
	selector = regexp.MustCompile(`\b(campaign_credsync_\w+|up|node_\w+)(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)`)
)

// checkNames reports metrics and labels in the selectors of expr that the daemon does not have.
func checkNames(t *testing.T, served map[string][]string, where, expr string) {
	t.Helper()
	for _, m := range selector.FindAllStringSubmatch(expr, -1) {
		labels, known := others[m[1]]
		if short, ours := strings.CutPrefix(m[1], "campaign_credsync_"); ours {
			labels, known = served[short]
		}
		if !known {
			t.Errorf("%s: no metric %s", where, m[1])
		}
		for _, l := range matcher.FindAllStringSubmatch(m[2], -1) {
			ok := l[1] == "job" || l[1] == "instance" || slices.Contains(labels, l[1])
			if l[1] == "exported_instance" {
				ok = slices.Contains(labels, "instance")
			}
			if !ok {
				t.Errorf("%s: %s has no label %s", where, m[1], l[1])
			}
		}
	}
}

func TestDashboardIsReadable(t *testing.T) {
	d := dashboard(t)
	if len(d.Panels) > 12 {
		t.Errorf("%d panels, more than anybody reads", len(d.Panels))
	}
	ids := map[int]bool{}
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("%s: panel %d is there twice", p.Title, p.ID)
		}
		ids[p.ID] = true
		if !strings.HasSuffix(p.Title, "?") || p.Description == "" {
			t.Errorf("%q: the title is no question, or the description is empty", p.Title)
		}
		for _, target := range p.Targets {
			if target.Datasource.UID != "${datasource}" {
				t.Errorf("%s: data source %q", p.Title, target.Datasource.UID)
			}
		}
	}
	for i, want := range []string{"datasource", "job", "host", "instance"} {
		if i >= len(d.Templating.List) || d.Templating.List[i].Name != want {
			t.Errorf("variable %d is not %s", i, want)
		}
	}
}

// Every query of the dashboard is evaluated, as a recording rule, over series in which something is wrong everywhere: none may
// fail, each must have an answer.
func TestDashboardQueriesAnswer(t *testing.T) {
	variables := strings.NewReplacer("$__range", "1h", "$__rate_interval", "5m", "$job", ".*", "$host", ".*", "$instance", ".*")
	var records, answers []string
	for _, p := range dashboard(t).Panels {
		for _, target := range p.Targets {
			name := fmt.Sprintf("panel%d:%s", p.ID, target.RefID)
			records = append(records, fmt.Sprintf("{record: %q, expr: %q}", name, variables.Replace(target.Expr)))
			answers = append(answers, fmt.Sprintf("{expr: 'count(%s) > bool 0', eval_time: 1h, exp_samples: [{labels: '{}', value: 1}]}", name))
		}
	}
	series := []string{`{series: 'up{job="j",instance="down"}', values: '0x70'}`}
	for name, labels := range served(t) {
		series = append(series, samples(name, labels)...)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "rules.yml"), []byte("groups: [{name: panels, rules: ["+strings.Join(records, ",\n")+"]}]\n"))
	write(t, filepath.Join(dir, "test.yml"), []byte("rule_files: [rules.yml]\nevaluation_interval: 30m\ntests:\n- interval: 1m\n  input_series: ["+
		strings.Join(series, ",\n")+"]\n  promql_expr_test: ["+strings.Join(answers, ",\n")+"]\n"))
	promtool(t, dir, "test", "rules", "test.yml")
}

// samples are the series of one metric on two hosts.
func samples(name string, labels []string) []string {
	values, label, each := "1x70", "", []string{""}
	switch {
	case name == "instance_state":
		label, each = "state", []string{"drift", "held", "paused"}
	case strings.HasSuffix(name, "_bucket"):
		values, label, each = "0+1x70", "le", []string{"1", "+Inf"}
	case strings.HasSuffix(name, "_total"):
		values = "0+1x70"
	case strings.HasSuffix(name, "expiry_timestamp_seconds"), name == "paused_until_timestamp_seconds":
		values = "90000x70"
	}
	var series []string
	for _, host := range []string{"a", "b"} {
		for _, value := range each {
			pairs := []string{`job="j"`, fmt.Sprintf("instance=%q", host)}
			for _, l := range labels {
				switch l {
				case "instance":
					pairs = append(pairs, `exported_instance="prod"`)
				case label:
					pairs = append(pairs, fmt.Sprintf("%s=%q", l, value))
				default:
					pairs = append(pairs, l+`="x"`)
				}
			}
			series = append(series, fmt.Sprintf("{series: 'campaign_credsync_%s{%s}', values: '%s'}", name, strings.Join(pairs, ","), values))
		}
	}
	return series
}

type rule struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

func rules(t *testing.T) []rule {
	t.Helper()
	var file struct {
		Groups []struct {
			Rules []rule `yaml:"rules"`
		} `yaml:"groups"`
	}
	parse(t, rulesFile, &file)
	if len(file.Groups) != 1 || len(file.Groups[0].Rules) == 0 {
		t.Fatal("no rules found")
	}
	return file.Groups[0].Rules
}

type board struct {
	Panels []struct {
		ID                 int
		Title, Description string
		Targets            []struct {
			RefID, Expr string
			Datasource  struct{ UID string }
		}
	}
	Templating struct {
		List []struct{ Name, Definition string }
	}
}

func dashboard(t *testing.T) board {
	t.Helper()
	var d board
	if err := json.Unmarshal(read(t, dashboardFile), &d); err != nil {
		t.Fatalf("%s: %v", dashboardFile, err)
	}
	if len(d.Panels) == 0 {
		t.Fatal("no panels found")
	}
	return d
}

func parse(t *testing.T, file string, into any) {
	t.Helper()
	if err := yaml.Unmarshal(read(t, file), into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, file string, b []byte) {
	t.Helper()
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
}
