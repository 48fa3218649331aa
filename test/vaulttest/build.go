package vaulttest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Modules below test/, each a Vault of its own.
const (
	current = "vault"
	pushing = "vaultevents" // pushes events, which takes an older one
)

// Build makes sure that Launch and LaunchEvents find their programs built, so that a long build can be shown where its
// progress is seen: go test keeps the output of a test to itself until it ends. In place of the first, an external Vault
// may be used.
func Build(ctx context.Context, progress io.Writer) error {
	modules := []string{current, pushing}
	if external() {
		modules = modules[1:]
	}
	for _, module := range modules {
		if _, err := build(ctx, module, progress); err != nil {
			return fmt.Errorf("test/%s: %w", module, err)
		}
	}
	return nil
}

// build returns the program of a module, bin/test-<module>, built anew when it is older than its sources. Test processes
// run in parallel: one builds, the others wait for it.
func build(ctx context.Context, module string, progress io.Writer) (string, error) {
	root, err := repository()
	if err != nil {
		return "", err
	}
	source, binary := filepath.Join(root, "test", module), program(root, module)
	if upToDate(binary, source) {
		return binary, nil
	}
	if err := os.MkdirAll(filepath.Dir(binary), 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(ctx, binary+".lock", progress)
	if err != nil {
		return "", err
	}
	defer unlock()
	if upToDate(binary, source) {
		return binary, nil // somebody else built it meanwhile
	}
	fresh := binary + ".new"
	if err := compile(ctx, source, fresh, progress); err != nil {
		return "", err
	}
	return binary, os.Rename(fresh, binary)
}

// Built reports whether LaunchBuilt has nothing to build.
func Built() bool {
	root, err := repository()
	return err == nil && upToDate(program(root, current), filepath.Join(root, "test", current))
}

func program(root, module string) string { return filepath.Join(root, "bin", "test-"+module) }

// repository finds the folder of this module's go.mod, above this file or, in a program built with -trimpath, above the
// working directory.
func repository() (string, error) {
	var starts []string
	if _, file, _, ok := runtime.Caller(0); ok && filepath.IsAbs(file) {
		starts = append(starts, filepath.Dir(file))
	}
	if dir, err := os.Getwd(); err == nil {
		starts = append(starts, dir)
	}
	for _, dir := range starts {
		for ; ; dir = filepath.Dir(dir) {
			if _, err := os.Stat(filepath.Join(dir, "test", "vault", "go.mod")); err == nil {
				return dir, nil
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return "", errors.New("no test/vault/go.mod above this package or the working directory; run it inside the repository")
}

func upToDate(binary, source string) bool {
	built, err := os.Stat(binary)
	if err != nil {
		return false
	}
	sources, err := filepath.Glob(filepath.Join(source, "*.go"))
	if err != nil {
		return false
	}
	for _, file := range append(sources, filepath.Join(source, "go.mod"), filepath.Join(source, "go.sum")) {
		if info, err := os.Stat(file); err != nil && !errors.Is(err, fs.ErrNotExist) ||
			err == nil && info.ModTime().After(built.ModTime()) {
			return false
		}
	}
	return true
}

// lock waits for the file's lock. The kernel drops it with the process.
func lock(ctx context.Context, file string, progress io.Writer) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for said := false; ; {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", file, err)
		}
		if !said {
			said = true
			fmt.Fprintln(progress, "vaulttest: another process builds this test Vault; waiting for it")
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// compile builds the module at source. Its environment is the plain one: flags meant for the caller's own build (race
// detector, vendoring) would compile 1,600 packages a second time.
func compile(ctx context.Context, source, output string, progress io.Writer) error {
	environment := append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	fmt.Fprintf(progress, "vaulttest: building test/%s: about five minutes the first time, some seconds later on\n", filepath.Base(source))
	list := exec.CommandContext(ctx, "go", "list", "-deps", "./")
	list.Dir, list.Env = source, environment
	packages, err := list.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return fmt.Errorf("go list: %w: %s", err, tail(exit.Stderr))
		}
		return fmt.Errorf("go list: %w (is Go installed?)", err)
	}
	total := bytes.Count(packages, []byte("\n"))

	command := exec.CommandContext(ctx, "go", "build", "-v", "-ldflags=-s -w", "-o", output, "./")
	command.Dir, command.Env = source, environment
	command.WaitDelay = 10 * time.Second
	stderr, err := command.StderrPipe()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := command.Start(); err != nil {
		return err
	}
	said := report(stderr, total, began, progress)
	if err := command.Wait(); err != nil {
		return fmt.Errorf("go build: %w: %s", err, tail(said))
	}
	fmt.Fprintf(progress, "vaulttest: built in %s\n", time.Since(began).Round(time.Second))
	return nil
}

// report reads what go build -v says, a line for each package it compiles, until its end, and tells of it now and then.
// Packages that were compiled before are not named, so the total is an upper bound.
func report(stderr io.Reader, total int, began time.Time, progress io.Writer) []byte {
	var said bytes.Buffer
	next, count := began.Add(10*time.Second), 0
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		said.Write(append(lines.Bytes(), '\n'))
		count++
		if now := time.Now(); now.After(next) {
			next = now.Add(10 * time.Second)
			fmt.Fprintf(progress, "vaulttest: %d of at most %d packages compiled after %s\n", count, total, now.Sub(began).Round(time.Second))
		}
	}
	return said.Bytes()
}

func tail(output []byte) string {
	lines := strings.Split(strings.TrimSpace(string(output)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}
