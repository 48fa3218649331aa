package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// forever is long enough for every test, and lets a run that a broken test
// forgot end by itself.
const forever = time.Hour

// misbehaveEarly is what goes wrong before any work is done.
func (s *session) misbehaveEarly() error {
	f := &s.faults
	if f.PrintSecret {
		s.printSecret()
	}
	if f.PrintPieces {
		s.printPieces()
	}
	if f.PrintBytes > 0 {
		printBytes(s.stdout, f.PrintBytes)
	}
	if f.ForkChild > 0 {
		if err := s.forkChild(time.Duration(f.ForkChild)); err != nil {
			return err
		}
	}
	if f.Hang && !s.wait("hang", forever) {
		return injected
	}
	if f.Fail == failBefore {
		return injected
	}
	return nil
}

// wait pauses, after telling so in the run log and on standard output, so that
// a test can await the moment instead of guessing it.
func (s *session) wait(at string, d time.Duration) (released bool) {
	s.logWaiting(at)
	s.say("stand-in waits: %s", at)
	return s.pause(d)
}

// pause lasts that long, or until a test releases it.
func (s *session) pause(d time.Duration) (released bool) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(min(time.Until(end), 5*time.Millisecond)) {
		if _, err := os.Lstat(releasedFile(s.home)); err == nil {
			return true
		}
	}
	return false
}

func (s *session) logWaiting(at string) {
	if err := s.log.waiting(at); err != nil {
		fmt.Fprintln(s.stderr, "nlserver stand-in: run log:", err)
	}
}

// secrets are those that this run could print: the one it was given, else those
// in the files of all instances, which it has the key for.
func (s *session) secrets() []string {
	if secret := s.call.field(fieldSecret); secret != "" {
		return []string{secret}
	}
	var found []string
	files, _ := filepath.Glob(filepath.Join(s.home, "conf", "config-*.xml"))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		for _, match := range secretAttribute.FindAllSubmatch(text, -1) {
			if secret, err := decrypt(string(match[1])); err == nil {
				found = append(found, secret)
			}
		}
	}
	return found
}

var secretAttribute = regexp.MustCompile(`authIMSTAClientSecret=["']([^"']*)["']`)

// printSecret puts the command line where a careless program would: as it is,
// quoted in an error, and across the 64 KiB boundary of one long line, where
// readers that work in pieces cut.
func (s *session) printSecret() {
	for _, secret := range s.secrets() {
		s.printOne(secret)
	}
}

func (s *session) printOne(secret string) {
	line := strings.Join(os.Args, " ")
	half := (1 << 16) - len(secret)/2
	for _, w := range []io.Writer{s.stdout, s.stderr} {
		logLine(w, line)
		logLine(w, fmt.Sprintf("Invalid value '%s' in %q (iRc=%d)", secret, line, iRcInjected))
		fmt.Fprintln(w, strings.Repeat("x", half)+secret+strings.Repeat("x", 1<<16))
	}
}

// printPieces puts the secret where a program does that wraps, quotes or
// encodes what it was given.
func (s *session) printPieces() {
	for _, secret := range s.secrets() {
		s.printPiecesOf(secret)
	}
}

func (s *session) printPiecesOf(secret string) {
	line := strings.Join(os.Args, " ")
	if !strings.Contains(line, secret) {
		line += " " + secret
	}
	half := len(secret) / 2
	percent := regexp.MustCompile(`..`).ReplaceAllString(fmt.Sprintf("%X", secret), "%$0")
	for _, w := range []io.Writer{s.stdout, s.stderr} {
		fmt.Fprintf(w, "wrapped: %s\n  %s\n", secret[:half], secret[half:])
		fmt.Fprintf(w, "wrapped: %s\\\r\n%s\n", secret[:half], secret[half:])
		fmt.Fprintf(w, "spaced: %s\n", strings.Join(strings.Split(secret, ""), " "))
		fmt.Fprintf(w, "quoted: %q\n", line)
		fmt.Fprintf(w, "escaped: %s\n", url.QueryEscape(line))
		fmt.Fprintf(w, "base64: %s\n", base64.StdEncoding.EncodeToString([]byte(secret)))
		// Each start is at another place of the three bytes that make four digits.
		for i := range 3 {
			fmt.Fprintf(w, "base64 of more: %s\n", base64.StdEncoding.EncodeToString([]byte(line[i:])))
		}
		fmt.Fprintf(w, "Authorization: Basic %s\n", base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef:"+secret)))
		fmt.Fprintf(w, "hexadecimal: %x\n", line)
		fmt.Fprintf(w, "hexadecimal: % X\n", secret)
		fmt.Fprintf(w, "every character escaped: %s\n", percent)
		// As a last line, which is what an error tells: with a code, and without.
		code := fmt.Sprintf(" (iRc=%d)", iRcInjected)
		for _, form := range []string{
			secret, base64.StdEncoding.EncodeToString([]byte("id:" + secret)), fmt.Sprintf("%x", secret), percent,
			secret[:half] + "\n" + secret[half:],
		} {
			fmt.Fprintln(w, form+code)
			fmt.Fprintln(w, form)
		}
	}
}

func printBytes(w io.Writer, n int) {
	lines := strings.Repeat(strings.Repeat("0123456789", 10)[:99]+"\n", 1<<10)
	for n > 0 {
		piece := lines[max(0, len(lines)-n):]
		io.WriteString(w, piece)
		n -= len(piece)
	}
}

// forkChild leaves a child behind that keeps every descriptor open that this
// run inherited, in the same process group.
func (s *session) forkChild(d time.Duration) error {
	own, err := os.Executable()
	if err != nil {
		return err
	}
	child := exec.Command(own, "--standin-hold", d.String())
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	if err := child.Start(); err != nil {
		return err
	}
	return s.log.child(child.Process.Pid)
}

// forkModule starts the module as a child of this run, which ends: the module
// keeps the outputs and every descriptor that it inherited, and the session. One
// that an earlier run started is stopped.
func (s *session) forkModule() error {
	if err := stopModule(s.home, s.call.modules[0]); err != nil {
		return err
	}
	own, err := os.Executable()
	if err != nil {
		return err
	}
	module := exec.Command(own, "--standin-module", s.home, s.call.modules[0], strconv.Itoa(s.faults.ModuleLines))
	module.Stdin, module.Stdout, module.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := module.Start(); err != nil {
		return err
	}
	return s.log.child(module.Process.Pid)
}

// beModule is the module: it prints its lines, tells so in the run log, and
// goes on. Where nobody reads what it prints it dies of SIGPIPE, as programs do.
func beModule(home, name, lines string, stdout, stderr io.Writer) error {
	n, err := strconv.Atoi(lines)
	if err != nil {
		return err
	}
	if err := writeModulePID(home, name); err != nil {
		return err
	}
	long := strings.Repeat(".", 1000) // more in all than fits into a pipe
	for i := range n {
		logLine(stdout, fmt.Sprintf("%s: line %d %s", name, i, long))
		logLine(stderr, fmt.Sprintf("%s: line %d %s", name, i, long))
		time.Sleep(20 * time.Millisecond)
	}
	log := newRunLog(home, time.Now(), invocation{kind: kindRestart, subcommand: "restart", modules: []string{name}}, true)
	if err := log.append("printed", func(*runRecord) {}); err != nil {
		return err
	}
	time.Sleep(forever)
	return nil
}

func ignoreTermination() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
}

// dieNow ends this process as kill -9 would: nothing more is written or logged.
func dieNow() {
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal may take a moment
}
