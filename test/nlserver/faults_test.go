package main_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestStartDelayHoldsForEveryRun(t *testing.T) {
	c := newCampaign(t)
	c.setFaults(`{"start_delay": "30ms", "only_for": ["test"]}`)
	for _, args := range [][]string{{"config", "-?"}, {"config", "-reload"}, {"restart", "web"}, {"config", "-instance:prod", oauth}} {
		r := c.mustRun(args...)
		if !strings.Contains(strings.SplitN(r.stdout, "\n", 2)[0], "Application server") {
			t.Errorf("%q: first line is no banner:\n%s", args, r.stdout)
		}
		records := c.records()
		if end := records[len(records)-1]; end.DurationUS < 30_000 {
			t.Errorf("%q took %d µs", args, end.DurationUS)
		}
	}
}

func TestPrintSecret(t *testing.T) {
	c := newCampaign(t)
	if r := c.mustRun("config", "-instance:prod", oauth); strings.Contains(r.stdout+r.stderr, secret) {
		t.Error("the secret was printed unasked")
	}
	if r := c.run("config", "-instance:prod", oauth+"/x"); strings.Contains(r.stdout+r.stderr, secret) {
		t.Error("the secret was printed unasked, in an error")
	}
	c.setFaults(`{"print_secret": true}`)
	r := c.mustRun("config", "-instance:prod", oauth)
	for name, out := range map[string]string{"stdout": r.stdout, "stderr": r.stderr} {
		if !strings.Contains(out, "config -instance:prod "+oauth+"\n") {
			t.Errorf("no command line on %s", name)
		}
		across := false
		for line := range strings.Lines(out) {
			at := strings.Index(line, secret)
			across = across || (at < 1<<16 && at+len(secret) > 1<<16)
		}
		if !across {
			t.Errorf("no line on %s has the secret across its 64 KiB boundary", name)
		}
	}
}

func TestPrintBytes(t *testing.T) {
	c := newCampaign(t)
	quiet := c.mustRun("config", "-instance:prod", oauth)
	for _, n := range []string{"1", "100", "300001"} {
		c.setFaults(`{"print_bytes": ` + n + `}`)
		loud := c.mustRun("config", "-instance:prod", oauth)
		if got, want := len(loud.stdout)-len(quiet.stdout), mustAtoi(t, n); got != want {
			t.Errorf("%d bytes more than without, want %d", got, want)
		}
	}
}

func TestForkChildKeepsTheOutputOpen(t *testing.T) {
	c := newCampaign(t)
	c.setFaults(`{"fork_child": "1h"}`)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := c.command("config", "-instance:prod", oauth)
	cmd.Stdout, cmd.Stderr = writer, writer
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	i := slices.IndexFunc(c.records(), func(r record) bool { return r.Event == "child" })
	if i < 0 {
		t.Fatal("no child in the run log")
	}
	pid := c.records()[i].ChildPID
	if link, err := os.Readlink("/proc/" + itoa(pid) + "/fd/1"); err != nil || !strings.HasPrefix(link, "pipe:") {
		t.Errorf("standard output of the child: %q, %v", link, err)
	}
	if cmdline, err := os.ReadFile("/proc/" + itoa(pid) + "/cmdline"); err != nil || bytes.Contains(cmdline, []byte(secret)) {
		t.Errorf("command line of the child: %q, %v", cmdline, err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(reader); err != nil { // ends, because nobody else has it open
		t.Fatal(err)
	}
}

func TestDeterministic(t *testing.T) {
	c := newCampaign(t)
	c.setFaults(`{"deterministic": true}`)
	c.mustRun("config", "-instance:prod", oauth)
	first := c.ims()["authIMSTAClientSecret"]
	c.mustRun("config", "-instance:prod", oauth)
	if again := c.ims()["authIMSTAClientSecret"]; again != first {
		t.Errorf("%q, then %q", first, again)
	}
	c.mustRun("config", "-instance:prod", oauth+"x")
	if other := c.ims()["authIMSTAClientSecret"]; other == first || c.decrypt(other) != secret+"x" {
		t.Error("another secret, but the same ciphertext or a wrong one")
	}
}

func TestOrgAttribute(t *testing.T) {
	c := newCampaign(t)
	c.setFaults(`{"org_attribute": "authIMSOrgId"}`)
	c.mustRun("config", "-instance:prod", oauth)
	if got := c.ims()["authIMSOrgId"]; got != org {
		t.Errorf("authIMSOrgId = %q, want %q", got, org)
	}
}

func TestOptionsOfTheBuild(t *testing.T) {
	all := []string{"setimsoauth", "setimsauth", "setimsjwtauth"}
	for switches, known := range map[string][]string{
		`{}`: all,
		`{"options": ["setimsoauth", "setimsjwtauth"]}`: {"setimsoauth", "setimsjwtauth"},
		`{"options": ["setimsjwtauth"]}`:                {"setimsjwtauth"},
		`{"options": []}`:                               {},
	} {
		t.Run(switches, func(t *testing.T) {
			t.Parallel()
			c := newCampaign(t)
			c.setFaults(switches)
			help := c.mustRun("config", "-?").stdout
			for _, option := range all {
				want := slices.Contains(known, option)
				if strings.Contains(help, "-"+option+":") != want {
					t.Errorf("%s listed: %v, want %v", option, !want, want)
				}
				r := c.run("config", "-instance:prod", "-"+option+":a/b/c/d")
				if (r.code == 0) != want {
					t.Errorf("%s: exit %d", option, r.code)
				}
				if !want && !strings.Contains(r.stderr, "Unknown option '-"+option+"'. (iRc=") {
					t.Errorf("%s: stderr %q", option, r.stderr)
				}
			}
			if old := !strings.Contains(help, "7.4.1"); old == slices.Contains(known, "setimsoauth") {
				t.Errorf("banner does not fit the options: %q", help)
			}
		})
	}
}

func TestActivationFaults(t *testing.T) {
	c := newCampaign(t)
	fails := func(args ...string) bool { t.Helper(); return c.run(args...).code != 0 }
	c.setFaults(`{"reload_fail": true, "restart_fail": ["web", "mta", "pipelined@prod"]}`)
	for _, args := range [][]string{{"config", "-reload"}, {"restart", "web"}, {"restart", "mta@prod"}, {"restart", "pipelined@prod"}} {
		if !fails(args...) {
			t.Errorf("%q went well", args)
		}
	}
	for _, args := range [][]string{{"restart", "syslogd"}, {"restart", "wfserver@prod"}, {"config", "-instance:prod", oauth}, {"config", "-?"}} {
		if fails(args...) {
			t.Errorf("%q failed", args)
		}
	}
	c.setFaults(`{"on": ["reload", "restart"], "fail": "before", "exit_code": 5}`)
	if r := c.run("config", "-reload"); r.code != 5 {
		t.Errorf("reload: exit %d, want 5", r.code)
	}
	if r := c.run("restart", "syslogd"); r.code != 5 {
		t.Errorf("restart: exit %d, want 5", r.code)
	}
	if fails("config", "-instance:prod", oauth) {
		t.Error(`set failed although "on" leaves it out`)
	}
	c.setFaults(`{"on": ["reload"], "hang": true}`)
	run := c.startUntil("hang", "config", "-reload")
	run.signal(syscall.SIGKILL)
	run.end()
}

func TestOnlyForAndTimes(t *testing.T) {
	c := newCampaign(t)
	c.mustTool("--standin-instance", c.home, "test")
	set := func(instance string) int { t.Helper(); return c.run("config", "-instance:"+instance, oauth).code }
	const switches = `{"fail": "before", "only_for": ["test"], "times": 2}`
	// The second round: the same switches set again are counted anew.
	for range 2 {
		c.setFaults(switches)
		got := []int{set("prod"), set("test"), c.run("config", "-?").code, set("prod"), set("test"), set("test"), set("test")}
		if want := []int{0, 1, 0, 0, 1, 0, 0}; !slices.Equal(got, want) {
			t.Errorf("exit codes %v, want %v", got, want)
		}
	}
}

func TestTimesAmongConcurrentRuns(t *testing.T) {
	c := newCampaign(t)
	c.setFaults(`{"fail": "before", "times": 3}`)
	// Runs that reach the count are held there, and then let go together.
	count, err := os.Create(filepath.Join(c.home, "var", "standin", "faults.count"))
	if err != nil {
		t.Fatal(err)
	}
	defer count.Close()
	if err := syscall.Flock(int(count.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	var runs []*exec.Cmd
	for i := range 30 {
		// An instance each: runs that share a file would find it truncated.
		c.mustTool("--standin-instance", c.home, "i"+itoa(i))
		cmd := c.command("config", "-instance:i"+itoa(i), "-setimsjwtauth:O/C/T")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		runs = append(runs, cmd)
	}
	if err := syscall.Flock(int(count.Fd()), syscall.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	failed := 0
	for _, cmd := range runs {
		cmd.Wait()
		failed += cmd.ProcessState.ExitCode()
	}
	if failed != 3 {
		t.Errorf("%d runs failed, want 3", failed)
	}
}

func TestWrongSwitchesAreLoud(t *testing.T) {
	for about, switches := range map[string]string{
		"unknown key":       `{"no_wrote": true}`,
		"wrong type":        `{"no_write": "yes"}`,
		"not JSON":          `no_write`,
		"something follows": `{} {}`,
		"empty":             ``,
		"unknown fail":      `{"fail": "during"}`,
		"unknown option":    `{"options": ["setimsoath"]}`,
		"unknown kind":      `{"on": ["apply"]}`,
		"unknown module":    `{"restart_fail": ["webb"]}`,
		"duration":          `{"start_delay": 2}`,
		"no unit":           `{"start_delay": "2"}`,
		"negative":          `{"write_delay": "-2s"}`,
		"exit code":         `{"exit_code": 256}`,
		"times":             `{"times": -1}`,
		"two writes":        `{"no_write": true, "garbage": true}`,
	} {
		t.Run(about, func(t *testing.T) {
			t.Parallel()
			c := newCampaign(t)
			before := c.read()
			file := filepath.Join(c.home, "var", "standin", "faults.json")
			c.setFaults(`{"exit_code": 4}`)
			if out, err := exec.Command(standin, "--standin-faults", c.home, switches).CombinedOutput(); err == nil {
				t.Errorf("accepted: %s", out)
			}
			if text, err := os.ReadFile(file); err != nil || string(text) != `{"exit_code": 4}` {
				t.Errorf("the switches in force became %q (%v)", text, err)
			}
			if err := os.WriteFile(file, []byte(switches), 0o644); err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{{"config", "-instance:prod", oauth}, {"config", "-?"}} {
				r := c.run(args...)
				if r.code != 78 || !strings.Contains(r.stderr, "faults.json") {
					t.Errorf("%q: exit %d, stderr %q", args, r.code, r.stderr)
				}
			}
			if c.read() != before {
				t.Error("the instance file changed")
			}
			c.mustTool("--standin-faults", c.home)
			c.mustRun("config", "-instance:prod", oauth)
		})
	}
}
