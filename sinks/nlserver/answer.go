package nlserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/lazyregexp"
)

// Answer is what nlserver did with a command line.
type Answer struct {
	// Ended is "exit N", "signal NAME", or "timeout": it was stopped, or, as a restart, left to run.
	Ended string
	// Lines are what it printed that may be quoted, without times and banner. HOME, INSTANCE and MODULE stand for those of this call.
	Lines []string
	// Version and Build are those of its banner, such as "7.4.1 YY.R" and 9383; empty and 0 where it printed none.
	Version string
	Build   int
	// Options are the names of the options that it listed, without the dash.
	Options []string
	// Database says that a line speaks of a database.
	Database bool
	Took     time.Duration
}

// Ask runs nlserver once with these arguments. instance, which may be empty, is the one that they name; secrets are what they hold of
// them; inherit is as for a [Run]. The error says that it could not be run, or that ctx ended.
func (b *Binary) Ask(ctx context.Context, instance string, args []string, inherit *os.File, secrets ...credential.Secret) (Answer, error) {
	env, err := b.environment(ctx)
	if err != nil {
		return Answer{}, err
	}
	printed, took, err := b.nlserver(ctx, "nlserver "+args[0], child{args: args, env: env, inherit: inherit}, secrets...)
	ended, err := endOf(err)
	return b.answer(printed, instance, "", ended, took, secrets...), err
}

// AskRestart restarts a module made by [Steps], and returns what that printed. mark, such as "NAME=value", is added to its environment,
// which a module that it starts inherits, as it does the output: memory that holds up nobody (boundedMemory).
// A restart that exceeds the timeout is left to run. The error is that of Ask.
func (b *Binary) AskRestart(ctx context.Context, module, instance, mark string) (Answer, error) {
	note, err := b.claim(module)
	if err != nil {
		return Answer{}, err
	}
	begun := false
	defer func() {
		if !begun {
			note.Close()
		}
	}()
	env, err := b.environment(ctx)
	if err != nil {
		return Answer{}, err
	}
	output, err := boundedMemory("credsync-survey")
	if err != nil {
		return Answer{}, err
	}
	r, err := b.start(module, append(env, mark), output, note)
	if err != nil {
		output.Close()
		return Answer{}, fmt.Errorf("nlserver restart %s: %w", module, err)
	}
	begun = true
	ended, printed := "timeout", ""
	select {
	case <-r.ended:
		printed = r.said
		ended, err = endOf(r.exit)
	case <-time.After(b.cfg.Timeout):
		printed = writtenIn(output)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	return b.answer(printed, instance, module, ended, time.Since(r.began)), err
}

const maxAnswer = 64 << 10 // bytes of an output that are looked at

// endOf tells how a run ended from its error. What remains of that says that it did not run to its end.
func endOf(err error) (string, error) {
	exit, _ := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return "exit 0", nil
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout", nil
	case exit == nil:
		return "", err
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return "signal " + unix.SignalName(status.Signal()), nil
	}
	return fmt.Sprintf("exit %d", exit.ExitCode()), nil
}

var (
	banner    = lazyregexp.New(`Application server.*?\(([\w. ]{1,30}) build (\d{1,6})@`)
	clock     = lazyregexp.New(`^\d\d:\d\d:\d\d >\s*`)
	listed    = lazyregexp.New(`^\s*-([A-Za-z]\w{1,39})`)
	databases = lazyregexp.New(`(?i)\b(database|dbms|odbc|sql|db login)\b|\b(ODB|PGS|ORA|WDB)-\d{6}`)
)

func (b *Binary) answer(printed, instance, module, ended string, took time.Duration, secrets ...credential.Secret) Answer {
	a := Answer{Ended: ended, Took: took}
	for line := range strings.SplitSeq(printed, "\n") {
		line = clock().ReplaceAllString(strings.TrimRight(line, "\r"), "")
		if found := banner().FindStringSubmatch(line); found != nil {
			a.Version = found[1]
			a.Build, _ = strconv.Atoi(found[2]) // has digits only
			continue
		}
		if option := listed().FindStringSubmatch(line); option != nil && !slices.Contains(a.Options, option[1]) {
			a.Options = append(a.Options, option[1])
		}
		a.Database = a.Database || databases().MatchString(line)
		line = credential.Redact(line, secrets...)
		line = named(named(named(line, b.cfg.Home, "HOME"), module, "MODULE"), instance, "INSTANCE")
		if line = excerpt(redact(line)); line != "" && len(a.Lines) < mostLines {
			a.Lines = append(a.Lines, line)
		}
	}
	return a
}

// named puts a word in place of a name that stands by itself.
func named(line, name, word string) string {
	if name == "" {
		return line
	}
	return regexp.MustCompile(`(^|\W)`+regexp.QuoteMeta(name)+`\b`).ReplaceAllString(line, "${1}"+word)
}

const mostLines = 40 // of an answer that are kept
