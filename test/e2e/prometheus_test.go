package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/freeport"
	"campaign-credsync/test/skip"
	"campaign-credsync/test/world"
)

// freeAddress is one that nobody listens at.
func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// get asks over HTTP, notes the answer as what must hold no secret, and returns it.
func get(w *world.World, url, accept string) (status int, body string) {
	w.T.Helper()
	ctx, cancel := context.WithTimeout(w.Ctx, world.Patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	w.Must(err)
	r.Header.Set("Accept", accept)
	answer, err := http.DefaultClient.Do(r)
	w.Must(err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	w.Must(err)
	w.Printed.Write(text)
	return answer.StatusCode, string(text)
}

// prometheus is a real one that scrapes the daemon, as the host host-a, and knows the rules.
type prometheus struct {
	w       *world.World
	address string
}

func startPrometheus(w *world.World, target string) prometheus {
	t := w.T
	t.Helper()
	program, err := exec.LookPath("prometheus")
	if err != nil {
		skip.Unable(t, "prometheus is not installed (Debian: prometheus)")
	}
	rules, err := filepath.Abs("../../packaging/prometheus/campaign-credsync.rules.yml")
	w.Must(err)
	dir, address := t.TempDir(), freeAddress(t)
	config := fmt.Sprintf(`global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%s]
scrape_configs:
  - job_name: campaign-credsync
    static_configs: [{targets: [%q], labels: {instance: host-a}}]
`, rules, target)
	w.Must(os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600))
	log, err := os.Create(filepath.Join(dir, "log"))
	w.Must(err)
	command := exec.Command(program, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address, "--log.level=warn")
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	w.Must(command.Start())
	t.Cleanup(func() {
		command.Process.Signal(syscall.SIGTERM)
		command.Wait()
		log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("prometheus: %s", text)
		}
	})
	return prometheus{w, address}
}

// ask asks the API. It fails while Prometheus starts.
func (p prometheus) ask(path string, into any) error {
	ctx, cancel := context.WithTimeout(p.w.Ctx, 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+path, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	var document struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(answer.Body).Decode(&document); err != nil {
		return err
	}
	if document.Status != "success" {
		return fmt.Errorf("%s: %s", document.Status, document.Error)
	}
	return json.Unmarshal(document.Data, into)
}

// query tells how many series a query finds now.
func (p prometheus) query(expr string) (series int, err error) {
	var found struct{ Result []json.RawMessage }
	err = p.ask("/api/v1/query?query="+url.QueryEscape(expr), &found)
	return len(found.Result), err
}

// finds waits until each query finds something.
func (p prometheus) finds(exprs ...string) {
	p.w.T.Helper()
	for _, expr := range exprs {
		p.w.Eventually("prometheus finds "+expr, func() bool {
			n, err := p.query(expr)
			return err == nil && n > 0
		})
	}
}

// A real Prometheus scrapes the daemon and sees every metric that there is move, evaluates every rule, and finds something with
// every query of the dashboard. What is served is well-formed, also as OpenMetrics and as a textfile.
func TestPrometheusSeesTheDaemon(t *testing.T) {
	t.Parallel()
	listen := freeAddress(t)
	w := world.New(t, container.Options{
		Campaign: "activate: {restart: [web, pipelined]}",
		Settings: "listen: " + listen + "\ndrift: {max_reverts: 2}\nnotify: {exec: [/bin/false]}\nlog: {level: debug, format: text}",
	})
	w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	p := startPrometheus(w, listen)
	metric := func(rest string) string { return "campaign_credsync_" + rest }

	p.finds(
		`up{job="campaign-credsync",instance="host-a"} == 1`,
		metric(`build_info{goversion=~"go.+"} == 1`),
		metric(`instance_state{exported_instance="prod",state="in_sync"} == 1`),
		metric(`instance_info{exported_instance="prod",reason=""} == 1`),
		metric(`applied_version == 1`), metric(`activated_version == 1`), metric(`wanted_version == 1`),
		`time() - `+metric(`checked_timestamp_seconds < 3600`), `time() - `+metric(`vault_poll_success_timestamp_seconds < 3600`),
		metric(`vault_token_expiry_timestamp_seconds > time()`),
		metric(`config_last_reload_successful == 1`), `time() - `+metric(`config_last_reload_success_timestamp_seconds < 3600`),
		metric(`drift_reverted_total == 0`), metric(`drift_brake_active == 0`), metric(`warning{code="reload_rejected"} == 0`),
		metric(`nlserver_runs_total{exported_instance="prod",command="set",result="failed"} == 0`),
		metric(`vault_requests_total{operation="login",code="200"} > 0`), metric(`vault_requests_total{operation="read",code="200"} > 0`),
		metric(`notify_failures_total > 0`), metric(`warning{code="notify_failing"} == 1`),
	)

	w.NewSecret("prod")
	w.InSync(2)
	p.finds(
		metric(`applied_version == 2`), metric(`activated_timestamp_seconds >= `)+metric(`applied_timestamp_seconds`),
		metric(`nlserver_runs_total{exported_instance="prod",command="set",result="ok"} == 2`),
		metric(`nlserver_runs_total{exported_instance="",command="reload",result="ok"} == 2`),
		metric(`nlserver_runs_total{command="restart",result="ok"} > 1`),
		metric(`module_restarts_total{module="web"} == 2`), metric(`module_restarts_total{module="pipelined",exported_instance="prod"} == 2`),
		metric(`apply_duration_seconds_count == 2`), metric(`activation_duration_seconds_count >= 6`),
	)

	boards := panels(t)
	seen := map[string]bool{}
	look := func() {
		t.Helper()
		for name, expr := range boards {
			n, err := p.query(expr)
			if err != nil {
				t.Errorf("%s: %v\n%s", name, err, expr)
			}
			seen[name] = seen[name] || n > 0
		}
	}

	w.Exits(0, "", "pause", "--for", "1h")
	p.finds(metric(`paused_until_timestamp_seconds > time() + 3000`), metric(`instance_state{state="paused"} == 1`), metric(`instance_info{reason="paused"} == 1`))
	look()
	w.Exits(0, "", "resume")
	p.finds(`absent(` + metric(`paused_until_timestamp_seconds)`))

	for range 3 {
		secret := w.Attribute("prod", "authIMSTAClientSecret")
		w.Blank("prod")
		w.Eventually("it is reverted, or the brake is on", func() bool {
			return w.Attribute("prod", "authIMSTAClientSecret") == secret || strings.Contains(w.Log(), "drift is not reverted for now")
		})
	}
	p.finds(
		metric(`drift_detected_total >= 2`), metric(`drift_reverted_total == 2`), metric(`revert_duration_seconds_count == 2`),
		metric(`drift_brake_active == 1`), metric(`instance_state{state="drift"} == 1`), metric(`instance_info{reason="drift_brake"} == 1`),
		`ALERTS{alertname="CampaignCredsyncDriftWar",instance="host-a",exported_instance="prod",alertstate="pending"}`,
		`ALERTS{alertname="CampaignCredsyncDrift",alertstate="pending"}`, `ALERTS{alertname="CampaignCredsyncHookFailing",alertstate="pending"}`,
	)
	status, _ := get(w, "http://"+listen+"/readyz", "")
	if status != http.StatusServiceUnavailable {
		t.Errorf("/readyz while drift is left: %d", status)
	}

	rewrite(w, "poll: 1s", "poll: 1x")
	refused(w, "poll")
	p.finds(metric(`config_last_reload_successful == 0`), metric(`warning{code="reload_rejected"} == 1`), `ALERTS{alertname="CampaignCredsyncReloadRejected"}`)
	rewrite(w, "poll: 1x", "poll: 1s")
	w.HangUp() // which also ends the brake
	p.finds(metric(`config_last_reload_successful == 1`), `changes(`+metric(`config_last_reload_success_timestamp_seconds[10m]) > 0`))
	w.InSync(2)

	look()
	for name := range boards {
		if !seen[name] {
			t.Errorf("%s finds nothing\n%s", name, boards[name])
		}
	}
	p.rulesAreHealthy()
	wellFormed(w, listen)
}

// panels are the queries of the dashboard, with its variables filled in.
func panels(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../packaging/grafana/campaign-credsync.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ RefID, Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("$__range", "1h", "$__rate_interval", "1m", "$job", ".*", "$host", ".*", "$instance", ".*")
	queries := map[string]string{}
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			queries[panel.Title+" "+target.RefID] = fill.Replace(target.Expr)
		}
	}
	if len(queries) < 10 {
		t.Fatalf("%d queries", len(queries))
	}
	return queries
}

// rulesAreHealthy demands that each rule was evaluated without an error.
func (p prometheus) rulesAreHealthy() {
	p.w.T.Helper()
	var all struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	p.w.Must(p.ask("/api/v1/rules", &all))
	if len(all.Groups) != 1 || len(all.Groups[0].Rules) < 15 {
		p.w.T.Fatalf("the rules are %+v", all)
	}
	for _, rule := range all.Groups[0].Rules {
		if rule.Health != "ok" {
			p.w.T.Errorf("%s: %s %s", rule.Name, rule.Health, rule.LastError)
		}
	}
}

// wellFormed has promtool look at what is served, and at the textfile, which holds the same metrics and nothing else.
func wellFormed(w *world.World, listen string) {
	t := w.T
	t.Helper()
	_, served := get(w, "http://"+listen+"/metrics", "text/plain")
	textfile, _, _ := w.RunCommand("status", "--prometheus")
	for what, text := range map[string]string{"/metrics": served, "the textfile": textfile} {
		check := exec.Command("promtool", "check", "metrics")
		check.Stdin = strings.NewReader(text)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("promtool check metrics of %s: %v\n%s", what, err, out)
		}
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "campaign_credsync_") && !strings.HasPrefix(line, "# HELP campaign_credsync_") && !strings.HasPrefix(line, "# TYPE campaign_credsync_") {
				t.Errorf("%s has the line %q", what, line)
			}
		}
	}
	names := func(text string) []string {
		return slices.Compact(regexp.MustCompile(`(?m)^campaign_\w+`).FindAllString(text, -1))
	}
	if got, want := names(textfile), names(served); !slices.Equal(got, want) {
		t.Errorf("the textfile has %v,\nserved are %v", got, want)
	}
	if _, open := get(w, "http://"+listen+"/metrics", "application/openmetrics-text;version=1.0.0"); !strings.HasSuffix(open, "\n# EOF\n") {
		t.Errorf("OpenMetrics without an end: %q", open[max(0, len(open)-100):])
	}
	for _, path := range []string{"/", "/healthz", "/readyz"} {
		if status, body := get(w, "http://"+listen+path, ""); status != http.StatusOK {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}
