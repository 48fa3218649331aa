// Command mutate breaks the product in one place at a time and demands that the test which is there for it turns red. A test that
// stays green could not have failed. mutations.go lists the breaks.
//
// Nothing is written to the source: the broken file is laid over the right one (go build -overlay), also for the daemon that a test
// builds. Each test is run without any break first, and has to be green.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	only := flag.String("only", "", "a regular expression: only breaks whose text or test fits")
	flag.Parse()
	wanted, err := regexp.Compile(*only)
	if err == nil {
		err = run(wanted)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func run(wanted *regexp.Regexp) error {
	source, err := readSource(".")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "credsync-mutate-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	green := map[string]error{}
	tried, bad := 0, 0
	for _, m := range mutations {
		if !wanted.MatchString(m.breaks) && !wanted.MatchString(m.test) {
			continue
		}
		tried++
		began := time.Now()
		err := try(source, m, dir, green)
		verdict := "seen by " + m.test
		if err != nil {
			bad++
			verdict = "NOT SEEN: " + err.Error()
		}
		fmt.Printf("%s: %s (%s)\n", m.breaks, verdict, time.Since(began).Round(time.Second))
	}
	if tried == 0 || bad > 0 {
		return fmt.Errorf("%d of %d breaks are not seen", bad, tried)
	}
	fmt.Printf("each of %d breaks is seen\n", tried)
	return nil
}

// try demands that the test of a mutation is green without it and red with it. green remembers those that were asked.
func try(source source, m mutation, dir string, green map[string]error) error {
	file, broken, err := source.mutate(m)
	if err != nil {
		return err
	}
	name, _, _ := strings.Cut(m.test, "/")
	where, err := source.packageOf(name)
	if err != nil {
		return err
	}
	if _, asked := green[m.test]; !asked {
		output, err := test(where, m.test, "")
		if err == nil && !strings.Contains(output, "--- PASS: "+name) {
			err = fmt.Errorf("it passes without having run")
		}
		if err != nil {
			err = fmt.Errorf("%s is not green without any break: %w\n%s", m.test, err, tail(output))
		}
		green[m.test] = err
	}
	if err := green[m.test]; err != nil {
		return err
	}
	replaced, overlay := filepath.Join(dir, "broken.go"), filepath.Join(dir, "overlay.json")
	absolute, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	text, err := json.Marshal(map[string]any{"Replace": map[string]string{absolute: replaced}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(replaced, []byte(broken), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(overlay, text, 0o600); err != nil {
		return err
	}
	output, err := test(where, m.test, overlay)
	switch {
	case err == nil:
		return fmt.Errorf("%s is green with it", m.test)
	case !strings.Contains(output, "--- FAIL: "+name):
		return fmt.Errorf("%s did not come to its end: %w\n%s", m.test, err, tail(output))
	}
	return nil
}

// test runs a test and returns what it printed. Its error says that it is not green.
func test(where, name, overlay string) (output string, err error) {
	exact := "^" + strings.ReplaceAll(name, "/", "$/^") + "$"
	command := exec.Command("go", "test", "-count=1", "-vet=off", "-v", "-timeout=10m", "-run", exact, "./"+where)
	command.Env = append(os.Environ(), "TEST_PATIENCE=30s")
	if overlay != "" {
		command.Env = append(command.Env, "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -overlay="+overlay))
	}
	text, err := command.CombinedOutput()
	return string(text), err
}

func tail(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}
